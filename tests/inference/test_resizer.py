import numpy as np
import pytest

from hrn.data.resize import imresize
from hrn.data.upscaler import Upscaler
from hrn.errors import HRNError
from hrn.inference.resizer import Resizer, Size, parse_size


class Repeating(Upscaler):
    """Repeats pixels, in strips of five LR rows."""

    def __init__(self, scale):
        self.scale = scale

    def strips(self, lr):
        for top in range(0, len(lr), 5):
            yield lr[top : top + 5].repeat(self.scale, 0).repeat(self.scale, 1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (Size(factor=2.5), (25, 18)),  # MATLAB rounds up
        (Size(exact=(30, 40)), (30, 40)),
        (Size(long_edge=20), (20, 14)),
        (Size(long_edge=1), (1, 1)),
    ],
)
def test_sizes(size, expected):
    assert size.of((10, 7)) == expected
    assert Resizer([Repeating(2)], size)(np.zeros((10, 7, 3), np.uint8)).shape == (*expected, 3)


def test_factors_without_rounding_errors():
    """In floating point, 100 * 1.1 is slightly more than 110."""
    assert Size(factor=1.1).of((100, 50)) == (110, 55)
    assert Size(factor=1e-9).of((100, 50)) == (1, 1)


@pytest.mark.parametrize(
    ("scales", "factor", "passes"),
    [
        ([4], 2.5, (4,)), ([2, 4], 2, (2,)), ([2, 4], 2.1, (4,)), ([2, 4], 5, (2, 4)), ([4], 5, (4, 4)),
        ([2, 3, 4], 4, (4,)), ([2, 3], 4, (2, 2)), ([2, 3], 5, (2, 3)), ([2], 7, (2, 2, 2)), ([4], 0.5, ()), ([4], 1, ()),
    ],
)  # fmt: skip
def test_the_next_larger_trained_scale(scales, factor, passes):
    assert Resizer([Repeating(s) for s in scales], Size(factor=factor)).passes((20, 20)) == passes


@pytest.mark.parametrize(
    "size", [Size(factor=2.7), Size(exact=(33, 200)), Size(factor=0.4), Size(factor=5), Size(factor=1)]
)
def test_the_result_is_the_reduced_enlargement(rng, size):
    image = rng.integers(0, 256, (24, 31, 3), dtype=np.uint8)
    resizer = Resizer([Repeating(2), Repeating(4)], size)
    factor = np.prod(resizer.passes((24, 31)), dtype=int)
    expected = imresize(image.repeat(factor, 0).repeat(factor, 1), size=size.of((24, 31)))
    assert (resizer(image) == expected).all()


def test_descriptions():
    steps = Resizer([Repeating(4)], Size(exact=(1080, 1920))).describe((270, 500)).split(", then ")
    assert len(steps) == 3
    assert steps[0] == "x4"
    assert "0.96" in steps[2]
    assert Resizer([Repeating(4)], Size(factor=4)).describe((270, 500)) == "x4"
    assert Resizer([Repeating(4)], Size(factor=1)).describe((270, 500)) == "unchanged"


def test_invalid_sizes():
    for values in ({}, {"factor": 2, "long_edge": 3}, {"factor": 0}, {"factor": float("nan")}, {"exact": (0, 5)}):
        with pytest.raises(HRNError):
            Size(**values)
    with pytest.raises(HRNError, match="3 passes of x2"):
        Resizer([Repeating(2)], Size(factor=9)).passes((5, 5))
    for text in ("1920", "axb", "1920x", "-1x5", "0x5"):
        with pytest.raises(HRNError):
            parse_size(text)
    assert parse_size("1920x1080") == Size(exact=(1080, 1920))
