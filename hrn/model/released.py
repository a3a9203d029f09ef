"""The authors' released network, which differs from the paper's. It is here to load existing checkpoints.

https://github.com/zhangyongqin/HRN (hrn/model/hrn.py, 2022). RCAN-style residual groups with coordinate attention, four
stages of two spatial groups and one frequency group, and a one-dimensional unnormalised DCT over the width. The code
uses `b2` and `c1` twice, and `b4` and `c3` never. Parameters keep their names, so that its state dict loads strictly.
The released code accepts 48x48 inputs only. This version accepts any size and is equal at 48x48.
"""

import torch
from torch import Tensor, nn

from hrn.model.config import ReleasedConfig
from hrn.model.dct import dct, idct
from hrn.model.hrn import DIV2K_MEAN
from hrn.model.upsampler import make_upsampler

CHANNELS, REDUCTION, BLOCKS_PER_GROUP, STAGES = 64, 16, 20, 4


class MeanShift(nn.Module):
    """Adds sign * mean by a frozen 1x1 convolution, as in the released state dict."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.shifter = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.shifter.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.shifter.bias.copy_(sign * torch.tensor(DIV2K_MEAN))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shifter(x)


class ReleasedAttention(nn.Module):
    """Coordinate attention with ReLU. `bn` is in the state dict but unused."""

    def __init__(self) -> None:
        super().__init__()
        squeezed = CHANNELS // REDUCTION
        self.conv_1x1 = nn.Conv2d(CHANNELS, squeezed, 1, bias=False)
        self.bn = nn.BatchNorm2d(squeezed)
        self.F_h = nn.Conv2d(squeezed, CHANNELS, 1, bias=False)
        self.F_w = nn.Conv2d(squeezed, CHANNELS, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        pooled = torch.cat([x.mean(dim=3, keepdim=True), x.mean(dim=2, keepdim=True).mT], dim=2)  # (B, C, H+W, 1)
        y_h, y_w = torch.relu(self.conv_1x1(pooled)).split([h, w], dim=2)
        return x * torch.sigmoid(self.F_h(y_h)) * torch.sigmoid(self.F_w(y_w)).mT


class Residual(nn.Module):
    """x + body(x), for both the RCAB and the residual group of the released code."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class ConcatFusion(nn.Module):
    """1x1 convolution of two concatenated inputs, then ELU."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2 * CHANNELS, CHANNELS, 1), nn.ELU())

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.body(torch.cat([a, b], dim=1))


def conv3x3() -> nn.Conv2d:
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)


def residual_group() -> Residual:
    blocks = [Residual(conv3x3(), nn.ReLU(), conv3x3(), ReleasedAttention()) for _ in range(BLOCKS_PER_GROUP)]
    return Residual(*blocks, conv3x3())


class HRNReleased(nn.Module):
    """The network of the released code."""

    def __init__(self, config: ReleasedConfig) -> None:
        super().__init__()
        self.config = config
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        for i in range(1, 2 * STAGES + 1):
            setattr(self, f"b{i}", residual_group())
        for i in range(1, STAGES + 1):
            setattr(self, f"fb{i}", residual_group())
        for i in range(1, 2 * STAGES + 1):
            setattr(self, f"c{i}", ConcatFusion())
        self.head = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1))
        upsampler = make_upsampler("subpixel", CHANNELS, config.scales[0])
        self.tail = nn.Sequential(upsampler[:-1], upsampler[-1])

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """Map (B, 3, H, W) in [0, 1] to (B, 3, s*H, s*W). `scale` is ignored; :class:`hrn.model.HRN` has the same signature."""
        x = self.head(self.sub_mean(lr))
        c, f = x, unnormalised_dct(x)
        stages = [  # (first group, its fusion, frequency group, second group, its fusion), as in the released code
            (self.b1, self.c1, self.fb1, self.b2, self.c2),
            (self.b3, self.c1, self.fb2, self.b2, self.c4),
            (self.b5, self.c5, self.fb3, self.b6, self.c6),
            (self.b7, self.c7, self.fb4, self.b8, self.c8),
        ]
        for group1, fuse1, frequency, group2, fuse2 in stages:
            c = fuse1(group1(c), c)
            f = frequency(f)
            c = fuse2(group2(c), unnormalised_idct(f))
        return self.add_mean(self.tail(x + c))


def unnormalised_dct(x: Tensor) -> Tensor:
    """Compute the DCT-II over the width, X[k] = 2 sum x[i] cos(...), as torch_dct with `norm=None`."""
    return dct(x, dims=(-1,)) * _gain(x)


def unnormalised_idct(x: Tensor) -> Tensor:
    """Compute the inverse of :func:`unnormalised_dct`."""
    return idct(x / _gain(x), dims=(-1,))


def _gain(x: Tensor) -> Tensor:
    """Return the ratio of unnormalised to orthonormal coefficients, (W,): sqrt(4W) for k = 0, otherwise sqrt(2W)."""
    w = x.shape[-1]
    gain = x.new_full((w,), (2 * w) ** 0.5, dtype=torch.promote_types(x.dtype, torch.float32))
    gain[0] *= 2**0.5
    return gain
