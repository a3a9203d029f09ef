"""Where in the frequency domain, the paper's second one, energy lies: of errors, and of what HRN's branches carry.

A coefficient (u, v) of the orthonormal 2-D DCT of an H x W image counts for the normalised frequency max(u/H, v/W), 1 being
Nyquist's. An image that was reduced by s can hold what lies below 1/s.
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
BRANCHES = ("input", "spatial 1", "spatial 2", "frequency")
"""What a DEM's last fusion joins, in its order."""


def frequencies(bins: int = BINS) -> np.ndarray:
    """The middle of each bin, from 0 to 1."""
    return (np.arange(bins) + 0.5) / bins


def energy_by_frequency(coefficients: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(..., H, W) DCT coefficients to the mean of their squares in each bin, (bins,); NaN where a bin holds none."""
    h, w = coefficients.shape[-2:]
    place = np.maximum(np.arange(h)[:, None] / h, np.arange(w) / w)
    index = (place * bins).astype(int).ravel()
    energy = np.square(coefficients, dtype=np.float64).reshape(-1, h * w).mean(0)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return np.bincount(index, energy, bins) / count


def mean_spectrum(spectra: Sequence) -> np.ndarray:
    """The mean over the first axis, of those that have coefficients in a bin; NaN where none has."""
    known = np.isfinite(spectra)
    with np.errstate(invalid="ignore"):
        return np.where(known, spectra, 0).sum(0) / known.sum(0)


def error_spectrum(sr: np.ndarray, hr: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Energy of the error of Y at each frequency, in squared grey levels, (bins,).

    Args:
        sr, hr: (H, W, 3) uint8.
        bins: how many frequencies.
    """
    return energy_by_frequency(dctn(rgb_to_y(sr) - rgb_to_y(hr), norm="ortho"), bins)


def branch_spectra(network: nn.Module, images: Sequence[np.ndarray], scale: int, bins: int = BINS) -> np.ndarray:
    """What each branch adds to the sum that a DEM's last fusion makes: energy by frequency, the mean over images.

    The fusion is a 1x1 convolution of four maps, so that each map's part of it stands alone.

    Args:
        network: an HRN.
        images: (H, W, 3) uint8 LR images.
        scale: one of the network's.
        bins: how many frequencies.

    Returns:
        (DEMs, 4, bins), in the order of BRANCHES.

    Raises:
        HRNError: a network without DEMs.
    """
    if not isinstance(network, HRN):
        raise HRNError(f"{type(network).__name__} has no DEMs; the spectrum is of hrn and hrn_light")
    spectra = []
    device = next(network.parameters()).device
    for image in images:
        with _fused_maps(network) as seen, torch.inference_mode():
            network(torch.from_numpy(image).to(device).permute(2, 0, 1)[None] / 255, scale)
            spectra.append([[_energy(part, bins) for part in parts] for parts in seen])
    return mean_spectrum(spectra)


@contextmanager
def _fused_maps(network: HRN) -> Iterator[list[list[Tensor]]]:
    """While open, what each DEM's last fusion adds up, (1, C, H, W) for each map."""
    seen: list[list[Tensor]] = []

    def note(fusion: nn.Conv2d, inputs: tuple[list[Tensor]]) -> None:
        weights = fusion.weight.split(fusion.out_channels, dim=1)
        seen.append([F.conv2d(x, weight) for x, weight in zip(inputs[0], weights, strict=True)])

    hooks = [dem.fuse2.register_forward_pre_hook(note) for dem in network.body]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _energy(part: Tensor, bins: int) -> np.ndarray:
    return energy_by_frequency(dct(part).cpu().numpy(), bins)
