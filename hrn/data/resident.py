"""Training patches cut from images that stay in the memory of a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchChoice, PatchDataset


def image_bytes(pairs: H5Pairs) -> int:
    """Return the size of all images in bytes, as 8-bit RGB."""
    return sum(3 * (h // s) * (w // s) for s in (1, *pairs.scales) for h, w in pairs.hr_sizes)


@dataclass(frozen=True)
class PixelTable:
    """All images of a group, row by row, one after another."""

    pixels: Tensor
    """(N, 3) uint8."""
    first_pixels: list[int]
    """The index of the first pixel of each image."""
    widths: list[int]
    """The width of each image."""


class ResidentPatches:
    """The patches of a :class:`PatchDataset`, bit for bit, from images in the memory of a device.

    Flips and rotations only change the order in which the pixels of a patch are read, so a batch is one gather per group.

    Args:
        dataset: makes all random choices. Its images are read here, once.
        device: the device that holds the images.

    Raises:
        HRNError: an image cannot be read.
    """

    def __init__(self, dataset: PatchDataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        pairs = dataset.pairs
        scales = {"HR": 1, **{f"X{s}": s for s in pairs.scales}}
        self._tables = {group: self._load(group, s) for group, s in scales.items()}

    def _load(self, group: str, hr_ratio: int) -> PixelTable:
        """Read the images of a group, which are smaller than HR by `hr_ratio`."""
        pairs = self.dataset.pairs
        sizes = [(h // hr_ratio, w // hr_ratio) for h, w in pairs.hr_sizes]
        counts = [h * w for h, w in sizes]
        pixels = torch.empty(sum(counts), 3, dtype=torch.uint8, device=self.device)
        for i, part in enumerate(pixels.split(counts)):
            part.copy_(torch.from_numpy(pairs.read(group, i)).flatten(0, 1))
        return PixelTable(pixels, [0, *accumulate(counts)], [w for _, w in sizes])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return patches of one step: LR (B, 3, p, p) and HR (B, 3, s*p, s*p), uint8 on the device."""
        choices = [self.dataset.choice_of(index) for index in indices]
        scale = choices[0].scale
        return self._gather(f"X{scale}", choices, 1), self._gather("HR", choices, scale)

    def _gather(self, group: str, choices: list[PatchChoice], lr_ratio: int) -> Tensor:
        """Cut patches from a group whose images are larger than the LR images by `lr_ratio`."""
        table, side = self._tables[group], self.dataset.patch_size * lr_ratio
        orders = torch.tensor(
            [(*_reading_order(table, choice, lr_ratio, side), *choice.channels) for choice in choices]
        )
        start, down, right, *channels = orders.to(self.device, non_blocking=True)[..., None, None].unbind(1)
        i = torch.arange(side, device=self.device)
        pixels = start + down * i[:, None] + right * i
        return table.pixels[pixels[:, None], torch.stack(channels, dim=1)]


def _reading_order(table: PixelTable, choice: PatchChoice, lr_ratio: int, side: int) -> tuple[int, int, int]:
    """Return the index of a patch's first pixel in the table, and the steps to the next pixels below and to the right."""
    down, right, last = table.widths[choice.image], 1, side - 1
    start = table.first_pixels[choice.image] + choice.y * lr_ratio * down + choice.x * lr_ratio
    flip_vertical, flip_horizontal, quarter_turns = choice.symmetry
    if flip_vertical:
        start, down = start + last * down, -down
    if flip_horizontal:
        start, right = start + last * right, -right
    for _ in range(quarter_turns):
        start, down, right = start + last * right, -right, down
    return start, down, right
