"""Find the crop in which two super-resolved images differ most."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

from hrn.evaluation.metrics import rgb_to_y

SIDE = 96
"""Default side of a crop, in HR pixels."""


@dataclass(frozen=True)
class Crop:
    """A rectangle in pixels."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """Crop an (H, W, ...) array."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def lies_in(self, size: tuple[int, int]) -> bool:
        """Whether the crop is not empty and lies within an image of this height and width."""
        inside = self.x + self.width <= size[1] and self.y + self.height <= size[0]
        return inside and min(self.x, self.y) >= 0 and min(self.width, self.height) > 0


def best_crop(hr: np.ndarray, worse: np.ndarray, better: np.ndarray, side: int = SIDE) -> tuple[Crop, float]:
    """Find the square in which `better` improves most over `worse`.

    Args:
        hr, worse, better: (H, W, 3) uint8: the original and two super-resolved images.
        side: side of the square; reduced to the shorter side of the image if that is smaller.

    Returns:
        The crop, and the reduction of the mean squared error of Y in it.
    """
    side = min(side, *hr.shape[:2])
    y_hr = rgb_to_y(hr)
    gain = (rgb_to_y(worse) - y_hr) ** 2 - (rgb_to_y(better) - y_hr) ** 2
    h, w = gain.shape
    mean = uniform_filter(gain, side, mode="constant")[side // 2 : h - (side - 1) // 2, side // 2 : w - (side - 1) // 2]
    y, x = np.unravel_index(np.argmax(mean), mean.shape)
    return Crop(int(x), int(y), side, side), float(mean[y, x])
