"""PSNR against cost, of published methods and of this repository's checkpoints."""

from pathlib import Path

from hrn.evaluation.figures.canvas import OTHERS, OURS, plt, save
from hrn.evaluation.results import ours, published


def tradeoff(path: Path, scale: int, test_set: str = "Set5", most: float = 1000) -> None:
    """Draw PSNR-Y on a test set against Multi-Adds, of published methods up to `most` G and of our checkpoints."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    own = ours(scale)
    shown = [r for r in (*published(scale), *own) if 0 < r.multi_adds <= most and test_set in r.scores]
    before = (0.0, 0.0)
    for r in sorted(shown, key=lambda r: (r.multi_adds, -r.scores[test_set][0])):
        x, y = place = r.multi_adds, r.scores[test_set][0]
        under = x < 1.5 * before[0] and abs(y - before[1]) < 0.1  # its label would meet the last one's
        colour = OURS if r in own else OTHERS
        axis.scatter(*place, s=20 + r.parameters / 2e4, color=colour, alpha=0.75, linewidth=0)
        label = f"{r.method}, {r.parameters / 1e3:,.0f} K"
        axis.annotate(label, place, (7, -11 if under else 3), textcoords="offset points", fontsize=7)
        before = place
    axis.set(xscale="log", xlabel="Multi-Adds for 1280x720 output, G", ylabel=f"PSNR-Y on {test_set} x{scale}, dB")
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    save(figure, path)
