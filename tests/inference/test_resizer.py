import numpy as np
import pytest

from hrn.data.resize import imresize
from hrn.errors import HRNError
from hrn.inference.resizer import Resizer, Size, parse_size


class Doubling:
    """Repeats pixels."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, lr):
        return lr.repeat(self.scale, 0).repeat(self.scale, 1)

    def strips(self, lr):
        yield from (self(lr[i : i + 5]) for i in range(0, len(lr), 5))


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
    assert Resizer([Doubling(2)], size)(np.zeros((10, 7, 3), np.uint8)).shape == (*expected, 3)


@pytest.mark.parametrize(
    ("scales", "factor", "passes"),
    [
        ([4], 2.5, (4,)), ([2, 4], 2, (2,)), ([2, 4], 2.1, (4,)), ([2, 4], 5, (2, 4)), ([4], 5, (4, 4)),
        ([2, 3, 4], 4, (4,)), ([2, 3], 4, (2, 2)), ([2, 3], 5, (2, 3)), ([2], 7, (2, 2, 2)), ([4], 0.5, ()), ([4], 1, ()),
    ],
)  # fmt: skip
def test_the_next_larger_trained_scale(scales, factor, passes):
    assert Resizer([Doubling(s) for s in scales], Size(factor=factor)).passes((20, 20)) == passes


@pytest.mark.parametrize(
    "size", [Size(factor=2.7), Size(exact=(33, 200)), Size(factor=0.4), Size(factor=5), Size(factor=1)]
)
def test_it_is_the_enlargement_reduced(rng, size):
    image = rng.integers(0, 256, (24, 31, 3), dtype=np.uint8)
    resizer = Resizer([Doubling(2), Doubling(4)], size)
    factor = np.prod(resizer.passes((24, 31)), dtype=int)
    expected = imresize(image.repeat(factor, 0).repeat(factor, 1), size=size.of((24, 31)))
    assert (resizer(image) == expected).all()


def test_what_is_said():
    told = Resizer([Doubling(4)], Size(exact=(1080, 1920))).describe((270, 500))
    assert told == "x4, then bicubic down, then width stretched by 0.96 against height"
    assert Resizer([Doubling(4)], Size(factor=4)).describe((270, 500)) == "x4"
    assert Resizer([Doubling(4)], Size(factor=1)).describe((270, 500)) == "as it is"


def test_sizes_that_are_none():
    for values in ({}, {"factor": 2, "long_edge": 3}, {"factor": 0}, {"factor": float("nan")}, {"exact": (0, 5)}):
        with pytest.raises(HRNError):
            Size(**values)
    with pytest.raises(HRNError, match="too much for 3 passes of x2"):
        Resizer([Doubling(2)], Size(factor=9)).passes((5, 5))
    for text in ("1920", "axb", "1920x", "-1x5", "0x5"):
        with pytest.raises(HRNError):
            parse_size(text)
    assert parse_size("1920x1080") == Size(exact=(1080, 1920))
