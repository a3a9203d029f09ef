"""The state from which training starts: bilinear interpolation, with every path open.

PyTorch's default shrinks the signal at each 1x1 fusion, and two half-open gates quarter each residual, so that a deep
stack of them learns slowly. Here a new network enlarges bilinearly (factor by factor, where the tail has several), and
every fusion passes its newest input on; `benchmarks/initialisation.py` compares the two.
"""

import torch
from torch import Tensor, nn

from hrn.model.attention import CoordinateAttention
from hrn.model.blocks import WRDB

OPEN_GATE_BIAS = 2.0
"""sigmoid(2) = 0.88: gates start nearly open, and still far from saturation."""


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Fill the weights of an :class:`hrn.model.HRN` in place, by torch's global generator."""
    for module in network.modules():
        if isinstance(module, CoordinateAttention):
            for gate in (module.gate_h, module.gate_w):
                nn.init.constant_(gate.bias, OPEN_GATE_BIAS)
        elif isinstance(module, WRDB):
            for fuse in module.fuse[:-1]:
                pass_on(fuse, newest=-1)
            shrink(module.fuse[-1])
    for dem in network.body:
        pass_on(dem.fuse1, newest=1)
        pass_on(dem.fuse2, newest=2)
    nn.init.zeros_(network.body[-1].fuse2.weight)  # the body adds nothing yet,
    nn.init.zeros_(network.body[-1].fuse2.bias)
    rgb = torch.zeros_like(network.head.weight[:3])  # the head's first three channels are the image,
    rgb[:, :, 1, 1] = torch.eye(3)
    network.head.weight[:3] = rgb
    nn.init.zeros_(network.head.bias)
    for tail in network.tails.values():  # and the tails enlarge it
        start_bilinear(tail)


def pass_on(fuse: nn.Conv2d, *, newest: int) -> None:
    """Make a 1x1 fusion the identity on its input number `newest`, with a small share of all the others."""
    channels = fuse.out_channels
    shrink(fuse)
    groups = fuse.weight.view(channels, -1, channels)  # (out, input number, in)
    groups[:, newest] += torch.eye(channels)


def shrink(conv: nn.Conv2d, factor: float = 0.1) -> None:
    """Scale the default weights down, and drop the bias."""
    conv.weight.mul_(factor)
    nn.init.zeros_(conv.bias)


def start_bilinear(tail: nn.Sequential) -> None:
    """Make an upsampler enlarge its first three channels bilinearly into RGB; nothing else reaches RGB yet."""
    convs = [m for m in tail if isinstance(m, nn.Conv2d)]
    factors = [m.upscale_factor for m in tail if isinstance(m, nn.PixelShuffle)]
    for conv in convs:
        nn.init.zeros_(conv.bias)
    nn.init.zeros_(convs[-1].weight)
    for conv, factor in zip(convs, factors, strict=False):
        kernels = bilinear_kernels(factor)
        conv.weight[: 3 * factor**2] = 0
        for channel in range(3):
            conv.weight[channel * factor**2 : (channel + 1) * factor**2, channel] = kernels
    if len(convs) > len(factors):  # `subpixel` ends with a convolution to RGB
        convs[-1].weight[:, :3, 1, 1] = torch.eye(3)


def bilinear_kernels(factor: int) -> Tensor:
    """(factor^2, 3, 3): the 3x3 kernel of each output phase, in PixelShuffle's order; centres aligned, each sums to 1."""
    offset = (torch.arange(factor) + 0.5) / factor - 0.5  # of an output pixel from its input pixel, in input pixels
    line = torch.stack([(-offset).clamp(min=0), 1 - offset.abs(), offset.clamp(min=0)], dim=1)  # (factor, 3)
    return torch.einsum("iy,jx->ijyx", line, line).reshape(factor**2, 3, 3)
