"""Random training patches and their augmentation."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from hrn.data.h5 import H5Pairs
from hrn.errors import HRNError


def augment(image: Tensor, flip_vertical: int, flip_horizontal: int, quarter_turns: int) -> Tensor:
    """Flip up-down, flip left-right, then rotate counter-clockwise: the eight symmetries of the square.

    Args:
        image: (..., H, W).
        flip_vertical: 1 to flip up-down, else 0.
        flip_horizontal: 1 to flip left-right, else 0.
        quarter_turns: number of quarter turns, 0 to 3.
    """
    if flip_vertical:
        image = F.vertical_flip(image)
    if flip_horizontal:
        image = F.horizontal_flip(image)
    return torch.rot90(image, quarter_turns, dims=(-2, -1))


@dataclass(frozen=True)
class PatchChoice:
    """The random choices of a training patch."""

    scale: int
    image: int
    """The index of the image."""
    y: int
    """The first row of the LR patch."""
    x: int
    """The first column of the LR patch."""
    symmetry: tuple[int, int, int]
    """The arguments flip_vertical, flip_horizontal and quarter_turns of :func:`augment`."""
    channels: tuple[int, int, int]
    """The channel of the image that becomes each channel of the patch."""


class PatchDataset(Dataset):
    """Random training patches, each determined by the seed and its index alone.

    Each pass over the N images is a new permutation and takes one patch from each image, as the released code does: index i
    is position i % N of pass i // N. With several scales, the patches of a batch share one randomly drawn scale.

    Args:
        pairs: the training images.
        patch_size: the side of the LR patch in pixels.
        batch_size: the number of patches in a step.
        length: the total number of patches (steps x batch_size).
        seed: the seed of every random choice.
        permute_channels: put the colour channels of each patch in a random order (RGB permutation in Yoo et al., CVPR 2020).

    Raises:
        HRNError: an image is smaller than a patch.
    """

    def __init__(
        self,
        pairs: H5Pairs,
        *,
        patch_size: int,
        batch_size: int,
        length: int,
        seed: int,
        permute_channels: bool = False,
    ) -> None:
        self.pairs = pairs
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.length = length
        self.seed = seed
        self.permute_channels = permute_channels
        scale = max(pairs.scales)
        for key, (h, w) in zip(pairs.keys, pairs.hr_sizes, strict=True):
            if min(h, w) // scale < patch_size:
                largest = min(min(size) for size in pairs.hr_sizes) // scale
                smaller = f"use --patch_size {largest} or less, or " if largest else ""
                raise HRNError(
                    f"{pairs.path}: HR/{key} is {w}x{h}, smaller than a patch of {patch_size} LR pixels at x{scale}; "
                    f"{smaller}make the file again with div2h5.py --min_size {patch_size * scale}"
                )
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.length

    def scale_of(self, index: int) -> int:
        """Return the scale of the batch that contains patch `index`."""
        scales = self.pairs.scales
        if len(scales) == 1:
            return scales[0]
        return scales[np.random.default_rng([self.seed, 1, index // self.batch_size]).integers(len(scales))]

    def image_of(self, index: int) -> int:
        """Return the index of the image that patch `index` is cut from."""
        epoch, position = divmod(index, len(self.pairs))
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self.seed, 2, epoch]).permutation(len(self.pairs))
        return int(self._order[1][position])

    def choice_of(self, index: int) -> PatchChoice:
        """Return the random choices of patch `index`."""
        scale, image = self.scale_of(index), self.image_of(index)
        rng = np.random.default_rng([self.seed, 3, index])
        h, w = (side // scale for side in self.pairs.hr_sizes[image])
        y, x = int(rng.integers(h - self.patch_size + 1)), int(rng.integers(w - self.patch_size + 1))
        symmetry = int(rng.integers(2)), int(rng.integers(2)), int(rng.integers(4))
        channels = tuple(rng.permutation(3).tolist()) if self.permute_channels else (0, 1, 2)
        return PatchChoice(scale, image, y, x, symmetry, channels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the LR patch (3, p, p) and the HR patch (3, s*p, s*p), uint8, with the same flips, rotation and order of channels."""
        choice = self.choice_of(index)
        return self._patch(f"X{choice.scale}", choice, 1), self._patch("HR", choice, choice.scale)

    def _patch(self, group: str, choice: PatchChoice, s: int) -> Tensor:
        """Cut a patch from a group whose images are `s` times as large as the LR images, and augment it."""
        rows, columns = (slice(start * s, (start + self.patch_size) * s) for start in (choice.y, choice.x))
        patch = torch.from_numpy(self.pairs.read(group, choice.image, rows, columns)).permute(2, 0, 1)
        patch = augment(patch, *choice.symmetry)
        if self.permute_channels:
            patch = patch[list(choice.channels)]
        return patch.contiguous()
