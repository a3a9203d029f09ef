"""Energy by frequency: of errors, and of the signals in HRN's branches.

A coefficient (u, v) of the orthonormal 2-D DCT of an H x W image has the normalised frequency max(u/H, v/W), where 1 is the
Nyquist frequency. An image that was reduced by a factor s contains frequencies below 1/s.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from scipy.fft import dctn
from torch import Tensor, nn
from torch.nn import functional as F

from hrn.errors import HRNError
from hrn.evaluation.metrics import rgb_to_y
from hrn.model import HRN
from hrn.model.dct import dct

BINS = 48
"""Default number of frequency bins."""
BRANCHES = ("input", "spatial 1", "spatial 2", "frequency")
"""Inputs of a DEM's last fusion, in order."""


def frequencies(bins: int = BINS) -> np.ndarray:
    """Return the centre of each bin, between 0 and 1."""
    return (np.arange(bins) + 0.5) / bins


def energy_by_frequency(coefficients: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Mean squared DCT coefficient in each bin.

    Args:
        coefficients: (..., H, W) orthonormal DCT coefficients.
        bins: number of bins.

    Returns:
        (bins,); NaN for bins without coefficients.
    """
    h, w = coefficients.shape[-2:]
    place = np.maximum(np.arange(h)[:, None] / h, np.arange(w) / w)
    index = (place * bins).astype(int).ravel()
    energy = np.square(coefficients, dtype=np.float64).reshape(-1, h * w).mean(0)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return np.bincount(index, energy, bins) / count


def mean_spectrum(spectra: Sequence) -> np.ndarray:
    """Return the mean over the first axis, ignoring NaN; NaN for bins that are NaN everywhere."""
    known = np.isfinite(spectra)
    with np.errstate(invalid="ignore"):
        return np.where(known, spectra, 0).sum(0) / known.sum(0)


def error_spectrum(sr: np.ndarray, hr: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Energy of the error of Y in each bin, in squared grey levels, (bins,).

    Args:
        sr, hr: (H, W, 3) uint8.
        bins: number of bins.
    """
    return energy_by_frequency(dctn(rgb_to_y(sr) - rgb_to_y(hr), norm="ortho"), bins)


def branch_spectra(network: nn.Module, images: Sequence[np.ndarray], scale: int, bins: int = BINS) -> np.ndarray:
    """Energy by frequency of each branch's contribution to the last fusion of each DEM, averaged over images.

    The fusion is a 1x1 convolution of four feature maps, so its output is a sum of one contribution per map.

    Args:
        network: an HRN.
        images: (H, W, 3) uint8 LR images.
        scale: one of the network's scales.
        bins: number of bins.

    Returns:
        (DEMs, 4, bins), in the order of BRANCHES.

    Raises:
        HRNError: the network has no DEMs or no frequency branch.
    """
    if not isinstance(network, HRN):
        raise HRNError(f"{type(network).__name__} has no DEMs; use a checkpoint of hrn, hrn_base or hrn_light")
    if network.transform is None:
        raise HRNError("the network has no frequency branch")
    spectra = []
    device = next(network.parameters()).device
    for image in images:
        with _record_contributions(network) as recorded, torch.inference_mode():
            network(torch.from_numpy(image).to(device).permute(2, 0, 1)[None] / 255, scale)
            spectra.append([[_energy(part, bins) for part in parts] for parts in recorded])
    return mean_spectrum(spectra)


@contextmanager
def _record_contributions(network: HRN) -> Iterator[list[list[Tensor]]]:
    """Record, for each DEM, what each input map adds to the output of the last fusion, (1, C, H, W) each."""
    recorded: list[list[Tensor]] = []

    def record(fusion: nn.Conv2d, inputs: tuple[list[Tensor]]) -> None:
        weights = fusion.weight.split(fusion.out_channels, dim=1)
        recorded.append([F.conv2d(x, weight) for x, weight in zip(inputs[0], weights, strict=True)])

    hooks = [dem.fuse2.register_forward_pre_hook(record) for dem in network.body]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _energy(part: Tensor, bins: int) -> np.ndarray:
    return energy_by_frequency(dct(part).cpu().numpy(), bins)
