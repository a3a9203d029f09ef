"""Comparison figures in the layout of super-resolution papers: the image with a box, and the same crop by each method."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import uniform_filter

from hrn.evaluation.metrics import rgb_to_y, score
from hrn.files import writing_beside

CROP = 96
"""Default side of a crop, in HR pixels."""


def telling_crop(hr: np.ndarray, worse: np.ndarray, better: np.ndarray, side: int = CROP) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the square in which `better` gains most over `worse` in squared error of Y."""
    side = min(side, *hr.shape[:2])
    y_hr = rgb_to_y(hr)
    gain = (rgb_to_y(worse) - y_hr) ** 2 - (rgb_to_y(better) - y_hr) ** 2
    h, w = gain.shape
    mean = uniform_filter(gain, side, mode="constant")[side // 2 : h - (side - 1) // 2, side // 2 : w - (side - 1) // 2]
    y, x = np.unravel_index(np.argmax(mean), mean.shape)
    return int(x), int(y), side, side


def compare(
    path: Path,
    title: str,
    hr: np.ndarray,
    methods: dict[str, np.ndarray],
    *,
    crop: tuple[int, int, int, int],
    shave: int,
) -> None:
    """Draw a comparison.

    Args:
        path: PNG or PDF to write.
        title: of the image.
        hr: (H, W, 3) uint8 original.
        methods: name to super-resolved image, of HR's size; the original is added last.
        crop: (x, y, width, height) in HR pixels.
        shave: of the scores under each crop.
    """
    x, y, w, h = crop
    panels = {**methods, "original": hr}
    height = 3.2
    full_width = height * hr.shape[1] / hr.shape[0]
    widths = [full_width] + [height * w / h] * len(panels)
    figure, axes = plt.subplots(
        1,
        len(widths),
        figsize=(sum(widths) + 0.1 * len(widths), height + 0.5),
        width_ratios=widths,
        layout="constrained",
    )
    axes[0].imshow(hr, interpolation="antialiased")
    axes[0].add_patch(plt.Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor="#e02020", linewidth=1.6))
    axes[0].set_xlabel(title)
    for axis, (name, image) in zip(axes[1:], panels.items(), strict=True):
        axis.imshow(image[y : y + h, x : x + w], interpolation="nearest")
        scores = score(image, hr, shave) if name != "original" else None
        axis.set_xlabel(f"{name}\n{scores['psnr_y']:.2f} dB / {scores['ssim_y']:.4f}" if scores else name)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    with writing_beside(path) as beside:
        figure.savefig(beside, format=path.suffix.removeprefix("."), dpi=160)
    plt.close(figure)
