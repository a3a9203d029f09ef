"""Enlarge to any size: apply one or more trained scales, then reduce bicubically to the exact size."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from hrn.data.resize import imresize_strips
from hrn.data.upscaler import Upscaler
from hrn.errors import HRNError

MAX_PASSES = 3
"""Maximum number of enlargements in sequence. x4 alone then reaches x64."""


@dataclass(frozen=True)
class Size:
    """The requested size. Exactly one of the fields is set.

    Raises:
        HRNError: not exactly one field is set, or a value is not positive and finite.
    """

    factor: float | None = None
    """The factor of both sides. Sizes are rounded up, as in MATLAB, ignoring floating-point errors: 1.1 times 100 is 110."""
    exact: tuple[int, int] | None = None
    """Height and width in pixels."""
    long_edge: int | None = None
    """The longer side in pixels. The aspect ratio is kept."""

    def __post_init__(self) -> None:
        given = [v for v in (self.factor, self.exact, self.long_edge) if v is not None]
        if len(given) != 1:
            raise HRNError("give exactly one of: a factor, width and height, a long edge")
        if not all(math.isfinite(v) and v > 0 for v in (self.exact or given)):
            raise HRNError(f"invalid size {self}: it must be positive")

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""
        if self.exact:
            return self.exact
        if self.factor:
            h, w = (math.ceil(round(side * self.factor, 6)) or 1 for side in size)
            return h, w
        factor = self.long_edge / max(size)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def __str__(self) -> str:
        if self.exact:
            return f"{self.exact[1]}x{self.exact[0]}"
        return f"long_edge{self.long_edge}" if self.long_edge is not None else f"x{self.factor:g}"


def parse_size(text: str) -> Size:
    """Parse a size such as `1920x1080`, width first. Raises HRNError if the text has another form."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if not match:
        raise HRNError(f"invalid size {text!r}: use WIDTHxHEIGHT, such as 1920x1080")
    return Size(exact=(int(match[2]), int(match[1])))


class Resizer(Upscaler):
    """Enlarges images to a requested size.

    Args:
        upscalers: upscalers of different scales. They may be applied several times.
        size: the requested size.
    """

    def __init__(self, upscalers: Sequence[Upscaler], size: Size) -> None:
        self.upscalers = {e.scale: e for e in upscalers}
        self.size = size

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""
        return self.size.of(size)

    def passes(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the scales to apply in sequence: the smallest product that reaches the size, then the fewest passes.

        Empty if the image already has at least the requested size.

        Raises:
            HRNError: the size needs more than MAX_PASSES passes.
        """
        wanted = max(new / old for new, old in zip(self.size_of(size), size, strict=True))
        if wanted <= 1:
            return ()
        candidates = [
            scales
            for count in range(1, MAX_PASSES + 1)
            for scales in combinations_with_replacement(sorted(self.upscalers), count)
            if math.prod(scales) >= wanted
        ]
        if not candidates:
            scales = ", ".join(f"x{s}" for s in sorted(self.upscalers))
            raise HRNError(f"cannot enlarge by {wanted:.1f}: too much for {MAX_PASSES} passes of {scales}")
        return min(candidates, key=lambda scales: (math.prod(scales), len(scales)))

    def describe(self, size: tuple[int, int]) -> str:
        """Return a short description of the steps applied to an image of height and width `size`."""
        passes, new_size = self.passes(size), self.size_of(size)
        enlarged = tuple(side * math.prod(passes) for side in size)
        steps = [f"x{s}" for s in passes] + (["bicubic down"] if enlarged != new_size else [])
        stretch = new_size[1] / size[1] / (new_size[0] / size[0])
        if abs(stretch - 1) > 0.01:
            steps.append(f"width stretched by {stretch:.2f}")
        return ", then ".join(steps) or "unchanged"

    def strips(self, lr: np.ndarray) -> Iterator[np.ndarray]:
        """Yield strips of rows of the result from top to bottom. Intermediate images of several passes are held whole."""
        new_size = self.size_of(lr.shape[:2])
        *first, last = self.passes(lr.shape[:2]) or (None,)
        for scale in first:
            lr = self.upscalers[scale](lr)
        strips = self.upscalers[last].strips(lr) if last else iter([lr])
        enlarged = tuple(side * (last or 1) for side in lr.shape[:2])
        return strips if enlarged == new_size else imresize_strips(strips, enlarged, new_size)
