"""Matplotlib without a screen, and figures as files."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hrn.errors import HRNError
from hrn.files import atomic_write

OURS, OTHERS = "#c22f2f", "#5b6b7b"


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure by the suffix of `path`, and close it. Raises HRNError for a kind that matplotlib does not write."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise HRNError(
            f"{path}: a figure cannot be written as {kind or 'a file without an ending'}; use .png, .pdf or .svg"
        )
    # without the date, the same figure is the same file
    dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with atomic_write(path) as beside, plt.rc_context({"svg.hashsalt": "hrn"}):
        figure.savefig(beside, format=kind, dpi=160, metadata=dated.get(kind))
    plt.close(figure)
