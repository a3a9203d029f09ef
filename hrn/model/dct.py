"""The orthonormal discrete cosine transform (DCT-II) and its inverse, differentiable, for any length.

:func:`dct` and :func:`idct` have two exact methods. `fft` uses the real FFT (J. Makhoul, "A fast cosine transform in one and
two dimensions", IEEE Trans. ASSP 28, 1980). `matrix` multiplies by a constant matrix, which is cheaper for short lengths and
can be exported. `benchmarks/dct.py` measures both.

FFTs have no useful reduced precision, so both methods compute in float32 or float64, even inside autocast.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache

import torch
from torch import Tensor

MATRIX_UP_TO = 96
"""Largest length for which `auto` uses the matrix. On every CPU measured, it is faster up to there (`benchmarks/dct.py`)."""


def dct(x: Tensor, dims: Sequence[int] = (-2, -1), method: str = "auto") -> Tensor:
    """Compute the orthonormal DCT-II over `dims`, as `scipy.fft.dctn(x, axes=dims, norm="ortho")`.

    Args:
        x: real tensor of any shape. Half-precision input is computed and returned in float32.
        dims: dimensions to transform, each of length 1 or more.
        method: `fft`, `matrix`, or `auto` to choose by length.

    Returns:
        Coefficients of the shape of `x`, float32 or float64.

    Raises:
        ValueError: an unknown method.
    """
    return _transform(x, dims, method, _dct_fft, inverse=False)


def idct(x: Tensor, dims: Sequence[int] = (-2, -1), method: str = "auto") -> Tensor:
    """Compute the orthonormal DCT-III over `dims`, the inverse of :func:`dct`, with the same arguments."""
    return _transform(x, dims, method, _idct_fft, inverse=True)


def _transform(
    x: Tensor, dims: Sequence[int], method: str, fft_transform: Callable[[Tensor], Tensor], inverse: bool
) -> Tensor:
    """Transform one dimension after another. `fft_transform` transforms the last dimension."""
    if method not in ("auto", "fft", "matrix"):
        raise ValueError(f"method must be auto, fft or matrix, not {method!r}")
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        moved = [(0, 3, 1, 2)[d] for d in dims]  # positions of the dimensions in (B, H, W, C), which is contiguous
        return _transform(x.permute(0, 2, 3, 1), moved, method, fft_transform, inverse).contiguous().permute(0, 3, 1, 2)
    if torch.compiler.is_exporting():  # the ONNX export does not support complex numbers
        method = "matrix"
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        x = x if x.dtype == torch.float64 else x.float()
        for dim in dims:
            n = x.shape[dim]
            if method == "matrix" or (method == "auto" and n <= MATRIX_UP_TO):
                matrix = dct_matrix(n, x.dtype, x.device)
                x = _apply(x, matrix.mT if inverse else matrix, dim % x.ndim)
            else:
                x = fft_transform(x.movedim(dim, -1)).movedim(-1, dim)
    return x


def _apply(x: Tensor, matrix: Tensor, dim: int) -> Tensor:
    """Multiply `x` along `dim` by `matrix`, without a transposed copy."""
    if dim == x.ndim - 1:
        return x @ matrix.mT
    if dim == x.ndim - 2:
        return matrix @ x
    return (matrix @ x.flatten(dim + 1)).unflatten(-1, x.shape[dim + 1 :])


def dct_matrix(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II matrix (n, n): sqrt(2/n) cos(pi (2i+1) k / 2n) in row k, column i; row 0 over sqrt(2)."""
    if torch.compiler.is_compiling():  # part of the compiled graph, which must stay on one device
        return _make_matrix(n, device).to(dtype)
    return _cached(_make_matrix, n, dtype, device)


def _twiddle(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return exp(-i pi k / 2n) for the k of a real FFT of length n, times sqrt(2/n), or 1/sqrt(n) for k = 0."""
    dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    if torch.compiler.is_compiling():
        return _make_twiddle(n, device).to(dtype)
    return _cached(_make_twiddle, n, dtype, device)


@lru_cache(maxsize=128)
def _cached(make: Callable[[int, str], Tensor], n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # a cached inference tensor could not be used in training
        return make(n, "cpu").to(device=device, dtype=dtype)


def _make_matrix(n: int, device: torch.device | str) -> Tensor:
    i = torch.arange(n, dtype=torch.float64, device=device)
    matrix = torch.cos(math.pi / (2 * n) * (2 * i + 1) * i[:, None])
    return matrix / matrix.square().sum(1, keepdim=True).sqrt()  # rows of norm 1, which are the factors of the formula


def _make_twiddle(n: int, device: torch.device | str) -> Tensor:
    k = torch.arange(n // 2 + 1, dtype=torch.float64, device=device)
    phase = torch.polar(torch.full_like(k, math.sqrt(2 / n)), -math.pi / (2 * n) * k)
    return torch.cat([phase[:1] / math.sqrt(2), phase[1:]])


def _dct_fft(x: Tensor) -> Tensor:
    """Transform the last dimension: even samples, then odd ones reversed; a real FFT; a rotation of the phase."""
    n = x.shape[-1]
    v = torch.cat([x[..., 0::2], x[..., 1::2].flip(-1)], dim=-1)
    rotated = torch.fft.rfft(v) * _twiddle(n, x.dtype, x.device)
    mirrored = -rotated.imag[..., 1 : (n + 1) // 2].flip(-1)  # X[n-k] = -Im of the rotated V[k]
    return torch.cat([rotated.real, mirrored], dim=-1)


def _idct_fft(x: Tensor) -> Tensor:
    """Invert the steps of `_dct_fft`."""
    n = x.shape[-1]
    twiddle = _twiddle(n, x.dtype, x.device)
    half = n // 2 + 1
    # x[n-k] for k = 0 .. n//2, with x[n] = 0
    mirrored = torch.cat([torch.zeros_like(x[..., :1]), x[..., n - half + 1 :].flip(-1)], dim=-1)
    v = torch.fft.irfft(torch.complex(x[..., :half], -mirrored) / twiddle, n=n)
    even = (n + 1) // 2
    out = torch.empty_like(v)
    out[..., 0::2] = v[..., :even]
    out[..., 1::2] = v[..., even:].flip(-1)
    return out
