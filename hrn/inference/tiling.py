"""Blend overlapping windows into an image, from top to bottom.

Memory use does not depend on the height of the image. The weights of a window fall off towards its borders. The weights of
overlapping windows sum to 1 at every pixel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

Span = tuple[int, int]
"""Start and end of a window along one axis, in LR pixels."""


@dataclass(frozen=True)
class Layout:
    """The size and spacing of windows."""

    window: tuple[int, int]
    """Height and width of a window in LR pixels."""
    overlap: int
    """Minimum overlap of neighbouring windows in LR pixels."""
    aligned: bool = False
    """Whether windows start at multiples of `window - overlap`. The last window may then be smaller."""
    batch_size: int = 1
    """Maximum number of windows in a batch."""

    def is_single(self, size: tuple[int, int]) -> bool:
        """Whether one window covers an image of height and width `size`."""
        return size[0] <= self.window[0] and size[1] <= self.window[1]


def spans(length: int, window: int, overlap: int, aligned: bool = False) -> list[Span]:
    """Return the windows that cover `length` along one axis.

    Neighbouring windows overlap by at least `overlap`. They have equal sizes and equal spacing, unless `aligned`: then
    they start at multiples of `window - overlap`, and the last one may be smaller.
    """
    if length <= window:
        return [(0, length)]
    count = -(-(length - overlap) // (window - overlap))
    if aligned:
        starts = [i * (window - overlap) for i in range(count)]
    else:
        starts = [round(i * (length - window) / (count - 1)) for i in range(count)]
    return [(start, min(start + window, length)) for start in starts]


def blend_weights(windows: list[Span], scale: int) -> list[Tensor]:
    """Return the weight of each HR sample of each window along one axis. The weights of all windows sum to 1 at every sample.

    A weight is 0 in the outer quarter of an overlap, where border effects are strongest, and rises linearly over the
    middle half.
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


class Blender:
    """Cuts an image into windows and blends the enlarged windows, one group of window rows at a time::

        for group in blender.groups():
            blender.start(group)
            for windows in blender.batches(group):
                blender.add(windows, enlarge(blender.cut(image, windows)))
            strip = blender.finish(group)

    A group is a range of window rows whose windows fit into one batch, or a single row of windows.

    Args:
        size: height and width of the image in LR pixels.
        scale: the enlargement factor.
        layout: the windows.
        device: the device on which the windows are blended.
    """

    def __init__(self, size: tuple[int, int], scale: int, layout: Layout, device: torch.device) -> None:
        self.size, self.scale, self.layout, self.device = size, scale, layout, device
        self.rows, self.columns = (
            spans(length, window, layout.overlap, layout.aligned)
            for length, window in zip(size, layout.window, strict=True)
        )
        self._row_weights, self._column_weights = (
            [weight.to(device) for weight in blend_weights(axis, scale)] for axis in (self.rows, self.columns)
        )
        self._top, self._strip = 0, torch.zeros(0, size[1] * scale, 3, device=device)

    def groups(self) -> list[range]:
        """Return the window rows that are blended together."""
        step = max(1, self.layout.batch_size // len(self.columns))
        return [range(first, min(first + step, len(self.rows))) for first in range(0, len(self.rows), step)]

    def batches(self, group: range) -> Iterator[list[tuple[int, int]]]:
        """Yield the windows of a group, as (row, column) indices, in batches of equal window sizes."""
        batch: list[tuple[int, int]] = []
        for window in ((row, column) for row in group for column in range(len(self.columns))):
            if batch and (len(batch) == self.layout.batch_size or self._shape(window) != self._shape(batch[0])):
                yield batch
                batch = []
            batch.append(window)
        yield batch

    def cut(self, image: Tensor, windows: list[tuple[int, int]]) -> Tensor:
        """Return the windows of an image (H, W, 3), as a batch (B, h, w, 3)."""
        return torch.stack([image[slice(*self.rows[row]), slice(*self.columns[column])] for row, column in windows])

    def start(self, group: range) -> None:
        """Allocate the strip of a group. Rows shared with the previous group are already partly blended."""
        carried, self._top = self._strip, self.rows[group[0]][0]
        height = self.rows[group[-1]][1] - self._top
        self._strip = torch.zeros(height * self.scale, self.size[1] * self.scale, 3, device=self.device)
        self._strip[: len(carried)] = carried

    def add(self, windows: list[tuple[int, int]], enlarged: Tensor) -> None:
        """Blend enlarged windows (B, scale*h, scale*w, 3) into the strip."""
        for (row, column), sr in zip(windows, enlarged, strict=True):
            top, bottom = ((edge - self._top) * self.scale for edge in self.rows[row])
            left, right = (edge * self.scale for edge in self.columns[column])
            weight = self._row_weights[row][:, None] * self._column_weights[column]
            self._strip[top:bottom, left:right] += sr * weight[..., None]

    def finish(self, group: range) -> Tensor:
        """Return the completed rows of the strip, (h, scale*W, 3); the rows that the next group overlaps are kept."""
        end = self.rows[group[-1] + 1][0] if group[-1] + 1 < len(self.rows) else self.size[0]
        strip, completed = self._strip, (end - self._top) * self.scale
        self._strip = strip[completed:].clone()
        return strip[:completed]

    def _shape(self, window: tuple[int, int]) -> tuple[int, int]:
        (top, bottom), (left, right) = self.rows[window[0]], self.columns[window[1]]
        return bottom - top, right - left
