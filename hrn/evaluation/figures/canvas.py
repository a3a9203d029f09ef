"""Headless matplotlib, and writing figures to files."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from hrn.errors import HRNError
from hrn.files import atomic_write

OURS, OTHERS = "#c22f2f", "#5b6b7b"
"""Colours of this repository's methods and of others."""
RC = {"svg.hashsalt": "hrn", "pdf.fonttype": 42}
"""The same figure gives the same SVG file. PDF files embed TrueType fonts, because many publishers refuse Type 3."""


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix, and close it. Raises HRNError for an unsupported format."""
    kind = path.suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise HRNError(f"{path}: unsupported figure format {kind!r}; use .png, .pdf, .svg or .webp")
    # without the date, the same figure gives the same file
    dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    with atomic_write(path) as temporary, plt.rc_context(RC):
        figure.savefig(temporary, format=kind, dpi=160, metadata=dated.get(kind))
    plt.close(figure)
