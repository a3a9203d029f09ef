"""Geometric self-ensemble (B. Lim et al., "Enhanced Deep Residual Networks", CVPRW 2017, arXiv 1707.02921, section 3.4)."""

from collections.abc import Callable

import torch
from torch import Tensor


def self_ensemble(enlarge: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean over the eight flips and quarter turns of x, each turned back after `enlarge`.

    Args:
        enlarge: (B, 3, H, W) to (B, 3, s*H, s*W), for any H and W.
        x: (B, 3, H, W).
    """
    total: Tensor | None = None
    for turns in range(4):
        turned = torch.rot90(x, turns, (-2, -1))
        for flipped in (False, True):
            sr = enlarge(turned.flip(-1) if flipped else turned)
            sr = torch.rot90(sr.flip(-1) if flipped else sr, -turns, (-2, -1))
            total = sr if total is None else total + sr
    return total / 8
