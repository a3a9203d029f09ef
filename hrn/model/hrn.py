"""HRN: the cross-domain heterogeneous residual network, and DEM, its outer residual block (figures 1 and 2a).

L. Ji et al., "Cross-domain heterogeneous residual network for single image super-resolution",
Neural Networks 149, 2022, https://doi.org/10.1016/j.neunet.2022.02.008
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrn.model.blocks import WRDB
from hrn.model.config import HRNConfig
from hrn.model.dct import dct, idct
from hrn.model.init import initialise
from hrn.model.pointwise import Fusion
from hrn.model.upsampler import make_upsampler

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K in [0, 1], subtracted from the input and added to the output."""


@dataclass(frozen=True)
class Domain:
    """The frequency domain: the DCT of whole feature maps.

    Args:
        dims: dimensions of the DCT.
    """

    dims: tuple[int, ...]

    def to_frequency(self, x: Tensor) -> Tensor:
        """Transform features (B, C, H, W) to coefficients of the same shape."""
        return dct(x, self.dims)

    def to_image(self, f: Tensor, size: tuple[int, int]) -> Tensor:
        """Transform coefficients to features (B, C, *size)."""
        return idct(f, self.dims)


class DEM(nn.Module):
    """Dual-domain enhancement module: two WRDBs in the image domain, one in the frequency domain, fused after an inverse DCT."""

    def __init__(self, config: HRNConfig) -> None:
        super().__init__()
        c = config.channels
        inner = dict(n_wrab=config.n_wrab, expansion=config.expansion, reduction=config.reduction, gates=config.gates)
        self.frequency = WRDB(c, **inner)
        self.spatial1 = WRDB(c, **inner)
        self.fuse1 = Fusion(2, c)
        self.spatial2 = WRDB(c, **inner)
        self.fuse2 = Fusion(4, c)

    def forward(self, x: Tensor, f: Tensor, domain: Domain) -> tuple[Tensor, Tensor]:
        """Map features x (B, C, H, W) and coefficients f in `domain` to those of the next module."""
        f = self.frequency(f)
        b1 = self.spatial1(x)
        t = F.elu(self.fuse1([x, b1]), inplace=True)
        b2 = self.spatial2(t)
        x = F.elu(self.fuse2([x, b1, b2, domain.to_image(f, x.shape[-2:])]), inplace=True)
        return x, f


class HRN(nn.Module):
    """The paper's network, with one tail for each of `config.scales`."""

    def __init__(self, config: HRNConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Conv2d(3, config.channels, 3, padding=1)
        self.body = nn.ModuleList(DEM(config) for _ in range(config.n_dem))
        self.tails = nn.ModuleDict(
            {f"x{s}": make_upsampler(config.upsampler, config.channels, s) for s in config.scales}
        )
        self.domain = Domain((-2, -1) if config.dct_axes == "hw" else (-1,))
        initialise(self)

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """Enlarge a batch.

        Args:
            lr: (B, 3, H, W) in [0, 1], any H and W from 1.
            scale: one of `config.scales`; the first by default.

        Returns:
            (B, 3, scale*H, scale*W), approximately in [0, 1], not clipped.
        """
        x0 = self.head(lr - self.mean)
        x, f = x0, self.domain.to_frequency(x0)
        for dem in self.body:
            x, f = dem(x, f, self.domain)
        return self.tails[f"x{scale or self.config.scales[0]}"](x0 + x) + self.mean
