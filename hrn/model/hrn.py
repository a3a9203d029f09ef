"""HRN: the cross-domain heterogeneous residual network, and DEM, its outer residual block (figures 1 and 2a).

L. Ji et al., "Cross-domain heterogeneous residual network for single image super-resolution",
Neural Networks 149, 2022, https://doi.org/10.1016/j.neunet.2022.02.008
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrn.model.blocks import WRDB
from hrn.model.config import HRNConfig
from hrn.model.dct import dct, idct
from hrn.model.fft import inverse_real_fft, real_fft
from hrn.model.init import initialise
from hrn.model.pointwise import Fusion
from hrn.model.upsampler import make_upsampler

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean RGB of DIV2K in [0, 1], subtracted from the input and added to the output."""


@dataclass(frozen=True)
class FrequencyTransform:
    """The transform between image and frequency domain: the DCT or the FFT of whole feature maps.

    Args:
        dims: dimensions of the transform.
        fft: use the real FFT instead of the DCT. Its real and imaginary parts are 2 C channels of half the width.
    """

    dims: tuple[int, ...]
    fft: bool = field(default=False, kw_only=True)

    def to_frequency(self, x: Tensor) -> Tensor:
        """Transform features (B, C, H, W) to coefficients, of the same shape or (B, 2 C, H, W // 2 + 1)."""
        return real_fft(x, self.dims) if self.fft else dct(x, self.dims)

    def to_image(self, f: Tensor, size: tuple[int, int]) -> Tensor:
        """Transform coefficients to features (B, C, *size)."""
        return inverse_real_fft(f, self.dims, size) if self.fft else idct(f, self.dims)


class DEM(nn.Module):
    """Dual-domain enhancement module: two WRDBs in the image domain, one in the frequency domain, fused after an inverse DCT.

    A network without a frequency branch has no `transform` and no coefficients; both are None.
    """

    def __init__(self, config: HRNConfig) -> None:
        super().__init__()
        c = config.channels
        widths = {"dct": c, "fft": 2 * c}
        self.frequency = WRDB(widths[config.frequency], config) if config.frequency in widths else None
        self.spatial1 = WRDB(c, config)
        self.fuse1 = Fusion(2, c)
        self.spatial2 = WRDB(c, config)
        self.fuse2 = Fusion(3 if self.frequency is None else 4, c)

    def forward(
        self, x: Tensor, f: Tensor | None, transform: FrequencyTransform | None
    ) -> tuple[Tensor, Tensor | None]:
        """Map features x (B, C, H, W) and coefficients f to those of the next module."""
        f = None if transform is None else self.frequency(f)
        b1 = self.spatial1(x)
        t = F.elu(self.fuse1([x, b1]), inplace=True)
        b2 = self.spatial2(t)
        back = [] if transform is None else [transform.to_image(f, x.shape[-2:])]
        x = F.elu(self.fuse2([x, b1, b2, *back]), inplace=True)
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
        dims = (-2, -1) if config.dct_axes == "hw" else (-1,)
        self.transform = None if config.frequency == "none" else FrequencyTransform(dims, fft=config.frequency == "fft")
        initialise(self)

    def forward(self, lr: Tensor, scale: int | None = None) -> Tensor:
        """Enlarge a batch.

        Args:
            lr: (B, 3, H, W) in [0, 1], H and W of at least 1.
            scale: one of `config.scales`; the first by default.

        Returns:
            (B, 3, scale*H, scale*W), approximately in [0, 1], not clipped.
        """
        x0 = self.head(lr - self.mean)
        x, f = x0, None if self.transform is None else self.transform.to_frequency(x0)
        for dem in self.body:
            x, f = dem(x, f, self.transform)
        x = x0 + x if self.config.skip else x
        return self.tails[f"x{scale or self.config.scales[0]}"](x) + self.mean
