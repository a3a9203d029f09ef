"""Enlarge any image with bounded memory.

The network's DCT and attention pools see the whole feature map, so that an image in parts is not the image as a whole.
There are two modes. `full` enlarges it whole as long as it is small enough, and beyond that in large tiles, of which only
the middle is kept. `windows` enlarges overlapping windows of about the size that the network was trained on.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
from hrn.inference.windows import strips
from hrn.pretrained import find_checkpoint
from hrn.runtime import pick_device

TILE = 512
"""Side of a tile in LR pixels; up to TILE * TILE pixels an image is enlarged whole."""
OVERLAP = 16
"""LR pixels by which a tile reaches beyond what is kept of it."""
NOT_FINITE = "the network gave values that are not finite: the checkpoint is damaged"


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


@dataclass(frozen=True)
class Mode:
    """How an image is given to the network.

    Raises:
        HRNError: an unknown mode, or windows that are smaller than their overlap.
    """

    name: str = "full"
    window: int = 48
    """Side of a window in LR pixels."""
    overlap: int = 16
    """LR pixels that a window shares with the next."""

    def __post_init__(self) -> None:
        if self.name not in MODES:
            raise HRNError(f"the mode must be one of {', '.join(MODES)}, not {self.name}")
        if not 0 <= self.overlap < self.window:
            raise HRNError(f"windows of {self.window} cannot overlap by {self.overlap}")

    def __str__(self) -> str:
        return self.name if self.name == "full" else f"windows of {self.window}, overlap {self.overlap}"


MODES = ("full", "windows")
FULL = Mode()


def upscale(
    network: nn.Module, image: str | Path | Image.Image | np.ndarray, scale: int | None = None, mode: Mode = FULL
) -> Image.Image | np.ndarray:
    """Enlarge an image.

    Args:
        network: from :func:`load_model`.
        image: a file, a Pillow image of any 8-bit mode, or an (H, W, 3) uint8 RGB array.
        scale: one of the network's scales; its first one by default.
        mode: whole, or in windows.

    Returns:
        The same kind as `image` (a Pillow image for a file). Grey stays grey, transparency is enlarged bicubically.
    """
    if isinstance(image, np.ndarray):
        return enlarge(network, image, scale, mode)
    picture = picture_of(image) if isinstance(image, Image.Image) else read_picture(image)
    return to_pillow(enlarge_picture(partial(enlarge, network, scale=scale, mode=mode), picture))


def enlarge_picture(enlarger: Callable[[np.ndarray], np.ndarray], picture: Picture) -> Picture:
    """A decoded file with its colours enlarged by `enlarger`, keeping what else it is; transparency bicubically."""
    rgb = enlarger(picture.rgb)
    alpha = imresize(picture.alpha, size=rgb.shape[:2]) if picture.alpha is not None else None
    return Picture(rgb, alpha, picture.grey, picture.icc_profile)


@torch.inference_mode()
def enlarge(
    network: nn.Module, lr: np.ndarray, scale: int | None = None, mode: Mode = FULL, tile: int = TILE
) -> np.ndarray:
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
    if mode.name == "windows":
        return _windows(network, lr, scale, mode)
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


def _windows(network: nn.Module, lr: np.ndarray, scale: int, mode: Mode) -> np.ndarray:
    out = np.empty((lr.shape[0] * scale, lr.shape[1] * scale, 3), np.uint8)
    top = 0
    for strip in strips(network, np.ascontiguousarray(lr), scale, window=mode.window, overlap=mode.overlap):
        if not np.isfinite(strip).all():
            raise HRNError(NOT_FINITE)
        out[top : top + len(strip)] = (strip * 255).round().clip(0, 255)
        top += len(strip)
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
        raise HRNError(NOT_FINITE)
    return sr.round_().clamp_(0, 255).byte().permute(1, 2, 0).cpu().numpy()
