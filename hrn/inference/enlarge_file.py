"""Enlarge one image file, and list the files of a folder."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hrn.data.image_writer import WITHOUT_ALPHA, WITHOUT_PROFILE, check_format, save_image
from hrn.data.images import EXTENSIONS, Picture, list_images, read_picture, to_pillow
from hrn.data.png import write_png
from hrn.data.resize import imresize
from hrn.data.transparency import fill_transparent
from hrn.data.upscaler import Upscaler
from hrn.errors import HRNError
from hrn.files import atomic_write, check_not_input
from hrn.memory import is_out_of_memory


@dataclass(frozen=True)
class Job:
    """An image file to enlarge."""

    source: Path
    """The image file."""
    target: Path
    """The file to write."""


def list_jobs(path: Path, folder: Path, suffix: str = ".png", exclude: Path | None = None) -> list[Job]:
    """Return the images at `path`, a file or a folder with its subfolders, and their target files in `folder`.

    Names and subfolders are kept. If two images differ only in suffix or case, the target keeps the
    suffix: a.jpg.png.

    Args:
        path: a file, which need not exist, or a folder.
        folder: the folder of the targets.
        suffix: the suffix of the targets.
        exclude: a folder of earlier results to exclude, if it lies inside `path`. If it does not, or if it is `path`
            itself, the subfolder of `path` that contains `folder` is excluded.

    Raises:
        HRNError: the folder contains no images.
    """
    if not path.is_dir():
        return [Job(path, folder / f"{path.stem}{suffix}")]
    results = _results_folder(path.resolve(), exclude.resolve(), folder.resolve()) if exclude else None
    sources = [source for source in list_images(path, recursive=True) if results not in source.resolve().parents]
    if not sources:
        raise HRNError(f"no images in {path} (supported: {', '.join(EXTENSIONS)})")
    targets = [folder / source.relative_to(path).with_suffix(suffix) for source in sources]
    while len(counts := Counter(map(_caseless, targets))) < len(targets):
        renamed = [
            target
            if counts[_caseless(target)] == 1
            else folder / source.relative_to(path).with_name(f"{source.name}{suffix}")
            for source, target in zip(sources, targets, strict=True)
        ]
        if renamed == targets:
            break  # names such as a.png and A.png, which exist only on a file system with case
        targets = renamed
    return [Job(source, target) for source, target in zip(sources, targets, strict=True)]


def _caseless(path: Path) -> str:
    """Return the same text for two paths that are one file on a file system without case."""
    return str(path).casefold()


def _results_folder(path: Path, exclude: Path, folder: Path) -> Path | None:
    """Return the folder inside `path` that holds results: `exclude`, or the direct subfolder that contains `folder`."""
    if path in exclude.parents:
        return exclude
    return path / folder.relative_to(path).parts[0] if path in folder.parents else None


def enlarge_file(job: Job, upscaler: Upscaler, progress: Callable[[int], object] = lambda pixels: None) -> str:
    """Enlarge an image file. PNG files are written strip by strip, other formats as a whole.

    Args:
        job: the image file and its target.
        upscaler: what enlarges the image.
        progress: called with the number of LR pixels that have been processed since the last call.

    Returns:
        A summary line.

    Raises:
        HRNError: the image cannot be read or enlarged, the target cannot be written or is the image itself, or memory runs
            out. The target is then unchanged.
    """
    check_not_input(job.target, [job.source])
    picture = read_picture(job.source)
    h, w = picture.rgb.shape[:2]
    notes = [upscaler.describe((h, w))]  # fail before the enlargement
    new_h, new_w = upscaler.size_of((h, w))
    check_format(job.target, (new_h, new_w), picture.channels)
    picture = fill_transparent(picture)
    try:
        _write(job.target, picture, (new_h, new_w), _strips(picture, upscaler, progress))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise HRNError(f"{job.source}: not enough memory to enlarge {w}x{h} to {new_w}x{new_h}") from None
    if picture.animated:
        notes.append("first of several frames")
    if picture.alpha is not None and job.target.suffix in WITHOUT_ALPHA:
        notes.append(f"transparency dropped: not supported by {job.target.suffix}")
    if picture.icc_profile and job.target.suffix in WITHOUT_PROFILE:
        notes.append(f"colour profile dropped: not supported by {job.target.suffix}")
    return f"{job.target}  {w}x{h} -> {new_w}x{new_h} ({', '.join(notes)})"


def _write(target: Path, picture: Picture, size: tuple[int, int], strips: Iterator[Picture]) -> None:
    """Write the strips of an enlarged picture of height and width `size`."""
    if target.suffix == ".png":
        samples = (np.asarray(to_pillow(strip)) for strip in strips)
        write_png(target, size, picture.channels, samples, picture.icc_profile)
        return
    with atomic_write(target) as temporary:
        temporary.touch()  # fail before the enlargement
        rgb = np.empty((*size, 3), np.uint8)
        alpha = np.empty(size, np.uint8) if picture.alpha is not None else None
        top = 0
        for strip in strips:
            rows = slice(top, top + len(strip.rgb))
            rgb[rows] = strip.rgb
            if alpha is not None:
                alpha[rows] = strip.alpha
            top = rows.stop
        save_image(temporary, replace(picture, rgb=rgb, alpha=alpha), target)


def _strips(picture: Picture, upscaler: Upscaler, progress: Callable[[int], object]) -> Iterator[Picture]:
    """Enlarge a picture and yield strips from top to bottom. Transparency is enlarged bicubically."""
    h, w = picture.rgb.shape[:2]
    size = upscaler.size_of((h, w))
    top = 0
    for rgb in upscaler.strips(picture.rgb):
        bottom = top + len(rgb)
        alpha = imresize(picture.alpha, size=size, rows=(top, bottom)) if picture.alpha is not None else None
        yield Picture(rgb, alpha, picture.grey)
        progress(h * w * bottom // size[0] - h * w * top // size[0])
        top = bottom
