"""PSNR against Multi-Adds, for published methods and this repository's checkpoints."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from hrn.evaluation.figures.canvas import OTHERS, OURS, plt, save
from hrn.evaluation.tables import ours, published

TEST_SET = "Set5"
MAX_MULTI_ADDS = 1000
"""Methods with more Multi-Adds, in units of 10^9, are left out."""
PLACES = [(side, dy, align) for dy in (3, -10, 13, -20) for side, align in ((1, "left"), (-1, "right"))]
"""Label positions relative to a point, in order of preference: side (1 is right), offset upwards in points, alignment."""


def tradeoff(path: Path, scale: int, more: Sequence[Path] = ()) -> None:
    """Draw PSNR-Y on TEST_SET against Multi-Adds; the area of a point grows with the number of parameters.

    Args:
        path: PNG, PDF or SVG file to write.
        scale: scale of the results.
        more: other results, see :func:`hrn.evaluation.tables.published`.
    """
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    own = ours(scale)
    shown = [r for r in (*own, *published(scale, more)) if 0 < r.multi_adds <= MAX_MULTI_ADDS and TEST_SET in r.scores]
    points = [(r.multi_adds, r.scores[TEST_SET][0]) for r in shown]
    areas = [20 + r.parameters / 2e4 for r in shown]
    for r, point, area in zip(shown, points, areas, strict=True):
        axis.scatter(*point, s=area, color=OURS if r in own else OTHERS, alpha=0.75, linewidth=0)
    axis.set(xscale="log", xlabel="Multi-Adds for 1280x720 output, G", ylabel=f"PSNR-Y on {TEST_SET} x{scale}, dB")
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    figure.canvas.draw()  # fixes the positions of the points
    labels = [(r.method.split(" (")[0], OURS if r in own else "black") for r in shown]
    label_points(axis, points, [math.sqrt(area / math.pi) for area in areas], labels)
    save(figure, path)


def label_points(
    axis: Axes,
    points: Sequence[tuple[float, float]],
    radii: Sequence[float],
    labels: Sequence[tuple[str, str]],
) -> None:
    """Label each point at the position of PLACES with the fewest overlaps, inside the axis if possible.

    Args:
        axis: axis that has been drawn.
        points: (x, y) in data coordinates.
        radii: radii of the points, in typographic points.
        labels: text and colour of each label.
    """
    pixels = axis.transData.transform(points)
    half = [radius * axis.figure.dpi / 72 for radius in radii]
    taken = [Bbox.from_extents(x - r, y - r, x + r, y + r) for (x, y), r in zip(pixels, half, strict=True)]
    for point, radius, (text, colour) in zip(points, radii, labels, strict=True):
        notes = [
            axis.annotate(
                text, point, (side * (radius + 4), dy), textcoords="offset points", ha=align, fontsize=7, color=colour
            )
            for side, dy, align in PLACES
        ]
        boxes = [note.get_window_extent() for note in notes]
        outside = [not (axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1) for box in boxes]
        penalties = [o * len(points) + box.count_overlaps(taken) for o, box in zip(outside, boxes, strict=True)]
        best = penalties.index(min(penalties))
        taken.append(boxes[best])
        for i, note in enumerate(notes):
            if i != best:
                note.remove()
