"""Super-resolve the images of a test set and score them one by one."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from hrn.data.benchmark import Pair, TestSet
from hrn.errors import HRNError
from hrn.evaluation.metrics import score

Enlarge = Callable[[np.ndarray], np.ndarray]
"""Maps (H, W, 3) uint8 to (s*H, s*W, 3) uint8."""
SuperResolve = Callable[[str, Pair], np.ndarray]
"""Maps an image's name and pair to a super-resolved image of the HR size, (H, W, 3) uint8."""


@dataclass(frozen=True)
class ImageResult:
    """The scores of one image, and its pixels until they are dropped."""

    name: str
    lr_size: tuple[int, int]
    """Height and width of the LR image."""
    scores: dict[str, float]
    """Scores of the super-resolved image, by metric."""
    bicubic: dict[str, float] | None
    """Scores of bicubic interpolation, if requested."""
    seconds: float | None
    """Time to super-resolve the image; None if the result was read from a file."""
    sr: np.ndarray | None
    bicubic_sr: np.ndarray | None
    hr: np.ndarray | None
    lr: np.ndarray | None

    def without_images(self) -> "ImageResult":
        """Return a copy without pixels, to keep the scores of a whole set in memory."""
        return replace(self, sr=None, bicubic_sr=None, hr=None, lr=None)


def evaluate(
    enlarge: Enlarge,
    test_set: TestSet,
    *,
    shave: int | None = None,
    raw_grey: Collection[str] = (),
    bicubic: Enlarge | None = None,
) -> Iterator[ImageResult]:
    """Enlarge the LR images of a test set and score the results. Arguments and errors as :func:`score_images`."""
    return score_images(lambda _, pair: enlarge(pair.lr), test_set, shave=shave, raw_grey=raw_grey, bicubic=bicubic)


def score_images(
    super_resolve: SuperResolve,
    test_set: TestSet,
    *,
    shave: int | None = None,
    raw_grey: Collection[str] = (),
    bicubic: Enlarge | None = None,
) -> Iterator[ImageResult]:
    """Score the images of a test set one by one.

    Args:
        super_resolve: the method to score.
        test_set: from :func:`hrn.data.benchmark.find_test_set`.
        shave: border in HR pixels to leave out; the scale by default.
        raw_grey: names of grey images to score on their grey values, 0 to 255, instead of Y. Published bicubic rows score
            Set14's `bridge` this way. Papers on networks convert it to RGB and score Y.
        bicubic: bicubic interpolation, to score it too.

    Raises:
        HRNError: an image cannot be read, or is too small to score.
    """
    shave = test_set.scale if shave is None else shave
    for image in test_set.images:
        pair = image.load(test_set.scale)
        start = time.perf_counter()
        sr = super_resolve(image.name, pair)
        seconds = time.perf_counter() - start
        bicubic_sr = bicubic(pair.lr) if bicubic else None
        raw = image.name in raw_grey
        try:
            scores = score(sr, pair.hr, shave, raw)
            bicubic_scores = score(bicubic_sr, pair.hr, shave, raw) if bicubic else None
        except ValueError as error:
            raise HRNError(f"{image.name}: {error}") from None
        lr_size = pair.lr.shape[:2]
        yield ImageResult(image.name, lr_size, scores, bicubic_scores, seconds, sr, bicubic_sr, pair.hr, pair.lr)
