"""Score a way of enlarging on a test set."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from hrn.data.benchmark import TestSet
from hrn.errors import HRNError
from hrn.evaluation.metrics import score

METRICS = ("psnr_y", "ssim_y", "psnr_rgb")

Enlarge = Callable[[np.ndarray], np.ndarray]
"""(H, W, 3) uint8 to (s*H, s*W, 3) uint8."""


@dataclass(frozen=True)
class ImageResult:
    """One image's scores."""

    name: str
    lr_size: tuple[int, int]
    """Height and width."""
    scores: dict[str, float]
    bicubic: dict[str, float] | None
    seconds: float
    sr: np.ndarray | None
    bicubic_sr: np.ndarray | None
    hr: np.ndarray | None
    lr: np.ndarray | None

    def without_images(self) -> "ImageResult":
        """To keep scores without holding a whole set in memory."""
        return replace(self, sr=None, bicubic_sr=None, hr=None, lr=None)


def evaluate(
    enlarge: Enlarge,
    test_set: TestSet,
    *,
    shave: int | None = None,
    raw_grey: Collection[str] = (),
    bicubic: Enlarge | None = None,
) -> Iterator[ImageResult]:
    """Enlarge and score image after image.

    Args:
        enlarge: what is scored.
        test_set: from :func:`hrn.data.benchmark.find_test_set`.
        shave: border in HR pixels left out; the scale by default.
        raw_grey: names of grey images to score on their own 0 to 255, as the published bicubic rows score Set14's
            `bridge`; network papers turn its three equal channels into Y like any others.
        bicubic: what to score beside it.

    Raises:
        HRNError: an image cannot be read, or is too small to score.
    """
    shave = test_set.scale if shave is None else shave
    for image in test_set.images:
        pair = image.load(test_set.scale)
        start = time.perf_counter()
        sr = enlarge(pair.lr)
        seconds = time.perf_counter() - start
        bicubic_sr = bicubic(pair.lr) if bicubic else None
        raw = image.name in raw_grey
        try:
            scores = score(sr, pair.hr, shave, raw)
            beside = score(bicubic_sr, pair.hr, shave, raw) if bicubic else None
        except ValueError as error:
            raise HRNError(f"{image.name}: {error}") from None
        yield ImageResult(image.name, pair.lr.shape[:2], scores, beside, seconds, sr, bicubic_sr, pair.hr, pair.lr)


def mean_scores(scores: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each metric over images, as tables print it."""
    return {metric: float(np.mean([s[metric] for s in scores])) for metric in METRICS}
