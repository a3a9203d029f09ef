"""Initialisation: a new network computes bilinear interpolation, and gradients reach every block.

With PyTorch's default, each 1x1 fusion shrinks the signal and two half-open gates quarter each residual, so a deep stack
learns slowly. Here a new network enlarges bilinearly (one factor after another if the tail has several), and most
fusions start close to the identity of one input. `benchmarks/initialisation.py` compares both. Without the global skip
connection, the image passes through the body, and a new network interpolates only approximately.
"""

import torch
from torch import Tensor, nn

from hrn.model.attention import CoordinateAttention, SqueezeExcitation
from hrn.model.blocks import WRDB

OPEN_GATE_BIAS = 2.0
"""Initial bias of the attention gates. sigmoid(2) = 0.88: nearly open, but far from saturation."""


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Initialise an :class:`hrn.model.HRN` in place. Random weights come from torch's global generator."""
    for module in network.modules():
        if isinstance(module, CoordinateAttention):
            for gate in (module.gate_h, module.gate_w):
                nn.init.constant_(gate.bias, OPEN_GATE_BIAS)
        elif isinstance(module, SqueezeExcitation):
            nn.init.constant_(module.excite.bias, OPEN_GATE_BIAS)
        elif isinstance(module, WRDB):
            for fuse in module.fuse[:-1]:
                init_identity(fuse, index=-1)
            shrink(module.fuse[-1])
    for dem in network.body:
        init_identity(dem.fuse1, index=1)
        init_identity(dem.fuse2, index=2)
    if network.config.skip:
        nn.init.zeros_(network.body[-1].fuse2.weight)  # the body adds nothing at first
        nn.init.zeros_(network.body[-1].fuse2.bias)
    rgb = torch.zeros_like(network.head.weight[:3])  # the first three channels of the head are the image
    rgb[:, :, 1, 1] = torch.eye(3)
    network.head.weight[:3] = rgb
    nn.init.zeros_(network.head.bias)
    for tail in network.tails.values():  # the tails enlarge them
        start_bilinear(tail)


def init_identity(fuse: nn.Conv2d, *, index: int) -> None:
    """Make a 1x1 fusion the identity of its input number `index`, plus small random weights for all inputs."""
    channels = fuse.out_channels
    shrink(fuse)
    groups = fuse.weight.view(channels, -1, channels)  # (out, input number, in)
    groups[:, index] += torch.eye(channels)


def shrink(conv: nn.Conv2d) -> None:
    """Multiply the default weights by 0.1 and set the bias to 0."""
    conv.weight.mul_(0.1)
    nn.init.zeros_(conv.bias)


def start_bilinear(tail: nn.Sequential) -> None:
    """Make an upsampler enlarge its first three channels bilinearly to RGB. The other channels have no effect at first."""
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
    if len(convs) > len(factors):  # `subpixel` ends in a convolution to RGB
        convs[-1].weight[:, :3, 1, 1] = torch.eye(3)


def bilinear_kernels(factor: int) -> Tensor:
    """Return the bilinear 3x3 kernel of each output phase, (factor^2, 3, 3) in PixelShuffle's order. Each sums to 1."""
    offset = (torch.arange(factor) + 0.5) / factor - 0.5  # distance from output to input pixel centre, in input pixels
    line = torch.stack([(-offset).clamp(min=0), 1 - offset.abs(), offset.clamp(min=0)], dim=1)  # (factor, 3)
    return torch.einsum("iy,jx->ijyx", line, line).reshape(factor**2, 3, 3)
