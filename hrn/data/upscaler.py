"""The interface of everything that enlarges images: networks, bicubic interpolation, and resizing to a given size."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np


class Upscaler(ABC):
    """Enlarges (H, W, 3) uint8 images, whole or in strips of rows.

    Subclasses implement :meth:`strips` and set `scale`. Those without a fixed scale override :meth:`size_of` and
    :meth:`describe`.
    """

    scale: int

    @abstractmethod
    def strips(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """Yield consecutive strips of rows of the result, (h, W', 3) uint8, from top to bottom."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Enlarge an (H, W, 3) uint8 image. Raises the errors of :meth:`strips`."""
        return assemble(self.strips(image), self.size_of(image.shape[:2]))

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""
        return size[0] * self.scale, size[1] * self.scale

    def describe(self, size: tuple[int, int]) -> str:
        """Return a short description of the steps applied to an image of height and width `size`."""
        return f"x{self.scale}"


def assemble(strips: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Join strips of rows (h, W, 3) uint8 into an image of height and width `size`; a single strip is not copied."""
    out, top = None, 0
    for strip in strips:
        if len(strip) == size[0]:
            return strip
        out = np.empty((*size, 3), np.uint8) if out is None else out
        out[top : top + len(strip)] = strip
        top += len(strip)
    return out
