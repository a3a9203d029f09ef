"""Embedding of a trained network in a larger one that computes the same function (Net2Net, arXiv 1511.05641).

The small network's weights become the first channels of the large one. Contributions of new channels, blocks and modules to
the old channels are multiplied by zero at first. All other new weights keep their initialisation.

A new DEM must pass the old channels through unchanged, although it ends in an ELU. They are outputs of an ELU, so x > -1 and
ELU(x + 1) = x + 1. The first new DEM adds 1, and the ELUs of later ones are the identity. The tail subtracts the 1 by means
of a new channel that is constant 1, so that the result is also exact at the zero-padded borders.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hrn.model.blocks import WRAB, WRDB
from hrn.model.config import VARIANT_FIELDS, HRNConfig
from hrn.model.hrn import DEM, HRN


@torch.no_grad()
def grow(small: HRN, large: HRN) -> None:
    """Make the newly initialised `large` compute the same function as `small`, in place.

    Args:
        small: the trained network.
        large: a network of the same scales and variants, at least as large in every respect. Of the variants, only
            `gates`, `dct_axes` and `skip` may differ from the defaults.

    Raises:
        ValueError: see :func:`check_growth`.
    """
    check_growth(small, large)
    c, new_modules = small.config.channels, len(large.body) - len(small.body)
    copy_conv(small.head, large.head)
    for old, new in zip(small.body, large.body, strict=False):
        grow_dem(old, new, c)
    for number, new in enumerate(large.body[len(small.body) :]):
        pass_through(new, c, add=1.0 if number == 0 else 0.0)
    for name, tail in small.tails.items():
        grow_tail(tail, large.tails[name])
        if new_modules:
            rows = tail[0].out_channels  # rows of the first convolution that come from the small network
            first = large.tails[name][0]
            first.weight[:rows, c] = -first.weight[:rows, :c].sum(1)
    if new_modules:
        make_constant(large, channel=c)


def check_growth(small: HRN, large: HRN) -> None:
    """Raise ValueError if `large` has other scales or variants than `small`, is smaller in any respect, or cannot grow."""
    a, b = small.config, large.config
    for name in ("scales", *VARIANT_FIELDS):
        if getattr(a, name) != getattr(b, name):
            raise ValueError(
                f"{name} must be equal: {getattr(a, name)} in the small network, {getattr(b, name)} in the large one"
            )
    for name in ("frequency", "dense", "attention", "norm"):
        if getattr(a, name) != getattr(HRNConfig, name):
            raise ValueError(f"{name} {getattr(a, name)!r}: such networks cannot grow")
    sizes = {name: (getattr(a, name), getattr(b, name)) for name in ("channels", "n_dem", "n_wrab")}
    sizes["channels * expansion"] = round(a.channels * a.expansion), round(b.channels * b.expansion)
    sizes["channels // reduction"] = max(1, a.channels // a.reduction), max(1, b.channels // b.reduction)
    for name, (old, new) in sizes.items():
        if new < old:
            raise ValueError(f"{name} must not decrease: {old} in the small network, {new} in the large one")
    if b.n_dem > a.n_dem and b.channels == a.channels:
        raise ValueError(f"channels must increase when n_dem does: {a.channels} in both networks")
    if a.upsampler == "subpixel" and b.upsampler == "direct":
        raise ValueError("upsampler: a subpixel tail cannot become a direct one")
    if a.upsampler == "direct" and b.upsampler == "subpixel" and b.channels < 3 * (max(b.scales) // 2) ** 2:
        raise ValueError(
            f"upsampler: a direct tail for x{max(b.scales)} needs {3 * (max(b.scales) // 2) ** 2} channels to become subpixel, "
            f"not {b.channels}"
        )


def grow_dem(old: DEM, new: DEM, c: int) -> None:
    """Copy a DEM of `c` channels."""
    for name in ("frequency", "spatial1", "spatial2"):
        grow_wrdb(getattr(old, name), getattr(new, name), c)
    copy_conv(old.fuse1, new.fuse1, inputs=first_channels(2, c, new.fuse1.out_channels))
    copy_conv(old.fuse2, new.fuse2, inputs=first_channels(4, c, new.fuse2.out_channels))


def grow_wrdb(old: WRDB, new: WRDB, c: int) -> None:
    """Copy a WRDB. Its last fusion becomes the last one of the new block, which may have more WRABs."""
    width = new.fuse[0].out_channels
    for a, b in zip(old.blocks, new.blocks, strict=False):
        grow_wrab(a, b)
    for i, fuse in enumerate(old.fuse[:-1]):
        copy_conv(fuse, new.fuse[i], inputs=first_channels(i + 2, c, width))
    copy_conv(old.fuse[-1], new.fuse[-1], inputs=first_channels(len(old.fuse) + 1, c, width))


def grow_wrab(old: WRAB, new: WRAB) -> None:
    """Copy a WRAB into the first channels of a wider one."""
    copy_conv(old.widen, new.widen)
    copy_conv(old.narrow, new.narrow)
    a, b = old.attention, new.attention
    for name in ("squeeze", "gate_h", "gate_w"):
        copy_conv(getattr(a, name), getattr(b, name))
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(b.norm, name)[: len(a.norm.weight)] = getattr(a.norm, name)


def pass_through(dem: DEM, c: int, add: float) -> None:
    """Make a new DEM pass its first `c` channels through, plus a constant."""
    dem.fuse2.weight[:c] = 0
    dem.fuse2.weight[:c, :c, 0, 0] = torch.eye(c)
    dem.fuse2.bias[:c] = add


def make_constant(network: HRN, channel: int) -> None:
    """Make one channel of the tail's input 1 everywhere."""
    network.head.weight[channel] = 0
    network.head.bias[channel] = 0
    network.body[-1].fuse2.weight[channel] = 0
    network.body[-1].fuse2.bias[channel] = 1


def grow_tail(old: nn.Sequential, new: nn.Sequential) -> None:
    """Copy an upsampler. A direct one may become a subpixel one."""
    olds, news = ([m for m in tail if isinstance(m, nn.Conv2d)] for tail in (old, new))
    if len(olds) == len(news):
        for a, b in zip(olds, news, strict=True):
            copy_conv(a, b)
        return
    # the first convolution computes all subpixels of RGB, and the others only move them into place
    size = math.prod(m.upscale_factor for m in new if isinstance(m, nn.PixelShuffle))
    subpixels = olds[0]
    for conv, shuffle in zip(news, (m for m in new if isinstance(m, nn.PixelShuffle)), strict=False):
        order = subpixel_order(size, shuffle.upscale_factor)
        conv.weight[: len(order)] = 0
        conv.weight[: len(order), : subpixels.in_channels] = subpixels.weight[order]
        conv.bias[: len(order)] = subpixels.bias[order]
        size //= shuffle.upscale_factor
        subpixels = identity_conv(3 * size**2).to(conv.weight)
    copy_conv(subpixels, news[-1])


def subpixel_order(size: int, factor: int) -> Tensor:
    """Return the order of RGB's 3 * size^2 subpixels for which a PixelShuffle by `factor` puts each in its place.

    Returns:
        Indices (3 * size^2,) into subpixels in the order of PixelShuffle(size): colour, row, column. After the shuffle by
        `factor`, the channels are the remaining 3 * (size / factor)^2 subpixels, again by colour, row and column.
    """
    rest = size // factor
    return torch.arange(3 * size**2).view(3, factor, rest, factor, rest).permute(0, 2, 4, 1, 3).flatten()


def identity_conv(channels: int) -> nn.Conv2d:
    """Return a 3x3 convolution that is the identity."""
    conv = nn.Conv2d(channels, channels, 3, padding=1)
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def copy_conv(old: nn.Conv2d, new: nn.Conv2d, inputs: Sequence[int] | None = None) -> None:
    """Copy a convolution into the first outputs of a wider one. Their weights for other inputs become zero.

    Args:
        old, new: convolutions of the same kernel size.
        inputs: input channels of `new` that correspond to those of `old`; the first ones by default.
    """
    rows = len(old.weight)
    new.weight[:rows] = 0
    new.weight[:rows, list(inputs or range(old.in_channels))] = old.weight
    if old.bias is not None:
        new.bias[:rows] = old.bias


def first_channels(maps: int, c: int, width: int) -> list[int]:
    """Return the indices of the first `c` channels of each of `maps` concatenated feature maps of `width` channels."""
    return [i * width + channel for i in range(maps) for channel in range(c)]
