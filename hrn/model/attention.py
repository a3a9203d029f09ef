"""CA: coordinate attention, the innermost part of a WRAB (figure d).

Q. Hou, D. Zhou, J. Feng, "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, arXiv 2103.02907;
with the paper's ELU and reduction.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrn.model.norm import BatchNorm


class CoordinateAttention(nn.Module):
    """Gates each position by what its row and its column hold on average.

    Args:
        channels: C, the width of the input and output.
        reduction: r; the two pooled vectors are described by max(1, C // r) channels.
        gates: `multiply` or `add` the row's and the column's gate.
    """

    def __init__(self, channels: int, *, reduction: int, gates: str = "multiply") -> None:
        super().__init__()
        squeezed = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, squeezed, 1, bias=False)  # the normalisation has the bias
        self.norm = BatchNorm(squeezed)
        self.gate_h = nn.Conv2d(squeezed, channels, 1)
        self.gate_w = nn.Conv2d(squeezed, channels, 1)
        self.gates = gates

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        h, w = x.shape[-2:]
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C): the means of channels_last memory are quick in this order
        means = torch.cat([pixels.mean(2), pixels.mean(1)], dim=1).mT[..., None]  # (B, C, H + W, 1): rows, then columns
        y_h, y_w = self.describe(self.squeeze(means)).split([h, w], dim=2)
        return self.gate(x, y_h, y_w.mT)

    def describe(self, squeezed: Tensor) -> Tensor:
        """Means of `squeeze`'s outputs, normalised and through the ELU; any shape (B, max(1, C // r), ...)."""
        return F.elu(self.norm(squeezed))

    def gate(self, x: Tensor, y_h: Tensor, y_w: Tensor) -> Tensor:
        """x (B, C, H, W), weighed by what describes its rows and columns: (B, max(1, C // r), H, 1) and (..., 1, W)."""
        gate_h, gate_w = torch.sigmoid(self.gate_h(y_h)), torch.sigmoid(self.gate_w(y_w))
        return x * gate_h * gate_w if self.gates == "multiply" else x * (gate_h + gate_w)
