"""PSNR and SSIM by the protocol of super-resolution papers.

Both are computed on Y of ITU-R BT.601 in studio range, kept as float, after cutting `shave` pixels from every border. SSIM
uses an 11x11 Gaussian window with sigma 1.5 over the valid region (Z. Wang et al., IEEE Trans. Image Processing 13, 2004).
"""

import math

import numpy as np
from skimage.metrics import structural_similarity

PROTOCOL = "PSNR and SSIM on Y (BT.601, 16-235, float) of 8-bit images, {shave} pixels of border left out, SSIM 11x11 Gaussian sigma 1.5"
METRICS = ("psnr_y", "ssim_y", "psnr_rgb")
SSIM_WINDOW = 11
"""Width and height of SSIM's window in pixels."""

_SSIM = dict(data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)


def rgb_to_y(rgb: np.ndarray) -> np.ndarray:
    """Return the luma of ITU-R BT.601, like MATLAB's rgb2ycbcr: (H, W, 3) uint8 to (H, W) float64 in the range 16 to 235."""
    return 16 + rgb.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255)


def shaved(image: np.ndarray, shave: int) -> np.ndarray:
    """Cut `shave` pixels from each border. Raises ValueError if nothing is left."""
    h, w = image.shape[:2]
    if min(h, w) <= 2 * shave:
        raise ValueError(f"nothing is left of {w}x{h} pixels after shaving {shave} from each border")
    return image[shave : h - shave, shave : w - shave]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two arrays in the range 0 to 255; infinite if they are equal.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"cannot compare shapes {a.shape} and {b.shape}")
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two (H, W) float arrays in the range 0 to 255; NaN if a side is shorter than 11 pixels."""
    if min(a.shape) < SSIM_WINDOW:
        return math.nan
    return float(structural_similarity(a, b, **_SSIM))


def score(sr: np.ndarray, hr: np.ndarray, shave: int, raw_grey: bool = False) -> dict[str, float]:
    """PSNR-Y, SSIM-Y and PSNR-RGB of a super-resolved image, under the keys of METRICS.

    Args:
        sr, hr: (H, W, 3) uint8 of the same size.
        shave: border in HR pixels to leave out.
        raw_grey: score the first channel in 0 to 255 instead of Y. For grey images.

    Raises:
        ValueError: the sizes differ, nothing is left without the border, or `raw_grey` is set for a colour image.
    """
    if sr.shape != hr.shape:
        raise ValueError(f"cannot compare {sr.shape[1]}x{sr.shape[0]} with {hr.shape[1]}x{hr.shape[0]} pixels")
    if raw_grey and (hr != hr[..., :1]).any():
        raise ValueError("a colour image cannot be scored as raw grey")
    sr, hr = shaved(sr, shave), shaved(hr, shave)
    sr_y, hr_y = (sr[..., 0].astype(float), hr[..., 0].astype(float)) if raw_grey else (rgb_to_y(sr), rgb_to_y(hr))
    return {"psnr_y": psnr(sr_y, hr_y), "ssim_y": ssim(sr_y, hr_y), "psnr_rgb": psnr(sr, hr)}


def mean_scores(scores: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over images, as published in tables."""
    return {metric: float(np.mean([s[metric] for s in scores])) for metric in METRICS}
