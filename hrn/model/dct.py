"""The orthonormal discrete cosine transform (DCT-II) and its inverse, of any length, differentiable.

Two exact ways behind :func:`dct` and :func:`idct`: through the real FFT (J. Makhoul, "A fast cosine transform in one
and two dimensions", IEEE Trans. ASSP 28, 1980), and as a product with a constant matrix, which is cheaper for short
lengths and can be exported. `benchmarks/dct.py` measures both.

FFTs have no reduced precision worth using, so both ways compute in float32 (or float64), inside autocast too.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache

import torch
from torch import Tensor

MATRIX_UP_TO = 96
"""Lengths up to this one use the matrix: where the two cross on a CPU, forward, by `benchmarks/dct.py`."""


def dct(x: Tensor, dims: Sequence[int] = (-2, -1), method: str = "auto") -> Tensor:
    """Orthonormal DCT-II over `dims`, as `scipy.fft.dctn(x, axes=dims, norm="ortho")`.

    Args:
        x: real tensor of any shape; half-precision input is computed and returned in float32.
        dims: the dimensions to transform, each of any length from 1.
        method: `fft`, `matrix`, or `auto` to choose by length.
    """
    return _over(x, dims, method, _dct_fft, inverse=False)


def idct(x: Tensor, dims: Sequence[int] = (-2, -1), method: str = "auto") -> Tensor:
    """Orthonormal DCT-III over `dims`, the inverse of :func:`dct`; arguments as there."""
    return _over(x, dims, method, _idct_fft, inverse=True)


def _over(x: Tensor, dims: Sequence[int], method: str, by_fft, inverse: bool) -> Tensor:
    if method not in ("auto", "fft", "matrix"):
        raise ValueError(f"method must be auto, fft or matrix, not {method!r}")
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        moved = [(0, 3, 1, 2)[d] for d in dims]  # where each dimension is in (B, H, W, C), which is contiguous
        return _over(x.permute(0, 2, 3, 1), moved, method, by_fft, inverse).contiguous().permute(0, 3, 1, 2)
    if torch.compiler.is_exporting():  # complex numbers do not survive the export to ONNX
        method = "matrix"
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        for dim in dims:
            n = x.shape[dim]
            if method == "matrix" or (method == "auto" and n <= MATRIX_UP_TO):
                matrix = dct_matrix(n, x.dtype, x.device)
                x = _apply(x, matrix.mT if inverse else matrix, dim % x.ndim)
            else:
                x = by_fft(x.movedim(dim, -1)).movedim(-1, dim)
    return x


def _apply(x: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """`matrix` times every column of `x` along `dim`, without a transposed copy."""
    if dim == x.ndim - 1:
        return x @ matrix.mT
    if dim == x.ndim - 2:
        return matrix @ x
    return (matrix @ x.flatten(dim + 1)).unflatten(-1, x.shape[dim + 1 :])


def dct_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix (n, n): row k, column i is sqrt(2/n) cos(pi (2i+1) k / 2n), row 0 over sqrt(2)."""
    if torch.compiler.is_compiling():  # becomes part of the compiled graph, which must stay on one device
        return _make_matrix(n, device).to(dtype)
    return _kept(_make_matrix, n, dtype, device)


def _twiddle(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(-i pi k / 2n) for the k of a real FFT of length n, times the orthonormal factors sqrt(2/n), 1/sqrt(n) for k = 0."""
    dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    if torch.compiler.is_compiling():
        return _make_twiddle(n, device).to(dtype)
    return _kept(_make_twiddle, n, dtype, device)


@lru_cache(maxsize=128)
def _kept(make: Callable[[int, str], Tensor], n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # a cached inference tensor could never take part in training
        return make(n, "cpu").to(device=device, dtype=dtype)


def _make_matrix(n: int, device: torch.device | str) -> Tensor:
    i = torch.arange(n, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi / (2 * n) * (2 * i + 1) * i[:, None])
    return matrix / matrix.square().sum(1, keepdim=True).sqrt()  # unit rows, the factors of the formula


def _make_twiddle(n: int, device: torch.device | str) -> Tensor:
    k = torch.arange(n // 2 + 1, dtype=torch.float64, device=device)
    phase = torch.polar(torch.full_like(k, math.sqrt(2 / n)), -math.pi / (2 * n) * k)
    return torch.cat([phase[:1] / math.sqrt(2), phase[1:]])


def _dct_fft(x: Tensor) -> Tensor:
    """Over the last dimension: even samples forwards then odd ones backwards, a real FFT, a rotation."""
    n = x.shape[-1]
    v = torch.cat([x[..., 0::2], x[..., 1::2].flip(-1)], dim=-1)
    rotated = torch.fft.rfft(v) * _twiddle(n, x.dtype, x.device)
    mirrored = -rotated.imag[..., 1 : (n + 1) // 2].flip(-1)  # X[n-k] = -Im of the rotated V[k]
    return torch.cat([rotated.real, mirrored], dim=-1)


def _idct_fft(x: Tensor) -> Tensor:
    """The steps of `_dct_fft` backwards."""
    n = x.shape[-1]
    twiddle = _twiddle(n, x.dtype, x.device)
    half = n // 2 + 1
    # x[n-k] for k = 0 .. n//2, where x[n] counts as 0
    mirrored = torch.cat([torch.zeros_like(x[..., :1]), x[..., n - half + 1 :].flip(-1)], dim=-1)
    v = torch.fft.irfft(torch.complex(x[..., :half], -mirrored) / twiddle, n=n)
    even = (n + 1) // 2
    out = torch.empty_like(v)
    out[..., 0::2] = v[..., :even]
    out[..., 1::2] = v[..., even:].flip(-1)
    return out
