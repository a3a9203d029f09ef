"""The backend of the web demo (:mod:`hrn.demo`): models, enlargements, previews and disk quota. Does not need Gradio."""

import logging
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hrn.checkpoint import load_checkpoint, load_network
from hrn.data.images import check_pixels, read_picture
from hrn.data.resize import imresize
from hrn.data.transparency import fill_transparent
from hrn.errors import HRNError
from hrn.inference.enlarge_file import Job, enlarge_file
from hrn.inference.enlarger import Enlarger
from hrn.inference.methods import name_without_scale, prefers_accuracy
from hrn.inference.resizer import Resizer, Size
from hrn.memory import peak_memory_meter, release_memory
from hrn.pretrained import find_checkpoint, read_manifest

logger = logging.getLogger(__name__)

MAX_UPLOAD_PIXELS, MAX_RESULT_PIXELS = 16_000_000, 64_000_000
"""Pixel limits for the upload and for the largest image that is computed."""
MAX_SIDE = 20_000
"""Limit for the sides of the upload. Extremely long images would take much more time and memory than others."""
MAX_FACTOR, FACTOR_STEP = 8, 0.5
PREVIEW_SIDE = 1600
"""Largest side of the two preview images. Larger results are cropped to their centre; the download is complete."""
KEEP_SECONDS = 1800
"""Age at which uploads and results are deleted."""
MAX_STORED = 4 * 2**30
"""Maximum total size in bytes of all uploads and results."""
MAX_FILES = 10_000
"""Maximum number of these files. Each takes an inode and at least one block, and all are listed at each upload."""


@dataclass
class DemoModel:
    """A model on the page. It may consist of several checkpoints of different scales."""

    parameters: int
    """Parameter count of the first checkpoint."""
    enlargers: dict[int, Enlarger] = field(default_factory=dict)
    """Enlargers by scale."""


def load_models(checkpoints: list[str] | None, device: torch.device) -> dict[str, DemoModel]:
    """Load checkpoints and group them by model: `a_x2.pth` and `a_x4.pth` both belong to `a`.

    Args:
        checkpoints: files or names in the manifest. By default, every available checkpoint of the manifest.
        device: where the networks run.

    Raises:
        HRNError: no checkpoint is available, one cannot be loaded, or two have the same name and scale.
    """
    models: dict[str, DemoModel] = {}
    for name in checkpoints or read_manifest(installed_only=True)["checkpoints"]:
        try:
            path = find_checkpoint(name)
        except HRNError as error:
            if checkpoints:
                raise
            logger.warning("skipping %s: %s", name, error)
            continue
        checkpoint = load_checkpoint(path)
        scales, stem = set(checkpoint.config.scales), checkpoint.path.stem
        label = name_without_scale(stem)
        if label in models and scales & models[label].enlargers.keys():
            label = stem
        if label in models and scales & models[label].enlargers.keys():
            raise HRNError(f"two checkpoints are named {label}; rename one of the files")
        network = load_network(checkpoint).to(device)
        model = models.setdefault(label, DemoModel(sum(p.numel() for p in network.parameters())))
        model.enlargers |= {scale: Enlarger(network, scale) for scale in checkpoint.config.scales}
    if not models:
        raise HRNError("no checkpoint is available; name one with --ckpt_path")
    return models


def default_model(models: dict[str, DemoModel], device: torch.device) -> str:
    """Return the name of the largest model on a CUDA GPU, otherwise of the smallest one. Ties go to the first."""
    choose = max if prefers_accuracy(device) else min
    return choose(models, key=lambda name: models[name].parameters)


class Paths(set[str]):
    """Paths that one thread may iterate over while another adds some."""

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))  # a copy made in one step


class DemoBackend:
    """Enlarges uploaded files, one at a time. Independent of Gradio.

    Args:
        models: the available models, by name.
        folder: where results are written.
    """

    def __init__(self, models: dict[str, DemoModel], folder: Path) -> None:
        self.models, self.folder = models, folder
        self.results: set[str] = Paths()
        """Paths of all results that were started, including deleted ones."""
        self.busy = threading.Lock()
        """Held during an enlargement."""
        self.stopped = threading.Event()
        """Once set, the current enlargement is aborted and new ones are rejected."""

    def enlarge(
        self, upload: Path, model: str, factor: float, progress: Callable[[float], object] = lambda share: None
    ) -> tuple[Path, tuple[Image.Image, Image.Image], str]:
        """Enlarge an image file.

        Args:
            upload: any file; its content is checked.
            model: a name in `models`.
            factor: enlargement factor of both sides, from 1 to MAX_FACTOR.
            progress: called with the completed share, from 0 to 1.

        Returns:
            The result's path, two preview images of equal size (bicubic and the model's), and a summary.

        Raises:
            HRNError: not an image, an image that is or becomes too large, an unknown model, a factor out of range, a full
                disk quota, or a server that is stopping.
        """
        if model not in self.models:
            raise HRNError(f"unknown model {model}: choose one of {', '.join(self.models)}")
        if not isinstance(factor, int | float) or not 1 <= factor <= MAX_FACTOR:
            raise HRNError(f"the factor must be between 1 and {MAX_FACTOR}, not {factor}")
        make_room(self.folder)
        if not upload.is_file():
            raise HRNError("the uploaded file has expired; upload it again")
        size = check_pixels(upload, MAX_UPLOAD_PIXELS)
        if max(size) > MAX_SIDE:
            raise HRNError(f"the image has a side of {max(size):,} pixels, more than the limit of {MAX_SIDE:,}")
        enlargers = list(self.models[model].enlargers.values())
        if largest_image_pixels(enlargers, size, factor) > MAX_RESULT_PIXELS:
            smaller = (n * FACTOR_STEP for n in range(math.ceil(factor / FACTOR_STEP) - 1, 0, -1))
            limit = next(f for f in smaller if largest_image_pixels(enlargers, size, f) <= MAX_RESULT_PIXELS)
            if limit <= 1:
                raise HRNError(f"the image is too large for {model}; use a smaller image or another model")
            raise HRNError(
                f"factor {factor:g} needs more than {MAX_RESULT_PIXELS:,} pixels; for this image and model use at most {limit:g}"
            )
        with self.busy:
            target = self.folder / uuid.uuid4().hex / f"{upload.stem[:80]}_x{factor:g}.png"
            self.results.add(str(target))
            target.parent.mkdir()
            try:
                for enlarger in enlargers:
                    enlarger.update_budget()
                # now, because the file may expire during the enlargement
                original = fill_transparent(read_picture(upload)).rgb
                resizer = Resizer(enlargers, Size(factor=factor))
                summary = self._enlarge(upload, target, resizer, self._counter(math.prod(size), progress))
                return target, previews(original, target), summary
            except BaseException:
                shutil.rmtree(target.parent, ignore_errors=True)
                raise

    def _enlarge(self, upload: Path, target: Path, resizer: Resizer, count: Callable[[int], None]) -> str:
        """Write the result and return a summary of the steps, the time and the memory."""
        device = next(iter(resizer.upscalers.values())).device
        count(0)
        start, peak = time.perf_counter(), peak_memory_meter(device)
        try:
            line = enlarge_file(Job(upload, target), resizer, count)
            cost = f"{time.perf_counter() - start:.1f} s on {device}, {peak():,.0f} MiB of additional memory"
        finally:
            release_memory(device)
        with Image.open(target) as result:
            cropped = "; the preview shows its centre" if max(result.size) > PREVIEW_SIDE else ""
        return f"{line.removeprefix(str(target)).strip()}{cropped}. {cost}."

    def _counter(self, pixels: int, progress: Callable[[float], object]) -> Callable[[int], None]:
        """Return a function that sums LR pixels and reports their share of `pixels`. It raises HRNError once `stopped` is set."""
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            progress(min(1.0, done / pixels))
            if self.stopped.is_set():
                raise HRNError("the server is stopping")

        return count


def largest_image_pixels(enlargers: list[Enlarger], size: tuple[int, int], factor: float) -> int:
    """Return the number of pixels of the largest image computed to enlarge height and width `size` by `factor`.

    This can exceed the result's: a model for x4 alone enlarges by 16 to reach 4.5, and the image is then reduced.
    """
    passes = Resizer(enlargers, Size(factor=factor)).passes(size)
    return math.ceil(math.prod(size) * max(factor, math.prod(passes)) ** 2)


def previews(original: np.ndarray, target: Path) -> tuple[Image.Image, Image.Image]:
    """Return the original after bicubic interpolation, and the target, both cropped to the central PREVIEW_SIDE pixels."""
    with Image.open(target) as result:
        w, h = result.size
        left, top = max(0, w - PREVIEW_SIDE) // 2, max(0, h - PREVIEW_SIDE) // 2
        right, bottom = min(w, left + PREVIEW_SIDE), min(h, top + PREVIEW_SIDE)
        after = result.crop((left, top, right, bottom))
    rows = imresize(original, size=(h, w), rows=(top, bottom))
    before = Image.fromarray(np.ascontiguousarray(rows[:, left:right]))
    if after.mode in ("L", "LA"):
        before = before.convert("L")  # a profile for grey images does not fit RGB
    if after.mode in ("LA", "RGBA"):
        before.putalpha(after.getchannel("A"))
    if profile := after.info.get("icc_profile"):
        before.info["icc_profile"] = profile
    return before, after


def make_room(folder: Path, expected: int = 0) -> None:
    """Delete expired files and empty folders in a folder, and check the size of the other files.

    Gradio's `delete_cache` also deletes expired files, except for uploads that a client aborted.

    Args:
        folder: the folder that holds uploads and results.
        expected: bytes of the uploads that are being received.

    Raises:
        HRNError: the files that are not expired exceed MAX_STORED or MAX_FILES.
    """
    stored, files, expired = expected, 0, time.time() - KEEP_SECONDS
    for parent, _, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names):
            with suppress(OSError):  # deleted by another thread
                status = path.stat()
                if status.st_mtime < expired:
                    path.unlink()
                else:
                    stored, files = stored + status.st_size, files + 1
        if Path(parent) != folder:
            with suppress(OSError):  # not empty, or deleted by another thread
                if Path(parent).stat().st_mtime < expired:
                    Path(parent).rmdir()
    if stored > MAX_STORED or files > MAX_FILES:
        raise HRNError(f"the server's storage is full; try again in {KEEP_SECONDS // 60} minutes")
