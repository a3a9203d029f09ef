"""Three lines that enlarge an image: `model = load_model(...)`, `upscale(model, ...)`, `.save(...)`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from hrn.checkpoint import load_checkpoint, load_network
from hrn.data.images import picture_of, read_picture, to_pillow
from hrn.data.resize import imresize
from hrn.inference.enlarger import Enlarger, Mode, check_image
from hrn.inference.resizer import Resizer, Size
from hrn.pretrained import find_checkpoint
from hrn.runtime import pick_device


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
    network: nn.Module,
    image: str | Path | Image.Image | np.ndarray,
    scale: float | None = None,
    mode: Mode | None = None,
    *,
    size: tuple[int, int] | None = None,
    long_edge: int | None = None,
    ensemble: bool = False,
    max_memory: int | None = None,
) -> Image.Image | np.ndarray:
    """Enlarge an image by a factor, or to a size.

    Args:
        network: from :func:`load_model`.
        image: a file, a Pillow image of any 8-bit mode, or an (H, W, 3) uint8 RGB array.
        scale: the factor; where the network was not trained for it, it is applied at the next larger scale, more than once
            if need be, and the result reduced bicubically. The network's first scale by default.
        mode, ensemble, max_memory: as :class:`hrn.inference.enlarger.Enlarger`'s.
        size: or width and height in pixels.
        long_edge: or the longer side in pixels.

    Returns:
        The same kind as `image` (a Pillow image for a file). Grey stays grey, transparency is enlarged bicubically.

    Raises:
        HRNError: more than one of scale, size and long_edge, or one that is out of reach; see also `Enlarger`.
    """
    scales = network.config.scales
    if scale is size is long_edge is None:
        scale = scales[0]
    wanted = Size(scale, size and (size[1], size[0]), long_edge)
    enlargers = [Enlarger(network, s, mode, ensemble=ensemble, max_memory=max_memory) for s in scales]
    resizer = Resizer(enlargers, wanted)
    if isinstance(image, np.ndarray):
        check_image(image)
        return resizer(image)
    picture = picture_of(image) if isinstance(image, Image.Image) else read_picture(image)
    rgb = resizer(picture.rgb)
    alpha = imresize(picture.alpha, size=rgb.shape[:2]) if picture.alpha is not None else None
    return to_pillow(replace(picture, rgb=rgb, alpha=alpha))
