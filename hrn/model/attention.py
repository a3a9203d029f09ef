"""CA: coordinate attention, the innermost part of a WRAB (figure 2d), and squeeze-and-excitation in its place.

Q. Hou, D. Zhou, J. Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv 2103.02907;
with the ELU and the reduction of the HRN paper.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrn.model.config import HRNConfig
from hrn.model.norm import BatchNorm
from hrn.model.pointwise import conv1x1


def make_attention(channels: int, config: HRNConfig) -> nn.Module:
    """Build the attention of a WRAB with `channels` channels."""
    if config.attention == "none":
        return nn.Identity()
    if config.attention == "se":
        return SqueezeExcitation(channels, reduction=config.reduction)
    return CoordinateAttention(channels, reduction=config.reduction, gates=config.gates, norm=config.norm)


class CoordinateAttention(nn.Module):
    """Multiplies each position by two gates, computed from the means of its row and of its column.

    Args:
        channels: number of input and output channels C.
        reduction: reduction r; the pooled means are squeezed to max(1, C // r) channels.
        gates: `multiply` uses the product of the two gates, `add` their sum.
        norm: whether the squeezed means pass through BatchNorm.
    """

    def __init__(self, channels: int, *, reduction: int, gates: str = "multiply", norm: bool = True) -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, squeezed, 1, bias=not norm)  # the normalisation adds the bias
        self.norm = BatchNorm(squeezed) if norm else nn.Identity()
        self.gate_h = nn.Conv2d(squeezed, channels, 1)
        self.gate_w = nn.Conv2d(squeezed, channels, 1)
        self.gates = gates

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        h, w = x.shape[-2:]
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C): means of channels_last memory are faster in this order
        means = torch.cat([pixels.mean(2), pixels.mean(1)], dim=1).mT[..., None]  # (B, C, H + W, 1): rows, then columns
        y_h, y_w = self.normalise(conv1x1(self.squeeze, means)).split([h, w], dim=2)
        return self.gate(x, y_h, y_w.mT)

    def normalise(self, squeezed: Tensor) -> Tensor:
        """Apply normalisation and ELU to squeezed means of any shape (B, max(1, C // r), ...)."""
        return F.elu(self.norm(squeezed))

    def gate(self, x: Tensor, y_h: Tensor, y_w: Tensor) -> Tensor:
        """Apply the gates of rows y_h (B, max(1, C // r), H, 1) and columns y_w (B, max(1, C // r), 1, W) to x (B, C, H, W)."""
        gate_h, gate_w = (torch.sigmoid(conv1x1(conv, y)) for conv, y in ((self.gate_h, y_h), (self.gate_w, y_w)))
        return x * gate_h * gate_w if self.gates == "multiply" else x * (gate_h + gate_w)


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a gate, computed from the means of all channels. After Hu et al. (arXiv 1709.01507), with ELU.

    Args:
        channels: number of input and output channels C.
        reduction: reduction r; the means are squeezed to max(1, C // r) channels.
    """

    def __init__(self, channels: int, *, reduction: int) -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.gate(x, self.squeeze(x.mean((2, 3), keepdim=True)))

    def gate(self, x: Tensor, squeezed: Tensor) -> Tensor:
        """Apply the gates of squeezed means (B, max(1, C // r), 1 or H, 1 or W) to x (B, C, H, W)."""
        return x * torch.sigmoid(self.excite(F.elu(squeezed)))
