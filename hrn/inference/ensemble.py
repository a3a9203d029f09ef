"""Geometric self-ensemble (B. Lim et al., "Enhanced Deep Residual Networks", CVPRW 2017, arXiv 1707.02921, section 3.4)."""

from collections.abc import Callable

import torch
from torch import Tensor

FLIPS = ((), (-1,), (-2,), (-2, -1))
VIEWS_AT_ONCE = len(FLIPS)
"""Number of views in one batch of :func:`self_ensemble`."""


def self_ensemble(enlarge: Callable[[Tensor], Tensor], x: Tensor, batched: bool = False) -> Tensor:
    """Average the results over the eight flips and rotations of `x`.

    Args:
        enlarge: maps (B, 3, H, W) to (B, 3, s*H, s*W) for any B, H and W.
        x: (B, 3, H, W).
        batched: call `enlarge` twice with four views each instead of eight times.
    """
    total: Tensor | None = None
    for transposed in (False, True):
        base = x.mT if transposed else x
        views = [base.flip(dims) for dims in FLIPS]
        results = enlarge(torch.cat(views)).chunk(VIEWS_AT_ONCE) if batched else map(enlarge, views)
        for sr, dims in zip(results, FLIPS, strict=True):
            sr = sr.flip(dims)
            sr = sr.mT if transposed else sr
            total = sr if total is None else total + sr
    return total / 8
