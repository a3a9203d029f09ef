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
    WITHOUT_PROFILE,
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
from hrn.inference.memory import is_out_of_memory


class Strips(Protocol):
    """What enlarges, such as :class:`hrn.inference.enlarger.Enlarger` and :class:`hrn.inference.resizer.Resizer`."""

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the result for an image of height and width `size`."""

    def describe(self, size: tuple[int, int]) -> str:
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
        leave_out: a folder whose images are not taken, where it lies in `path`: that of earlier results. Where it does
            not, or is `path` itself, the images in the part of `path` that has `folder` are not taken.

    Raises:
        HRNError: a folder without images.
    """
    if not path.is_dir():
        return [Job(path, folder / f"{path.stem}{suffix}")]
    results = _inside(path.resolve(), leave_out.resolve(), folder.resolve()) if leave_out else None
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


def _inside(path: Path, leave_out: Path, folder: Path) -> Path | None:
    """The folder in `path` that has results: `leave_out`, or else the one directly in `path` that has `folder`."""
    if path in leave_out.parents:
        return leave_out
    return path / folder.relative_to(path).parts[0] if path in folder.parents else None


def enlarge_file(job: Job, enlarger: Strips, progress: Callable[[int], object] = lambda pixels: None) -> str:
    """Enlarge an image file; PNG is written strip by strip, other kinds at once.

    Args:
        job: what, and where to.
        enlarger: does it.
        progress: told the number of LR pixels whenever some are done.

    Returns:
        A line that says what was done.

    Raises:
        HRNError: the image cannot be read or enlarged, its target not written, or memory does not suffice; the target
            is then as it was.
    """
    picture = read_picture(job.source)
    h, w = picture.rgb.shape[:2]
    new_h, new_w = enlarger.size_of((h, w))
    check_side(job.target, (new_h, new_w))
    try:
        _write(job.target, picture, (new_h, new_w), _strips(picture, enlarger, progress))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise HRNError(f"{job.source}: not enough memory to make {new_w}x{new_h} of {w}x{h}") from None
    told = [enlarger.describe((h, w))]
    if picture.frames > 1:
        told.append(f"the first of {picture.frames} frames")
    if picture.alpha is not None and job.target.suffix in WITHOUT_ALPHA:
        told.append(f"without its transparency, which {job.target.suffix} does not have")
    if picture.icc_profile and job.target.suffix in WITHOUT_PROFILE:
        told.append(f"without its colour profile, which {job.target.suffix} does not have")
    return f"{job.target}  {w}x{h} -> {new_w}x{new_h} ({', '.join(told)})"


def _write(target: Path, picture: Picture, size: tuple[int, int], strips: Iterator[Picture]) -> None:
    """Write the strips of a picture's enlargement of height and width `size`."""
    if target.suffix == ".png":
        channels = (1 if picture.grey else 3) + (picture.alpha is not None)
        samples = (np.asarray(to_pillow(strip)) for strip in strips)
        write_png(target, size, channels, samples, picture.icc_profile)
        return
    rgb = np.empty((*size, 3), np.uint8)
    alpha = np.empty(size, np.uint8) if picture.alpha is not None else None
    top = 0
    for strip in strips:
        rows = slice(top, top + len(strip.rgb))
        rgb[rows] = strip.rgb
        if alpha is not None:
            alpha[rows] = strip.alpha
        top = rows.stop
    write_image(target, replace(picture, rgb=rgb, alpha=alpha))


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
