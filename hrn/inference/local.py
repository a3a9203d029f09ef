"""HRN with pools and transforms as wide as they were in training: every image then looks like one of its patches.

The DCT of a whole image and means over whole rows and columns are not what the network learned from its patches. Here the
DCT is taken of blocks of the patch size, and each pixel is gated by means over as many pixels of its row and column as a
patch has, as "Test-time Local Converter" does with other pools (X. Chu et al., "Improving Image Restoration by Revisiting
Global Information Aggregation", ECCV 2022, arXiv 2112.04491). Weights stay as they are. What lies far from a pixel then
hardly changes it, so that tiles of an image give nearly what the whole image gives.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrn.errors import HRNError
from hrn.model.attention import CoordinateAttention
from hrn.model.hrn import HRN, Domain


def make_local(network: nn.Module, size: int) -> HRN:
    """A network that shares its weights and sees `size` pixels, the side of the patches that it was trained on.

    Raises:
        HRNError: the network is not an :class:`HRN`.
    """
    if not isinstance(network, HRN):
        raise HRNError("mode local is for the paper's network; this one takes mode full or windows")
    tensors = [*network.parameters(), *network.buffers()]
    local = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})  # other modules, the same weights
    local.domain = BlockDomain(network.domain.dims, size)
    for dem in local.body:  # the frequency side keeps its attention: a block is as wide as it was in training
        for wrdb in (dem.spatial1, dem.spatial2):
            for block in wrdb.blocks:
                block.attention = LocalAttention(block.attention, size)
    return local


@dataclass(frozen=True)
class BlockDomain(Domain):
    """The DCT of blocks of `block` x `block` pixels, which become samples of the batch; mirrored beyond the image."""

    block: int

    def to_frequency(self, x: Tensor) -> Tensor:
        """Features (B, C, H, W) to coefficients (B * blocks, C, block, block)."""
        for dim in (2, 3):
            if torch.compiler.is_exporting() or x.shape[dim] % self.block:
                x = x.index_select(dim, self._mirrored(x.shape[dim], x.device))
        pixels = x.permute(0, 2, 3, 1).unflatten(2, (-1, self.block)).unflatten(1, (-1, self.block))
        blocks = pixels.transpose(2, 3).flatten(0, 2)  # (B * blocks, block, block, C)
        return super().to_frequency(blocks.permute(0, 3, 1, 2))

    def to_image(self, f: Tensor, size: tuple[int, int]) -> Tensor:
        """Coefficients of an image's blocks to features (B, C, *size)."""
        rows, columns = (self._blocks(side) for side in size)
        blocks = super().to_image(f, f.shape[-2:]).permute(0, 2, 3, 1).unflatten(0, (-1, rows, columns))
        pixels = blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, H, W, C), whole blocks
        return pixels.narrow(1, 0, size[0]).narrow(2, 0, size[1]).permute(0, 3, 1, 2)

    def _blocks(self, length: int) -> int:
        """How many cover a length."""
        return (length + self.block - 1) // self.block

    def _mirrored(self, length: int, device: torch.device) -> Tensor:
        """Indices that go on to a whole number of blocks: 0 1 .. n-1 n-1 .. 1 0 0 1 ..."""
        i = torch.arange(self._blocks(length) * self.block, device=device)
        i = i.remainder(i.new_full((1,), 2 * length))  # a tensor, not a number: the length is open in an export
        return torch.minimum(i, 2 * length - 1 - i)


class LocalAttention(nn.Module):
    """Coordinate attention whose means are over `size` pixels of a row or column around each pixel."""

    def __init__(self, whole: CoordinateAttention, size: int) -> None:
        super().__init__()
        self.whole, self.size = whole, size

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        squeezed = self.whole.squeeze(x)  # before the means: both are linear, and it has fewer channels
        y_h, y_w = (self.whole.describe(local_mean(squeezed, self.size, dim)) for dim in (3, 2))
        return self.whole.gate(x, y_h, y_w)


def local_mean(x: Tensor, size: int, dim: int) -> Tensor:
    """Means over the `size` samples along `dim` around each sample; at an edge, over the first or last `size` ones.

    Where `dim` has no more than `size` samples, over all of them, and `dim` then has length 1 in the result.
    """
    n = x.shape[dim]
    if not torch.compiler.is_exporting() and n <= size:
        return x.mean(dim, keepdim=True)
    sums = x.float().cumsum(dim)
    sums = torch.cat([torch.zeros_like(sums.narrow(dim, 0, 1)), sums], dim)
    start = (torch.arange(n, device=x.device) - size // 2).clamp(max=n - size).clamp(min=0)
    end = (start + size).clamp(max=n)
    count = (end - start).view([-1 if d == dim else 1 for d in range(x.ndim)])
    return ((sums.index_select(dim, end) - sums.index_select(dim, start)) / count).to(x.dtype)
