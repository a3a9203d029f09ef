"""The three modes in which a network processes an image.

The DCT and the pooling in the attention act on the whole feature map. The result therefore depends on how an image is divided,
and the statistics of a whole image differ from those of a training patch. The modes:

    local    DCT and pooling act on regions of the size of a training patch (hrn.inference.local)
    windows  the image is divided into overlapping windows of about that size
    full     DCT and pooling act on the whole image

Modes local and full process large images in tiles. `benchmarks/modes.py` measures quality and time of each mode; the
default was chosen from its table for earlier weights.
"""

import math
from dataclasses import dataclass

from hrn.errors import HRNError
from hrn.inference.tiling import Layout
from hrn.model.config import Config, HRNConfig

MODES = ("local", "windows", "full")
TILE = 752
"""Default side of the largest tile in LR pixels. Larger tiles need more memory and are not faster."""
TILE_OVERLAP = 32
"""Overlap of neighbouring tiles in LR pixels."""
MIN_TILE_STRIDE = 16
"""Smallest distance between the starts of neighbouring tiles in LR pixels."""


@dataclass(frozen=True)
class Mode:
    """How the network processes an image.

    Raises:
        HRNError: the mode is unknown, a size is not positive, or windows are not larger than their overlap.
    """

    name: str = "local"
    """`local`, `windows` or `full`."""
    window: int = 48
    """Side of a window in mode windows, or of a region of DCT and pooling in mode local, in LR pixels."""
    overlap: int = 16
    """Overlap of neighbouring windows in mode windows, in LR pixels."""
    tile: int = TILE
    """Side of the largest tile in modes local and full, in LR pixels. Tiles have at least one whole block in addition to their overlap."""

    def __post_init__(self) -> None:
        if self.name not in MODES:
            raise HRNError(f"unknown mode {self.name!r}: choose one of {', '.join(MODES)}")
        if self.window < 1 or self.tile < 1:
            raise HRNError(f"window and tile must be at least 1 pixel, not {self.window} and {self.tile}")
        if self.name == "windows" and not 0 <= self.overlap < self.window:
            raise HRNError(f"overlap {self.overlap} must be at least 0 and smaller than window {self.window}")

    def __str__(self) -> str:
        return {
            "full": "full",
            "windows": f"windows of {self.window}, overlap {self.overlap}",
            "local": f"local, {self.window}",
        }[self.name]

    @property
    def block(self) -> int:
        """The side of the blocks that an image is padded to, in LR pixels."""
        return self.window if self.name == "local" else 1

    def padded_pixels(self, size: tuple[int, int]) -> int:
        """Return the number of LR pixels that are processed for an image or a tile, including padding to whole blocks."""
        return math.prod(-(-side // self.block) * self.block for side in size)

    def layout(self, size: tuple[int, int], max_pixels: int, batch_pixels: int = 1) -> Layout:
        """Divide an image into windows or tiles.

        Args:
            size: height and width of the image.
            max_pixels: the number of LR pixels that fit into memory at once.
            batch_pixels: the preferred number of LR pixels in a batch of windows.

        Raises:
            HRNError: `max_pixels` is too small for a single window or tile.
        """
        if self.name == "windows":
            window = (min(size[0], self.window), min(size[1], self.window))
            if window[0] * window[1] > max_pixels:
                raise HRNError(
                    f"not enough memory for a window of {self.window} pixels; increase max_memory or use smaller windows"
                )
            batch_size = max(1, min(max_pixels, batch_pixels) // (window[0] * window[1]))
            return Layout((self.window, self.window), self.overlap, batch_size=batch_size)
        if size[0] * size[1] <= self.tile**2 and self.padded_pixels(size) <= max_pixels:
            return Layout(size, 0)
        # tiles start at multiples of whole blocks, so that the blocks of neighbouring tiles coincide
        least = -(-MIN_TILE_STRIDE // self.block) * self.block
        fitting = int(max_pixels**0.5) - -(-TILE_OVERLAP // self.block) * self.block
        step = min(max(self.tile - TILE_OVERLAP, least), fitting) // self.block * self.block
        if step < least:
            alternative = " or use a smaller window" if self.name == "local" else ""
            raise HRNError(
                f"not enough memory for a tile of {least + TILE_OVERLAP} pixels; increase max_memory{alternative}"
            )
        return Layout((step + TILE_OVERLAP,) * 2, TILE_OVERLAP, aligned=self.name == "local")


def default_mode(config: Config) -> Mode:
    """Return mode local for :class:`hrn.model.HRN`, mode full for the released network, which does not support local."""
    return Mode("local" if isinstance(config, HRNConfig) else "full")
