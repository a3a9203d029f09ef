"""Random training patches and their augmentation."""

import numpy as np
import torch
from torch.utils.data import Dataset

from hrn.data.augment import augment
from hrn.data.h5 import H5Pairs
from hrn.errors import HRNError


class PatchDataset(Dataset):
    """Random training patches, each a pure function of (seed, index).

    Index i is position i % N of pass i // N over the N images; every pass is a new permutation and takes one patch from
    each image, as the released code does. With several scales, batch b draws one scale for all its patches.

    Args:
        pairs: the images.
        patch_size: side of the LR patch in pixels.
        batch_size: patches in a step, which share a scale.
        length: how many patches there are to draw (steps x batch_size).
        seed: of every random choice.
    """

    def __init__(self, pairs: H5Pairs, *, patch_size: int, batch_size: int, length: int, seed: int) -> None:
        self.pairs, self.patch_size, self.batch_size, self.length, self.seed = (
            pairs,
            patch_size,
            batch_size,
            length,
            seed,
        )
        for key, (h, w) in zip(pairs.keys, pairs.hr_sizes, strict=True):
            if min(h, w) // max(pairs.scales) < patch_size:
                raise HRNError(
                    f"{pairs.path}: HR/{key} is {w}x{h}, smaller than a patch of {patch_size} LR pixels at x{max(pairs.scales)}; "
                    f"use --patch_size {min(min(size) for size in pairs.hr_sizes) // max(pairs.scales)} or leave the image out"
                )
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.length

    def scale_of(self, index: int) -> int:
        """The scale of the batch that patch `index` is in."""
        scales = self.pairs.scales
        return scales[np.random.default_rng([self.seed, 1, index // self.batch_size]).integers(len(scales))]

    def image_of(self, index: int) -> int:
        """The image that patch `index` is taken from."""
        turn, position = divmod(index, len(self.pairs))
        if self._order is None or self._order[0] != turn:
            self._order = turn, np.random.default_rng([self.seed, 2, turn]).permutation(len(self.pairs))
        return int(self._order[1][position])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(3, p, p) and (3, s*p, s*p) uint8 tensors: the LR patch and its HR patch, augmented alike."""
        scale, image, p = self.scale_of(index), self.image_of(index), self.patch_size
        rng = np.random.default_rng([self.seed, 3, index])
        h, w = (side // scale for side in self.pairs.hr_sizes[image])
        y, x = int(rng.integers(h - p + 1)), int(rng.integers(w - p + 1))
        lr = self.pairs.read(f"X{scale}", image, slice(y, y + p), slice(x, x + p))
        hr = self.pairs.read("HR", image, slice(y * scale, (y + p) * scale), slice(x * scale, (x + p) * scale))
        flip_vertical, flip_horizontal, turns = int(rng.integers(2)), int(rng.integers(2)), int(rng.integers(4))
        return tuple(
            augment(torch.from_numpy(patch).permute(2, 0, 1), flip_vertical, flip_horizontal, turns).contiguous()
            for patch in (lr, hr)
        )
