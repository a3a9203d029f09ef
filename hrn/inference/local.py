"""HRN with the DCT over blocks, and pooling over windows, of the training patch's size.

The network is trained on patches. On a whole image, the statistics of the DCT and of the means over rows and columns differ from
those in training. Here, the DCT is taken over blocks of the patch size, and each pixel is gated by means over that many pixels of
its row and column. "Test-time Local Converter" does this for other pooling layers (X. Chu et al., "Improving Image Restoration
by Revisiting Global Information Aggregation", ECCV 2022, arXiv 2112.04491). The weights do not change. Distant pixels then hardly
affect each other, so that tiles give nearly the same result as the whole image.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hrn.errors import HRNError
from hrn.model.attention import CoordinateAttention, SqueezeExcitation
from hrn.model.hrn import HRN, FrequencyTransform


def make_local(network: nn.Module, window: int) -> HRN:
    """Return a copy of `network` with DCT blocks of `window` pixels and pooling over `window` pixels.

    The copy shares the parameters and buffers.

    Raises:
        HRNError: the network is not an :class:`HRN`.
    """
    if not isinstance(network, HRN):
        raise HRNError("mode local needs an HRN network; use mode full or windows")
    tensors = [*network.parameters(), *network.buffers()]
    local = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})  # new modules, shared tensors
    if network.transform is not None:
        local.transform = BlockTransform(network.transform.dims, window, fft=network.transform.fft)
    for dem in local.body:  # the attention of the frequency branch stays: its blocks have the size of a training patch
        for wrdb in (dem.spatial1, dem.spatial2):
            for block in wrdb.blocks:
                if isinstance(block.attention, CoordinateAttention):
                    block.attention = LocalAttention(block.attention, window)
                elif isinstance(block.attention, SqueezeExcitation):
                    block.attention = LocalSqueezeExcitation(block.attention, window)
    return local


@dataclass(frozen=True)
class BlockTransform(FrequencyTransform):
    """The transform of blocks, which become samples of the batch. The image is mirrored to a whole number of blocks."""

    block: int
    """Side of a block in pixels."""

    def to_frequency(self, x: Tensor) -> Tensor:
        """Transform features (B, C, H, W) to coefficients (B * blocks, C, block, block), or the shape of the FFT of such blocks."""
        for dim in (2, 3):
            if torch.compiler.is_exporting() or x.shape[dim] % self.block:
                x = x.index_select(dim, self._mirrored(x.shape[dim], x.device))
        pixels = x.permute(0, 2, 3, 1).unflatten(2, (-1, self.block)).unflatten(1, (-1, self.block))
        blocks = pixels.transpose(2, 3).flatten(0, 2)  # (B * blocks, block, block, C)
        return super().to_frequency(blocks.permute(0, 3, 1, 2))

    def to_image(self, f: Tensor, size: tuple[int, int]) -> Tensor:
        """Transform coefficients of blocks to features (B, C, *size)."""
        rows, columns = (self._blocks(side) for side in size)
        blocks = super().to_image(f, (self.block, self.block)).permute(0, 2, 3, 1).unflatten(0, (-1, rows, columns))
        pixels = blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, H, W, C), with the padding
        return pixels.narrow(1, 0, size[0]).narrow(2, 0, size[1]).permute(0, 3, 1, 2)

    def _blocks(self, length: int) -> int:
        """Return the number of blocks that cover `length`."""
        return (length + self.block - 1) // self.block

    def _mirrored(self, length: int, device: torch.device) -> Tensor:
        """Return the indices of a mirrored extension to a whole number of blocks: 0 1 .. n-1 n-1 .. 1 0 0 1 ..."""
        i = torch.arange(self._blocks(length) * self.block, device=device)
        i = i.remainder(i.new_full((1,), 2 * length))  # a tensor, because an export has a dynamic length
        return torch.minimum(i, 2 * length - 1 - i)


class FixedScale(nn.Module):
    """A network at one scale, called with the image only.

    Args:
        network: a network that takes (lr, scale).
        scale: one of its scales.
    """

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, lr: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, 3, scale*H, scale*W)."""
        return self.network(lr, self.scale)


class LocalAttention(nn.Module):
    """Coordinate attention with means over the `window` nearest pixels of a row or column."""

    def __init__(self, attention: CoordinateAttention, window: int) -> None:
        super().__init__()
        self.attention, self.window = attention, window

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        squeezed = self.attention.squeeze(x)  # before the means: both are linear, and this has fewer channels
        y_h, y_w = (self.attention.normalise(local_mean(squeezed, self.window, dim)) for dim in (3, 2))
        return self.attention.gate(x, y_h, y_w)


class LocalSqueezeExcitation(nn.Module):
    """Squeeze-and-excitation with means over the `window` x `window` nearest pixels."""

    def __init__(self, attention: SqueezeExcitation, window: int) -> None:
        super().__init__()
        self.attention, self.window = attention, window

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        squeezed = self.attention.squeeze(x)  # before the means: both are linear
        return self.attention.gate(x, local_mean(local_mean(squeezed, self.window, 3), self.window, 2))


def local_mean(x: Tensor, window: int, dim: int) -> Tensor:
    """Return the mean over `window` samples along `dim` around each sample; near an edge, over the first or last `window` samples.

    If `dim` has at most `window` samples, the mean is over all of them, and `dim` has length 1 in the result.
    """
    n = x.shape[dim]
    if not torch.compiler.is_exporting() and n <= window:
        return x.mean(dim, keepdim=True)
    sums = x.float().cumsum(dim)
    sums = torch.cat([torch.zeros_like(sums.narrow(dim, 0, 1)), sums], dim)
    start = (torch.arange(n, device=x.device) - window // 2).clamp(max=n - window).clamp(min=0)
    end = (start + window).clamp(max=n)
    count = (end - start).view([-1 if d == dim else 1 for d in range(x.ndim)])
    return ((sums.index_select(dim, end) - sums.index_select(dim, start)) / count).to(x.dtype)
