"""WRDB and WRAB: the middle and the inner residual blocks (figures 2b and 2c)."""

from torch import Tensor, nn
from torch.nn import functional as F

from hrn.model.attention import make_attention
from hrn.model.config import HRNConfig
from hrn.model.pointwise import Fusion


class WRAB(nn.Module):
    """Wide-activated residual attention block: widen, ELU, narrow, attention, skip connection. After WDSR (arXiv 1808.08718)."""

    def __init__(self, channels: int, config: HRNConfig) -> None:
        super().__init__()
        wide = round(channels * config.expansion)
        self.widen = nn.Conv2d(channels, wide, 3, padding=1)
        self.narrow = nn.Conv2d(wide, channels, 3, padding=1)
        self.attention = make_attention(channels, config)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.attention(self.narrow(F.elu(self.widen(x), inplace=True))).add_(x)


class WRDB(nn.Module):
    """Wide-activated residual-in-residual dense block: each WRAB gets the fused outputs of all earlier ones.

    Without dense links, each WRAB gets only the output of the one before it, through a 1x1 convolution.
    """

    def __init__(self, channels: int, config: HRNConfig) -> None:
        super().__init__()
        self.dense = config.dense
        self.blocks = nn.ModuleList(WRAB(channels, config) for _ in range(config.n_wrab))
        # fuse[i] maps [x, a_1 .. a_{i+1}], or a_{i+1} alone, to C channels; the last one is the output of the block
        self.fuse = nn.ModuleList(Fusion(i + 2 if self.dense else 1, channels) for i in range(config.n_wrab))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        features, fused = [x], x
        for block, fuse in zip(self.blocks, self.fuse, strict=True):
            features = [*features, block(fused)] if self.dense else [block(fused)]
            fused = fuse(features)
        return fused.add_(x)
