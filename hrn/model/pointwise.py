"""1x1 convolutions, with a faster implementation for each type of device.

On CUDA, few large products are faster than many small ones, because each kernel takes time to launch. On a CPU, copies cost
more than calls.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRODUCT_DEVICES = ("cuda",)
"""Types of devices on which a 1x1 convolution is a matrix product, and a fusion is a single convolution."""


def conv1x1(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1x1 convolution to x (B, C, H, W); on CUDA by a matrix product, which Inductor fuses with its neighbours."""
    if x.device.type not in PRODUCT_DEVICES:
        return conv(x)
    return F.linear(x.permute(0, 2, 3, 1), conv.weight.flatten(1), conv.bias).permute(0, 3, 1, 2)


class Fusion(nn.Conv2d):
    """1x1 convolution of concatenated feature maps.

    On CUDA it is one convolution. Elsewhere it is a sum of convolutions, without the concatenated copy.

    Args:
        maps: number of feature maps.
        channels: channels C of each map and of the output.
    """

    def __init__(self, maps: int, channels: int) -> None:
        super().__init__(maps * channels, channels, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Fuse tensors of shape (B, C, H, W) into one of that shape."""
        if maps[0].device.type in PRODUCT_DEVICES:
            return super().forward(torch.cat(maps, dim=1))
        first, *rest = self.weight.split(self.out_channels, dim=1)
        out = F.conv2d(maps[0], first, self.bias)
        for x, weight in zip(maps[1:], rest, strict=True):
            out = out.add_(F.conv2d(x, weight))
        return out
