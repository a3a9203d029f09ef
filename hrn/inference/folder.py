"""Image files, one or a folder full of them, enlarged into files of the same names."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from hrn.data.images import EXTENSIONS, Picture, list_images, read_picture, to_pillow, write_image
from hrn.data.png import write_png
from hrn.data.resize import imresize
from hrn.errors import HRNError


class Strips(Protocol):
    """What enlarges, such as :class:`hrn.inference.enlarger.Enlarger` and :class:`hrn.inference.size.Resizer`."""

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""

    def told(self, size: tuple[int, int]) -> str:
        """How that is reached, for people."""

    def strips(self, lr: np.ndarray) -> Iterator[np.ndarray]:
        """(H, W, 3) uint8 to strips of rows of the enlarged image."""


@dataclass(frozen=True)
class Job:
    """An image file and where its enlargement goes."""

    source: Path
    target: Path


def jobs(path: Path, folder: Path, suffix: str = ".png") -> list[Job]:
    """The images at `path`, a file or a folder with its subfolders, and their targets in `folder`.

    Names and subfolders are kept. Of images that differ in their suffix only, the target's name tells it: a.jpg.png.

    Raises:
        HRNError: there is nothing at `path`, or no image.
    """
    if not path.is_dir():
        return [Job(path, folder / f"{path.stem}{suffix}")]
    sources = list_images(path, recursive=True)
    if not sources:
        raise HRNError(f"no images in {path}: looked for {', '.join(EXTENSIONS)}")
    targets = [folder / source.relative_to(path).with_suffix(suffix) for source in sources]
    taken = Counter(targets)
    return [
        Job(source, target if taken[target] == 1 else target.with_name(f"{source.name}{suffix}"))
        for source, target in zip(sources, targets, strict=True)
    ]


def enlarge_file(job: Job, enlarger: Strips, progress: Callable[[int], object] = lambda pixels: None) -> str:
    """Enlarge an image file; PNG is written strip by strip, other kinds at once.

    Args:
        job: what, and where to.
        enlarger: does it.
        progress: told the number of LR pixels whenever some are done.

    Returns:
        A line that says what was done.

    Raises:
        HRNError: the image cannot be read or enlarged, or its target not written; the target is then as it was.
    """
    picture = read_picture(job.source)
    h, w = picture.rgb.shape[:2]
    new_h, new_w = enlarger.size_of((h, w))
    strips = _strips(picture, enlarger, progress)
    if job.target.suffix == ".png":
        channels = (1 if picture.grey else 3) + (picture.alpha is not None)
        samples = (np.asarray(to_pillow(strip)) for strip in strips)
        write_png(job.target, (new_h, new_w), channels, samples, picture.icc_profile)
    else:
        parts = list(strips)
        alpha = np.concatenate([part.alpha for part in parts]) if picture.alpha is not None else None
        write_image(job.target, replace(picture, rgb=np.concatenate([part.rgb for part in parts]), alpha=alpha))
    first = f", the first of {picture.frames} frames" if picture.frames > 1 else ""
    return f"{job.target}  {w}x{h} -> {new_w}x{new_h} ({enlarger.told((h, w))}{first})"


def _strips(picture: Picture, enlarger: Strips, progress: Callable[[int], object]) -> Iterator[Picture]:
    """A decoded file, enlarged from its top to its bottom; its transparency bicubically."""
    h, w = picture.rgb.shape[:2]
    size = enlarger.size_of((h, w))
    top = 0
    for rgb in enlarger.strips(picture.rgb):
        bottom = top + len(rgb)
        alpha = imresize(picture.alpha, size=size, rows=(top, bottom)) if picture.alpha is not None else None
        yield Picture(rgb, alpha, picture.grey)
        progress(h * w * bottom // size[0] - h * w * top // size[0])
        top = bottom
