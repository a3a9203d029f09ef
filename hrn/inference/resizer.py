"""Any size that a person asks for: the next larger scale that a network was trained for, then bicubic down to the size."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from hrn.data.resize import imresize_strips
from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger
from hrn.inference.tiling import assemble

MOST_PASSES = 3
"""One after the other; x64 with x4 alone."""


@dataclass(frozen=True)
class Size:
    """What was asked for: one of the three.

    Raises:
        HRNError: a size that is none.
    """

    factor: float | None = None
    """Of both sides, which are rounded up as MATLAB does."""
    exact: tuple[int, int] | None = None
    """Height and width."""
    long_edge: int | None = None
    """Of the longer side; the other keeps the proportion."""

    def __post_init__(self) -> None:
        given = [v for v in (self.factor, self.exact, self.long_edge) if v is not None]
        if len(given) != 1:
            raise HRNError("a size is a factor, or a width and a height, or a long edge: one of them")
        if not all(math.isfinite(v) and v > 0 for v in (self.exact or given)):
            raise HRNError(f"a size must be positive, not {self}")

    def of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""
        if self.exact:
            return self.exact
        if self.factor:
            return math.ceil(size[0] * self.factor), math.ceil(size[1] * self.factor)
        factor = self.long_edge / max(size)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))

    def __str__(self) -> str:
        if self.exact:
            return f"{self.exact[1]}x{self.exact[0]}"
        return f"x{self.factor:g}" if self.factor else f"long_edge{self.long_edge}"


def parse_size(text: str) -> Size:
    """`1920x1080`, width first. Raises HRNError for anything else."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if not match:
        raise HRNError(f"a size is written as WIDTHxHEIGHT, such as 1920x1080, not {text!r}")
    return Size(exact=(int(match[2]), int(match[1])))


class Resizer:
    """Enlarges images to a size, by networks of some scales.

    Args:
        enlargers: of different scales, one pass or several.
        size: what is asked for.
    """

    def __init__(self, enlargers: Sequence[Enlarger], size: Size) -> None:
        self.enlargers = {e.scale: e for e in enlargers}
        self.size = size

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""
        return self.size.of(size)

    def passes(self, size: tuple[int, int]) -> tuple[int, ...]:
        """The scales that are applied one after the other: least in product that reaches the size, then fewest.

        Empty where the image is that large already.

        Raises:
            HRNError: it is too much.
        """
        wanted = max(new / old for new, old in zip(self.size_of(size), size, strict=True))
        if wanted <= 1:
            return ()
        ways = [
            way
            for count in range(1, MOST_PASSES + 1)
            for way in combinations_with_replacement(sorted(self.enlargers), count)
            if math.prod(way) >= wanted
        ]
        if not ways:
            scales = ", ".join(f"x{s}" for s in sorted(self.enlargers))
            raise HRNError(f"an enlargement by {wanted:.1f} is too much for {MOST_PASSES} passes of {scales}")
        return min(ways, key=lambda way: (math.prod(way), len(way)))

    def describe(self, size: tuple[int, int]) -> str:
        """How the size is reached, for people."""
        passes, new_size = self.passes(size), self.size_of(size)
        whole = tuple(side * math.prod(passes) for side in size)
        steps = [f"x{s}" for s in passes] + (["bicubic down"] if whole != new_size else [])
        stretch = new_size[1] / size[1] / (new_size[0] / size[0])
        if abs(stretch - 1) > 0.01:
            steps.append(f"width stretched by {stretch:.2f} against height")
        return ", then ".join(steps) or "as it is"

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to the size."""
        return assemble(self.strips(lr), self.size_of(lr.shape[:2]))

    def strips(self, lr: np.ndarray) -> Iterator[np.ndarray]:
        """Strips of rows of the result, from the top to the bottom; between two passes the image is whole."""
        size, new_size = lr.shape[:2], self.size_of(lr.shape[:2])
        *first, last = self.passes(size) or (None,)
        for scale in first:
            lr = self.enlargers[scale](lr)
        strips = self.enlargers[last].strips(lr) if last else iter([lr])
        whole = tuple(side * (last or 1) for side in lr.shape[:2])
        return strips if whole == new_size else imresize_strips(strips, whole, new_size)
