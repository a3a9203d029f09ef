"""Overlapping windows, feathered together: each is of the size that the network was trained on, or near it.

The network's DCT and attention pools then see what they saw in training. Memory does not grow with the height of the
image, and time grows with its pixels. Weights fall off linearly over the overlap, so that no border of a window shows.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

BATCH_PIXELS = 16 * 64 * 64
"""LR pixels that are computed at once, at most, unless one window has more."""


def spans(length: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Equally spaced windows that cover `length`, each `overlap` or more over the next; one, where that covers it."""
    if length <= window:
        return [(0, length)]
    count = -(-(length - overlap) // (window - overlap))
    starts = [round(i * (length - window) / (count - 1)) for i in range(count)]
    return [(start, start + window) for start in starts]


def strips(network: nn.Module, lr: np.ndarray, scale: int, *, window: int, overlap: int) -> Iterator[np.ndarray]:
    """Enlarge an image from its top to its bottom.

    Args:
        network: of this scale.
        lr: (H, W, 3) uint8.
        window, overlap: in LR pixels, with 0 <= overlap < window.

    Yields:
        Strips of rows, (h, scale*W, 3) float32 in 0 to 1 but not clipped, that follow one another.
    """
    h, w = lr.shape[:2]
    rows, columns = spans(h, window, overlap), spans(w, window, overlap)
    device = next(network.parameters()).device
    total, weight = torch.zeros(0, w * scale, 3), torch.zeros(0, w * scale, 1)
    for i, (top, bottom) in enumerate(rows):
        more = (bottom - top) * scale - len(total)
        total = torch.cat([total, total.new_zeros(more, *total.shape[1:])])
        weight = torch.cat([weight, weight.new_zeros(more, *weight.shape[1:])])
        feather = _feather((bottom - top, columns[0][1] - columns[0][0]), overlap, scale)
        at_once = max(1, BATCH_PIXELS // ((bottom - top) * (columns[0][1] - columns[0][0])))
        for first in range(0, len(columns), at_once):
            these = columns[first : first + at_once]
            batch = np.stack([lr[top:bottom, left:right] for left, right in these])
            x = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float().div_(255)
            for (left, right), sr in zip(these, network(x, scale).float().permute(0, 2, 3, 1).cpu(), strict=True):
                total[:, left * scale : right * scale] += sr * feather
                weight[:, left * scale : right * scale] += feather
        done = ((rows[i + 1][0] if i + 1 < len(rows) else h) - top) * scale
        yield (total[:done] / weight[:done]).numpy()
        total, weight = total[done:], weight[done:]


def _feather(size: tuple[int, int], overlap: int, scale: int) -> Tensor:
    """Weights (scale*h, scale*w, 1) of a window's pixels: 1 in its middle, falling linearly over the overlap."""
    ramps = []
    for side in size:
        distance = torch.arange(side * scale) + 0.5
        distance = torch.minimum(distance, distance.flip(0))
        ramps.append((distance / max(1, overlap * scale)).clamp(max=1))
    return (ramps[0][:, None] * ramps[1])[..., None]
