"""The orthonormal real FFT with its real and imaginary parts as channels: an alternative to :mod:`hrn.model.dct`.

As there, it is computed in float32 or float64, even inside autocast. It cannot be exported to ONNX.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor


def real_fft(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Transform real features (B, C, H, W) over `dims`, the last one W, to (B, 2 C, H, W // 2 + 1): real, then imaginary."""
    with _without_autocast(x):
        f = torch.fft.rfftn(_at_least_float32(x), dim=tuple(dims), norm="ortho")
        return torch.cat([f.real, f.imag], dim=1)


def inverse_real_fft(f: Tensor, dims: Sequence[int], size: tuple[int, int]) -> Tensor:
    """Invert :func:`real_fft`. `size` is (H, W) of the features (B, C, H, W)."""
    with _without_autocast(f):
        real, imag = _at_least_float32(f).chunk(2, dim=1)
        lengths = [size[dim] for dim in dims]
        return torch.fft.irfftn(torch.complex(real.contiguous(), imag.contiguous()), lengths, tuple(dims), norm="ortho")


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _without_autocast(x: Tensor) -> nullcontext | torch.autocast:
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)
