"""Enlarge an image file or a folder of images, shared among processes."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hrn.data.images import count_pixels, count_unsupported, linked_folders
from hrn.data.resize import Bicubic
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.files import SCORES, UNFINISHED, is_disk_full
from hrn.inference.enlarge_file import Job, enlarge_file, list_jobs
from hrn.inference.methods import Method, name_without_scale
from hrn.inference.resizer import Resizer, Size


@dataclass(frozen=True)
class BatchSettings:
    """Options of a batch that do not depend on the method."""

    sample_dir: Path
    """Root folder of all results; images in it are not enlarged again."""
    suffix: str = ".png"
    """File name suffix of the results."""
    skip_existing: bool = False
    """Whether to skip images whose result already exists."""
    sizes: Sequence[Size] = ()
    """Sizes to produce; by default one for each method, at its scale."""


def enlarge_batch(source: Path, methods: Sequence[Method], settings: BatchSettings, processes: Processes) -> list[str]:
    """Enlarge `source` to each requested size and print one line per image.

    Results go to SAMPLE_DIR/LABEL/[folder name/]SIZE/SR/, where LABEL is the checkpoint's name. Several checkpoints
    are named without their scales, and different names are joined by `+`.

    Args:
        source: an image file, or a folder that is searched recursively.
        methods: one for each scale, all networks or all bicubic.
        settings: sizes and output.
        processes: this process and the others; each enlarges every n-th image.

    Returns:
        The error messages of all processes, one for each image of a folder that failed.

    Raises:
        HRNError: no images, a single file that cannot be enlarged, or results in the folder of the images or of a scored
            test set.
    """
    if source.is_dir() and source.resolve() == settings.sample_dir.resolve():
        raise HRNError(f"--sample_dir {settings.sample_dir} is the folder of the images; use another folder")
    labels = dict.fromkeys(method.label for method in methods)
    if len(labels) > 1:
        labels = dict.fromkeys(map(name_without_scale, labels))
    folder = settings.sample_dir / "+".join(labels) / (source.resolve().name if source.is_dir() else "")
    upscalers = _upscalers(methods, settings.sizes)
    processes.run_on_main(lambda: _check_not_scored([folder / name for _, name in upscalers]))
    if source.is_dir():
        processes.run_on_main(lambda: _print_other_files(source))
    failures, full = [], False
    for upscaler, name in upscalers:
        if not full:
            found, full = _enlarge_all(source, upscaler, folder / name / "SR", settings, processes)
            failures += found
    failures = list(dict.fromkeys(failures))  # an image that cannot be read fails at every size
    if failures and processes.is_main:
        rest = "; the disk is full, and the images after them were not enlarged" if full else ""
        print(f"\n{len(failures)} image(s) could not be enlarged{rest}:", *failures, sep="\n  ", file=sys.stderr)
    return failures


def _check_not_scored(folders: Sequence[Path]) -> None:
    """Raise HRNError if a folder holds the images of a test set that is or was scored."""
    for folder in folders:
        if any((folder / name).is_file() for name in (SCORES, UNFINISHED)):
            raise HRNError(f"{folder} holds the scored images of a test set; use another --sample_dir")


def _upscalers(methods: Sequence[Method], sizes: Sequence[Size]) -> list[tuple[Bicubic | Resizer, str]]:
    """Return an upscaler for each size, and the name of its output folder."""
    if isinstance(methods[0].upscaler, Bicubic):
        return [(method.upscaler, f"x{method.scale}") for method in methods]
    networks = [method.upscaler for method in methods]
    sizes = sizes or [Size(factor=method.scale) for method in methods]
    return [(Resizer(networks, size), str(size)) for size in sizes]


def _enlarge_all(
    source: Path, upscaler: Bicubic | Resizer, folder: Path, settings: BatchSettings, processes: Processes
) -> tuple[list[str], bool]:
    """Enlarge this process's share of `source` into `folder`.

    Returns:
        The error messages of all processes, and whether the disk is full.
    """
    pending = _pending_jobs(source, folder, settings, processes)[processes.rank :: processes.count]
    pixels = sum(count_pixels(job.source) for job in pending)
    failures, full = [], False
    hidden = None if processes.is_main else True
    with tqdm(total=pixels, unit="px", unit_scale=True, disable=hidden, leave=False) as bar:
        for job in pending:
            try:
                tqdm.write(enlarge_file(job, upscaler, bar.update))
            except HRNError as error:
                if not source.is_dir():
                    raise
                failures.append(str(error) if str(job.source) in str(error) else f"{job.source}: {error}")
                tqdm.write(f"error: {failures[-1]}", file=sys.stderr)
                if full := is_disk_full(error):
                    break  # the other images would fail as well
    shared = processes.gather([(failures, full)])
    return [failure for some, _ in shared for failure in some], any(full for _, full in shared)


def _print_other_files(folder: Path) -> None:
    """Print how many files of other image formats a folder contains, and which folders are links."""
    if links := linked_folders(folder):
        print(f"skipped {len(links)} link(s) to folders, such as {links[0]}", file=sys.stderr)
    if counts := count_unsupported(folder):
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
        print(f"skipped, because the format is not supported: {kinds}", file=sys.stderr)


def _pending_jobs(source: Path, folder: Path, settings: BatchSettings, processes: Processes) -> list[Job]:
    """Return the images to enlarge, listed by the main process so that all processes share one list."""
    found = processes.run_on_main(lambda: list_jobs(source, folder, settings.suffix, settings.sample_dir))
    if not settings.skip_existing:
        return found
    exists = processes.run_on_main(lambda: [os.path.isfile(job.target) for job in found])
    pending = [job for job, done in zip(found, exists, strict=True) if not done]
    if processes.is_main and any(exists):
        print(f"{sum(exists)} done already, {len(pending)} to do")
    return pending
