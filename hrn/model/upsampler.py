"""Sub-pixel convolution: the tail of the network (W. Shi et al., CVPR 2016, arXiv 1609.05158)."""

from torch import nn


def make_upsampler(kind: str, channels: int, scale: int) -> nn.Sequential:
    """Build layers that map (B, C, H, W) to (B, 3, scale*H, scale*W).

    Args:
        kind: `subpixel` enlarges the features by factors of 2 or 3, then converts to RGB. `direct` does both in one
            convolution.
        channels: number of input channels C.
        scale: enlargement factor, 2, 3, 4 or 8.
    """
    if kind == "direct":
        return nn.Sequential(nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))
    layers: list[nn.Module] = []
    for factor in {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]:
        layers += [nn.Conv2d(channels, channels * factor**2, 3, padding=1), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))
