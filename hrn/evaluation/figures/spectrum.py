"""Share of each branch of a DEM in its output, by frequency."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from hrn.evaluation.figures.canvas import OTHERS, OURS, plt, save
from hrn.evaluation.frequency import BRANCHES, branch_spectra, frequencies

STYLES = dict(zip(BRANCHES, ((OTHERS, ":"), (OTHERS, "--"), (OTHERS, "-"), (OURS, "-")), strict=True))


def spectrum(path: Path, network: nn.Module, images: Sequence[np.ndarray], scale: int) -> None:
    """Draw, for each DEM, the share of each branch in the energy of the last fusion's contributions.

    Args:
        path: PNG, PDF or SVG file to write.
        network: an HRN.
        images: (H, W, 3) uint8 LR images to average over.
        scale: one of the network's scales.

    Raises:
        HRNError: the network has no DEMs or no frequency branch.
    """
    spectra = branch_spectra(network, images, scale)
    shares = spectra / spectra.sum(axis=1, keepdims=True)
    figure, axes = plt.subplots(1, len(shares), figsize=(4.2 * len(shares), 3.2), sharey=True, layout="constrained")
    for number, (axis, dem) in enumerate(zip(np.atleast_1d(axes), shares, strict=True), 1):
        for branch, share in zip(BRANCHES, dem, strict=True):
            colour, style = STYLES[branch]
            axis.plot(frequencies(), 100 * share, style, color=colour, label=branch, linewidth=1.5)
        axis.set(title=f"DEM {number}", xlabel="normalised frequency (1: Nyquist of LR)", ylim=(0, 100))
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("share of the energy, %")
    np.atleast_1d(axes)[-1].legend(fontsize="small")
    save(figure, path)
