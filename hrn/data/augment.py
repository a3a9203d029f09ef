"""Training augmentation: the eight symmetries of the square."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def augment(image: Tensor, flip_vertical: int, flip_horizontal: int, turns: int) -> Tensor:
    """Flip up-down, flip left-right, then turn by quarter turns counter-clockwise.

    Args:
        image: (..., H, W).
        flip_vertical, flip_horizontal: 0 or 1.
        turns: 0 to 3.
    """
    if flip_vertical:
        image = F.vertical_flip(image)
    if flip_horizontal:
        image = F.horizontal_flip(image)
    return torch.rot90(image, turns, dims=(-2, -1))
