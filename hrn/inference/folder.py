"""Image files, one or a folder full of them, enlarged into files of the same names."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from hrn.data.images import (
    EXTENSIONS,
    WITHOUT_ALPHA,
    Picture,
    check_side,
    list_images,
    read_picture,
    to_pillow,
    write_image,
)
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


def jobs(path: Path, folder: Path, suffix: str = ".png", leave_out: Path | None = None) -> list[Job]:
    """The images at `path`, a file or a folder with its subfolders, and their targets in `folder`.

    Names and subfolders are kept. Of images that differ in their suffix only, the target's name tells it: a.jpg.png.

    Args:
        path: of a file, which need not exist, or of a folder.
        folder: of the targets.
        suffix: of the targets.
        leave_out: a folder whose images are not taken, where it lies in `path`: that of earlier results.

    Raises:
        HRNError: a folder without images.
    """
    if not path.is_dir():
        return [Job(path, folder / f"{path.stem}{suffix}")]
    results = leave_out.resolve() if leave_out else None
    sources = [source for source in list_images(path, recursive=True) if results not in source.resolve().parents]
    if not sources:
        raise HRNError(f"no images in {path}: looked for {', '.join(EXTENSIONS)}")
    targets = [folder / source.relative_to(path).with_suffix(suffix) for source in sources]
    while len(taken := Counter(targets)) < len(targets):
        targets = [
            target if taken[target] == 1 else folder / source.relative_to(path).with_name(f"{source.name}{suffix}")
            for source, target in zip(sources, targets, strict=True)
        ]
    return [Job(source, target) for source, target in zip(sources, targets, strict=True)]


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
    check_side(job.target, (new_h, new_w))
    strips = _strips(picture, enlarger, progress)
    if job.target.suffix == ".png":
        channels = (1 if picture.grey else 3) + (picture.alpha is not None)
        samples = (np.asarray(to_pillow(strip)) for strip in strips)
        write_png(job.target, (new_h, new_w), channels, samples, picture.icc_profile)
    else:
        parts = list(strips)
        alpha = np.concatenate([part.alpha for part in parts]) if picture.alpha is not None else None
        write_image(job.target, replace(picture, rgb=np.concatenate([part.rgb for part in parts]), alpha=alpha))
    told = [enlarger.told((h, w))]
    if picture.frames > 1:
        told.append(f"the first of {picture.frames} frames")
    if picture.alpha is not None and job.target.suffix in WITHOUT_ALPHA:
        told.append(f"without its transparency, which {job.target.suffix} does not have")
    return f"{job.target}  {w}x{h} -> {new_w}x{new_h} ({', '.join(told)})"


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
