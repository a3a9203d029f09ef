"""Metrics against their formulas, and scores of bicubic interpolation against published ones."""

import math

import numpy as np
import pytest
from scipy.signal import convolve2d

from hrn.data.benchmark import find_test_set
from hrn.data.resize import imresize
from hrn.evaluation.evaluate import evaluate
from hrn.evaluation.metrics import mean_scores, psnr, rgb_to_y, score, shaved, ssim


def wang_ssim(a, b):
    """SSIM written out step by step (Wang et al. 2004): 11x11 Gaussian, valid region."""
    g = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(g, g) / g.sum() ** 2

    def blur(x):
        return convolve2d(x, window, mode="valid")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    m1, m2 = blur(a), blur(b)
    v1, v2, v12 = blur(a * a) - m1**2, blur(b * b) - m2**2, blur(a * b) - m1 * m2
    return np.mean((2 * m1 * m2 + c1) * (2 * v12 + c2) / ((m1**2 + m2**2 + c1) * (v1 + v2 + c2)))


def test_ssim_equals_a_direct_implementation(rng, image):
    a = rgb_to_y(image)
    b = a + rng.normal(0, 12, a.shape)
    assert ssim(a, b) == pytest.approx(wang_ssim(a, b), abs=1e-7)
    assert ssim(a, a) == 1
    assert math.isnan(ssim(a[:10], b[:10]))


def test_luma_is_studio_range():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(rgb_to_y(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-9)


def test_psnr_by_hand():
    a = np.zeros((4, 4))
    assert psnr(a, a + 1) == pytest.approx(20 * math.log10(255))
    assert psnr(a, a) == math.inf
    with pytest.raises(ValueError):  # noqa: PT011
        psnr(a, a[:2])


def test_the_border_is_left_out(image):
    broken = image.copy()
    broken[:4] = broken[-4:] = broken[:, :4] = broken[:, -4:] = 0
    assert score(broken, image, 4)["psnr_y"] == math.inf
    assert score(broken, image, 3)["psnr_y"] < 40
    with pytest.raises(ValueError, match="64x48"):
        shaved(image, 24)


def test_psnr_of_rgb_by_hand(image):
    image = image.clip(0, 200)
    off = image.copy()
    off[..., 0] += 6  # one of three channels
    off[:2] = 0  # border
    assert score(off, image, 2)["psnr_rgb"] == pytest.approx(10 * math.log10(255**2 / (36 / 3)))
    with pytest.raises(ValueError, match="62x48"):
        score(image[:, :62], image, 2)


def test_grey_can_be_scored_raw(image):
    grey = np.repeat(image[..., :1], 3, axis=2)
    off = np.clip(grey.astype(int) + 2, 0, 255).astype(np.uint8)
    difference = score(off, grey, 2)["psnr_y"] - score(off, grey, 2, raw_grey=True)["psnr_y"]
    assert difference == pytest.approx(20 * math.log10(255 / 219), abs=1e-6)
    with pytest.raises(ValueError, match="colour"):
        score(off, image, 2, raw_grey=True)


PUBLISHED_BICUBIC = {  # PSNR-Y, SSIM-Y of RCAN's and RDN's tables; Set14's grey image scored raw
    2: {"Set5": (33.66, 0.9299), "Set14": (30.24, 0.8688), "B100": (29.56, 0.8431)},
    3: {"Set5": (30.39, 0.8682), "Set14": (27.55, 0.7742), "B100": (27.21, 0.7385)},
    4: {"Set5": (28.42, 0.8104), "Set14": (26.00, 0.7027), "B100": (25.96, 0.6675)},
}


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Set14", "B100"))])
def test_bicubic_scores_are_the_published_ones(shared, name, scale):
    test_set = find_test_set(shared / "data/benchmark" / name, scale)
    results = evaluate(lambda lr: imresize(lr, scale=scale), test_set, raw_grey=["bridge"])
    mean = mean_scores([r.scores for r in results])
    psnr_y, ssim_y = PUBLISHED_BICUBIC[scale][name]
    assert mean["psnr_y"] == pytest.approx(psnr_y, abs=0.03)
    assert mean["ssim_y"] == pytest.approx(ssim_y, abs=0.001)
