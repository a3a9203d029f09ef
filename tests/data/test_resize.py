import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hrn.data.resize import Bicubic, bicubic_lr, cubic, imresize, imresize_strips, modcrop


def test_kernel_is_keys_cubic():
    np.testing.assert_allclose(cubic(np.array([0, 1, -1, 2, 3])), [1, 0, 0, 0, 0], atol=1e-15)
    t = np.linspace(0, 1, 11)
    taps = np.stack([cubic(t + 1), cubic(t), cubic(t - 1), cubic(t - 2)])
    np.testing.assert_allclose(taps.sum(axis=0), 1)  # constants
    np.testing.assert_allclose((taps * np.array([-1, 0, 1, 2])[:, None]).sum(axis=0), t, atol=1e-12)  # slopes


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_reduction_is_within_a_level_of_torchs_antialiased_bicubic(image, scale):
    """Torch does not round between the passes, and crops the kernel at the border instead of repeating pixels."""
    image = modcrop(image, scale)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    pad = 4 * scale
    x = F.pad(x, (pad,) * 4, mode="replicate")
    y = F.interpolate(x, scale_factor=1 / scale, mode="bicubic", antialias=True)[0, :, 4:-4, 4:-4]
    expected = y.permute(1, 2, 0).numpy().clip(0, 255)
    assert np.abs(bicubic_lr(image, scale) - expected).max() <= 1.2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_enlargement_is_within_a_level_of_torchs(image, scale):
    x = F.pad(torch.from_numpy(image).permute(2, 0, 1)[None].double(), (4,) * 4, mode="replicate")
    y = F.interpolate(x, scale_factor=scale, mode="bicubic", antialias=True)[
        0, :, 4 * scale : -4 * scale, 4 * scale : -4 * scale
    ]
    assert np.abs(imresize(image, scale=scale) - y.permute(1, 2, 0).numpy().clip(0, 255)).max() <= 1.2


def keys(x):
    """Keys' kernel with a = -0.5, by its definition."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0


def resized_rows(image, scale):
    """Resize along the first axis, one row at a time, and round to uint8."""
    out = []
    for i in range(int(np.ceil(image.shape[0] * scale))):
        centre, width = (i + 0.5) / scale - 0.5, min(scale, 1)
        taps = range(int(centre - 2 / width) - 2, int(centre + 2 / width) + 3)
        weights = [keys(width * (centre - tap)) for tap in taps]
        row = sum(w * image[min(max(tap, 0), len(image) - 1)] for w, tap in zip(weights, taps, strict=True))
        out.append(np.floor(row / sum(weights) + 0.5).clip(0, 255))
    return np.stack(out).astype(np.uint8)


@pytest.mark.parametrize("scale", [1 / 3, 1 / 4, 3])
def test_rows_come_first_and_each_pass_rounds(rng, scale):
    """As MATLAB does. Other orders give other results on noise."""
    image = rng.integers(0, 256, (24, 36, 3), dtype=np.uint8)
    rows_first = resized_rows(resized_rows(image, scale).swapaxes(0, 1), scale).swapaxes(0, 1)
    columns_first = resized_rows(resized_rows(image.swapaxes(0, 1), scale).swapaxes(0, 1), scale)
    assert np.array_equal(imresize(image, scale=scale), rows_first)
    assert not np.array_equal(rows_first, columns_first)


def test_sizes():
    image = np.zeros((10, 7, 3), np.uint8)
    assert imresize(image, scale=0.25).shape == (3, 2, 3)  # MATLAB rounds the size up
    assert imresize(image, scale=2.5).shape == (25, 18, 3)
    assert imresize(image, size=(4, 9)).shape == (4, 9, 3)
    assert imresize(image[..., 0], scale=2).shape == (20, 14)
    assert modcrop(image, 4).shape == (8, 4, 3)


def test_constant_stays_constant():
    assert (imresize(np.full((9, 5, 3), 77, np.uint8), scale=3) == 77).all()


def test_one_pixel_can_be_enlarged():
    assert (imresize(np.full((1, 1, 3), 9, np.uint8), scale=4) == 9).all()


@pytest.mark.parametrize("kwargs", [{}, {"scale": 2, "size": (3, 3)}])
def test_scale_or_size(kwargs):
    with pytest.raises(ValueError, match="scale"):
        imresize(np.zeros((4, 4), np.uint8), **kwargs)


@pytest.mark.parametrize("new_size", [(200, 90), (48, 64), (31, 200), (7, 5), (1, 1), (333, 64)])
@pytest.mark.parametrize("heights", [[48], [1] * 48, [20, 1, 27]])
def test_strips_equal_the_whole(image, new_size, heights):
    parts = np.split(image, np.cumsum(heights)[:-1])
    found = list(imresize_strips(parts, image.shape[:2], new_size))
    assert (np.concatenate(found) == imresize(image, size=new_size)).all()


def test_rows_are_those_of_the_whole(image):
    whole = imresize(image, size=(100, 90))
    for rows in ((0, 100), (0, 1), (37, 60), (99, 100)):
        assert (imresize(image, size=(100, 90), rows=rows) == whole[slice(*rows)]).all()


def test_bicubic_in_strips(rng):
    image = rng.integers(0, 256, (150, 20, 3), dtype=np.uint8)
    strips = list(Bicubic(3).strips(image))
    assert len(strips) > 1
    assert (np.concatenate(strips) == Bicubic(3)(image)).all()


def test_a_large_image_is_never_entirely_in_float64(rng):
    image = rng.integers(0, 256, (3000, 400, 3), dtype=np.uint8)
    for make in (
        lambda: imresize(image, size=(2000, 270)),
        lambda: list(imresize_strips([image], (3000, 400), (2000, 270))),
    ):
        make()
        tracemalloc.start()
        make()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2.5 * image.nbytes  # all at once, it would be ten times
