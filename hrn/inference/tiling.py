"""An image in overlapping windows, feathered together, from its top to its bottom.

Memory does not grow with the height of the image, and time grows with its pixels. Each window's weights fall off over its
overlaps and sum to 1 with its neighbours', so that no border shows.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor

Forward = Callable[[np.ndarray], Tensor]
"""(B, H, W, 3) uint8 to (B, scale*H, scale*W, 3) float32 on the CPU."""


@dataclass(frozen=True)
class Layout:
    """How an image is cut."""

    window: tuple[int, int]
    """Height and width of a window in LR pixels."""
    overlap: int
    """LR pixels that a window shares with the next, or more."""
    aligned: bool = False
    """Whether windows begin at multiples of `window - overlap`; the last one may then be smaller."""
    at_once: int = 1
    """Windows in a batch."""


def spans(length: int, window: int, overlap: int, aligned: bool = False) -> list[tuple[int, int]]:
    """Windows that cover `length`, each `overlap` or more over the next; one, where that covers it.

    They are equal and equally spaced, or `aligned`: at multiples of `window - overlap`, the last perhaps smaller.
    """
    if length <= window:
        return [(0, length)]
    count = -(-(length - overlap) // (window - overlap))
    if aligned:
        starts = [i * (window - overlap) for i in range(count)]
    else:
        starts = [round(i * (length - window) / (count - 1)) for i in range(count)]
    return [(start, min(start + window, length)) for start in starts]


def strips(forward: Forward, lr: np.ndarray, scale: int, layout: Layout) -> Iterator[Tensor]:
    """Enlarge an image window by window.

    Args:
        forward: enlarges a batch of windows by `scale`.
        lr: (H, W, 3) uint8.
        layout: of the windows.

    Yields:
        Strips of rows, (h, scale*W, 3) float32, that follow one another.
    """
    h, w = lr.shape[:2]
    rows = spans(h, layout.window[0], layout.overlap, layout.aligned)
    columns = spans(w, layout.window[1], layout.overlap, layout.aligned)
    if len(rows) == len(columns) == 1:
        yield forward(lr[None])[0]
        return
    row_weights, column_weights = _weights(rows, scale), _weights(columns, scale)
    ends = [start for start, _ in rows[1:]] + [h]
    carried = torch.zeros(0, w * scale, 3)
    for (top, bottom), row_weight, end in zip(rows, row_weights, ends, strict=True):
        total = torch.zeros((bottom - top) * scale, w * scale, 3)
        total[: len(carried)] = carried
        for batch in _batches(columns, layout.at_once):
            windows = forward(np.stack([lr[top:bottom, left:right] for left, right in (columns[i] for i in batch)]))
            for i, sr in zip(batch, windows, strict=True):
                left, right = (edge * scale for edge in columns[i])
                total[:, left:right] += sr * (row_weight[:, None] * column_weights[i])[..., None]
            del windows, sr
        done = (end - top) * scale
        carried = total[done:].clone()
        total = total[:done]
        yield total
        del total


def assemble(strips: Iterable[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The image of height and width `size` whose strips of rows (h, W, 3) uint8 come from its top to its bottom."""
    out, top = None, 0
    for strip in strips:
        if len(strip) == size[0]:
            return strip
        out = np.empty((*size, 3), np.uint8) if out is None else out
        out[top : top + len(strip)] = strip
        top += len(strip)
    return out


def _batches(columns: list[tuple[int, int]], at_once: int) -> Iterator[list[int]]:
    """Indices of up to `at_once` neighbouring windows of equal width."""
    for _, equal in groupby(range(len(columns)), key=lambda i: columns[i][1] - columns[i][0]):
        indices = list(equal)
        yield from (indices[first : first + at_once] for first in range(0, len(indices), at_once))


def _weights(windows: list[tuple[int, int]], scale: int) -> list[Tensor]:
    """For each window along an axis, its weight at each of its HR samples; over all windows they sum to 1.

    It is 0 in the outer quarter of an overlap, where the window's border tells, and rises linearly over the middle half.
    """
    overlaps = [0, *(end - start for (_, end), (start, _) in pairwise(windows)), 0]
    total = torch.zeros(windows[-1][1] * scale)
    weights = []
    for (start, end), before, after in zip(windows, overlaps[:-1], overlaps[1:], strict=True):
        distance = (torch.arange((end - start) * scale) + 0.5) / scale
        rising, falling = (
            ((d - overlap / 4) / (overlap / 2)).clamp(0, 1) if overlap else torch.ones_like(d)
            for d, overlap in ((distance, before), (distance.flip(0), after))
        )
        weights.append(torch.minimum(rising, falling))
        total[start * scale : end * scale] += weights[-1]
    return [weight / total[start * scale : end * scale] for weight, (start, end) in zip(weights, windows, strict=True)]
