"""The Python API: load a network, enlarge images, enlarge tensors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn

from hrn.checkpoint import load_checkpoint, load_network
from hrn.data.images import picture_of, read_picture, to_pillow
from hrn.data.resize import imresize
from hrn.data.transparency import fill_transparent
from hrn.inference.enlarger import Enlarger, check_image, scales_of
from hrn.inference.mode import Mode
from hrn.inference.resizer import Resizer, Size
from hrn.pretrained import find_checkpoint
from hrn.runtime import pick_device, warm_up_kernels


def load_model(
    path: str | Path, *, model: str | None = None, scale: int | None = None, device: str = "auto"
) -> nn.Module:
    """Load the network of a checkpoint, in eval mode. Its parameters do not require gradients.

    Args:
        path: a checkpoint file or the authors' state dict, the name of an included checkpoint such as `hrn_light_x4`, or a
            URL such as `hf://OWNER/REPO/FILE` (:mod:`hrn.pretrained`).
        model, scale: the expected model and scale; by default whatever the file holds.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...

    Raises:
        HRNError: the checkpoint cannot be found or loaded, holds another model or scale, or the device is not usable.
    """
    warm_up_kernels()
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
    precision: str = "fp32",
    compile: bool = False,
    max_memory: int | None = None,
) -> Image.Image | np.ndarray:
    """Enlarge an image by a factor or to a size.

    Args:
        network: a network from :func:`load_model`.
        image: a file, a Pillow image of any 8-bit mode, or an (H, W, 3) uint8 RGB array.
        scale: the factor; the network's first scale by default. Other factors use up to three enlargements by
            trained scales and a bicubic reduction.
        mode, ensemble, precision, max_memory: see :class:`hrn.inference.enlarger.Enlarger`.
        size: width and height in pixels, instead of `scale`.
        long_edge: the longer side in pixels, instead of `scale`.
        compile: compile the network. Each call compiles it; for many images, create one `Enlarger` and call that.

    Returns:
        An image of the same kind as `image` (a Pillow image for a file). Grey images stay grey. Transparency is enlarged
        bicubically; fully transparent pixels first get the colour of the nearest visible one.

    Raises:
        HRNError: not a network of :func:`load_model`, more than one of scale, size and long_edge is given, or the size is
            out of range; see also `Enlarger`.
    """
    scales = scales_of(network)
    if scale is None and size is None and long_edge is None:
        scale = scales[0]
    wanted = Size(scale, size and (size[1], size[0]), long_edge)
    options = {"ensemble": ensemble, "precision": precision, "compile": compile, "max_memory": max_memory}
    resizer = Resizer([Enlarger(network, s, mode, **options) for s in scales], wanted)
    if isinstance(image, np.ndarray):
        check_image(image)
        return resizer(image)
    picture = picture_of(image) if isinstance(image, Image.Image) else read_picture(image)
    picture = fill_transparent(picture)
    rgb = resizer(picture.rgb)
    alpha = imresize(picture.alpha, size=rgb.shape[:2]) if picture.alpha is not None else None
    return to_pillow(replace(picture, rgb=rgb, alpha=alpha))


def enlarge(
    network: nn.Module, lr: Tensor, scale: int | None = None, mode: Mode | None = None, *, precision: str = "fp32"
) -> Tensor:
    """Enlarge a batch of images held in a tensor.

    Images of any size are processed in the same mode and tiles as in :func:`upscale`. No gradients are recorded.

    Args:
        network: a network from :func:`load_model`.
        lr: (B, 3, H, W) floating point RGB in [0, 1], on any device.
        scale: one of the network's scales; the first one by default.
        mode, precision: see :class:`hrn.inference.enlarger.Enlarger`.

    Returns:
        (B, 3, scale*H, scale*W) float32 in [0, 1], on the network's device.

    Raises:
        HRNError: the tensor has the wrong shape or type, or the network does not have the scale; see also `Enlarger`.
    """
    return Enlarger(network, scale, mode, precision=precision).enlarge_tensor(lr)
