"""WRDB and WRAB: the middle and the inner residual blocks (figures 2b and 2c)."""

from torch import Tensor, nn
from torch.nn import functional as F

from hrn.model.attention import CoordinateAttention
from hrn.model.pointwise import Fusion


class WRAB(nn.Module):
    """Wide-activated residual attention block: widen, ELU, narrow, attention, skip connection. After WDSR (arXiv 1808.08718)."""

    def __init__(self, channels: int, *, expansion: int, reduction: int, gates: str) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, channels * expansion, 3, padding=1)
        self.narrow = nn.Conv2d(channels * expansion, channels, 3, padding=1)
        self.attention = CoordinateAttention(channels, reduction=reduction, gates=gates)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.attention(self.narrow(F.elu(self.widen(x), inplace=True))).add_(x)


class WRDB(nn.Module):
    """Wide-activated residual-in-residual dense block: each WRAB gets the fused outputs of all earlier ones."""

    def __init__(self, channels: int, *, n_wrab: int, expansion: int, reduction: int, gates: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            WRAB(channels, expansion=expansion, reduction=reduction, gates=gates) for _ in range(n_wrab)
        )
        # fuse[i] maps [x, a_1 .. a_{i+1}] to C channels; the last one is the output of the block
        self.fuse = nn.ModuleList(Fusion(i + 2, channels) for i in range(n_wrab))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        features, fused = [x], x
        for block, fuse in zip(self.blocks, self.fuse, strict=True):
            features.append(block(fused))
            fused = fuse(features)
        return fused.add_(x)
