"""Enlarge any image with bounded memory.

The network's DCT and attention pools see the whole feature map, so tiles are not exact: an image is enlarged whole as
long as it is small enough, and in overlapping tiles, of which only the middle is kept, beyond that.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from hrn.checkpoint import load_checkpoint, load_network
from hrn.data.images import Picture, picture_of, read_picture, to_pillow
from hrn.data.resize import imresize
from hrn.errors import HRNError
from hrn.pretrained import find_checkpoint
from hrn.runtime import pick_device

TILE = 512
"""Side of a tile in LR pixels; up to TILE * TILE pixels an image is enlarged whole."""
OVERLAP = 16
"""LR pixels by which a tile reaches beyond what is kept of it."""


def load_model(
    path: str | Path, *, model: str | None = None, scale: int | None = None, device: str = "auto"
) -> nn.Module:
    """The network of a checkpoint file, ready for :func:`upscale`.

    Args:
        path: a checkpoint written by `hrn/train.py`, the authors' `hrn_x4.pth`, or the name of a shipped one, such as
            `hrn_light_x4`, which is fetched where it is not at hand (:mod:`hrn.pretrained`).
        model, scale: raise if the file holds something else.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        HRNError: see :func:`hrn.checkpoint.load_checkpoint` and :func:`hrn.checkpoint.load_network`.
    """
    return load_network(load_checkpoint(find_checkpoint(path)), model=model, scale=scale).to(pick_device(device))


def upscale(
    network: nn.Module, image: str | Path | Image.Image | np.ndarray, scale: int | None = None
) -> Image.Image | np.ndarray:
    """Enlarge an image.

    Args:
        network: from :func:`load_model`.
        image: a file, a Pillow image of any 8-bit mode, or an (H, W, 3) uint8 RGB array.
        scale: one of the network's scales; its first one by default.

    Returns:
        The same kind as `image` (a Pillow image for a file). Grey stays grey, transparency is enlarged bicubically.
    """
    if isinstance(image, np.ndarray):
        return enlarge(network, image, scale)
    picture = picture_of(image) if isinstance(image, Image.Image) else read_picture(image)
    return to_pillow(enlarge_picture(partial(enlarge, network, scale=scale), picture))


def enlarge_picture(enlarger: Callable[[np.ndarray], np.ndarray], picture: Picture) -> Picture:
    """A decoded file with its colours enlarged by `enlarger`, keeping what else it is; transparency bicubically."""
    rgb = enlarger(picture.rgb)
    alpha = imresize(picture.alpha, size=rgb.shape[:2]) if picture.alpha is not None else None
    return Picture(rgb, alpha, picture.grey, picture.icc_profile)


@torch.inference_mode()
def enlarge(network: nn.Module, lr: np.ndarray, scale: int | None = None, tile: int = TILE) -> np.ndarray:
    """(H, W, 3) uint8 to (scale*H, scale*W, 3) uint8.

    Raises:
        HRNError: wrong shape or type, a scale that the network does not have, or values that are not finite.
    """
    if lr.ndim != 3 or lr.shape[2] != 3 or lr.dtype != np.uint8 or 0 in lr.shape:
        raise HRNError(f"an image must be an (H, W, 3) array of uint8, not {lr.shape} of {lr.dtype}")
    scales = network.config.scales
    scale = scale or scales[0]
    if scale not in scales:
        raise HRNError(f"this network enlarges by {', '.join(f'x{s}' for s in scales)}, not x{scale}")
    h, w = lr.shape[:2]
    if h * w <= tile * tile:
        return _forward(network, lr, scale)
    out = np.empty((h * scale, w * scale, 3), np.uint8)
    for top, bottom in _spans(h, tile):
        for left, right in _spans(w, tile):
            y0, x0 = max(0, top - OVERLAP), max(0, left - OVERLAP)
            y1, x1 = min(h, bottom + OVERLAP), min(w, right + OVERLAP)
            sr = _forward(network, lr[y0:y1, x0:x1], scale)
            kept = sr[(top - y0) * scale : (bottom - y0) * scale, (left - x0) * scale : (right - x0) * scale]
            out[top * scale : bottom * scale, left * scale : right * scale] = kept
    return out


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Cut a length into equal parts that fit a tile with its overlap."""
    inner = tile - 2 * OVERLAP
    count = -(-length // inner)
    edges = [round(i * length / count) for i in range(count + 1)]
    return list(pairwise(edges))


def _forward(network: nn.Module, lr: np.ndarray, scale: int) -> np.ndarray:
    parameter = next(network.parameters())
    x = torch.tensor(lr).to(parameter.device).permute(2, 0, 1)[None].to(parameter.dtype).div_(255)
    sr = network(x, scale)[0].float().mul_(255)
    if not torch.isfinite(sr).all():
        raise HRNError("the network gave values that are not finite: the checkpoint is damaged")
    return sr.round_().clamp_(0, 255).byte().permute(1, 2, 0).cpu().numpy()
