"""Progress of a run: training speed, screen lines and TensorBoard."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrn.errors import HRNError

logger = logging.getLogger(__name__)

CROP_SIZE = 512
"""Side of the centre crop of validation images that TensorBoard shows."""
WARMUP_STEPS = 3
"""Number of first steps at each scale that are not timed, because they compile, record CUDA graphs or search for
convolution algorithms."""


class StepTimer:
    """Measures seconds per training step, without validation, saving and warm-up steps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._taken: Counter[int] = Counter()
        self._sums = {True: [0, 0.0], False: [0, 0.0]}  # steps and seconds, of warm-up steps and the others
        self._mark = time.perf_counter()

    def step(self, scale: int) -> None:
        """Count the time since the last call as one step at `scale`."""
        self._taken[scale] += 1
        in_warmup = self._taken[scale] <= WARMUP_STEPS
        if in_warmup and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._sums[in_warmup][0] += 1
        self._sums[in_warmup][1] += now - self._mark
        self._mark = now

    def skip(self) -> None:
        """Leave out the time since the last call."""
        self._mark = time.perf_counter()

    def seconds_per_step(self) -> float:
        """Return the mean since the last call. Warm-up steps count only if there were no others."""
        steps, seconds = self._sums[False] if self._sums[False][0] else self._sums[True]
        self._sums = {True: [0, 0.0], False: [0, 0.0]}
        return seconds / max(1, steps)


def log_line(entry: Mapping[str, Any], max_steps: int) -> str:
    """Format a log entry for the screen."""
    parts = [f"step {entry['step']:,}/{max_steps:,}"]
    if entry.get("loss") is not None:
        parts.append(f"loss {entry['loss']:.5f}")
    if "lr" in entry:
        parts += [
            f"lr {entry['lr']:.2e}",
            f"{entry['images_per_second']:.1f} images/s",
            f"{format_duration(entry['seconds_left'])} left",
        ]
    if entry.get("skipped"):
        parts.append(f"{entry['skipped']} skipped")
    if "psnr_y" in entry:
        parts += [f"PSNR-Y {entry['psnr_y']:.3f} dB", f"SSIM-Y {entry['ssim_y']:.4f}"]
    return "  ".join(parts)


def format_duration(seconds: float) -> str:
    """Format seconds as `1:02:03`, or `2d 1:02:03` from one day on."""
    days, rest = divmod(round(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}d {clock}" if days else clock


class TensorBoard:
    """Writes curves and validation images for TensorBoard, an optional dependency (`pip install .[tensorboard]`).

    If the files can no longer be written (full disk), this is logged once, and nothing more is written.

    Args:
        folder: folder of the event files.
        step: first step of this run. Later events of an earlier attempt are dropped.

    Raises:
        HRNError: TensorBoard is not installed, or its folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise HRNError(f"--tensorboard needs the package tensorboard ({error}): pip install tensorboard") from None
        try:
            self._writer = SummaryWriter(str(folder), purge_step=step + 1)
        except OSError as error:
            raise HRNError(f"--tensorboard: cannot write {folder}: {error.strerror or error}") from None

    def add_scalars(self, entry: Mapping[str, Any]) -> None:
        """Add every number of a log entry to its curve."""

        def add(writer: Any) -> None:
            for name, value in entry.items():
                if name != "step" and value is not None:
                    writer.add_scalar(name, value, entry["step"])
            writer.flush()

        self._write(add)

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Add the centre crop of an (H, W, 3) uint8 image."""
        name = name.encode(errors="backslashreplace").decode()  # a file name need not be UTF-8
        y, x = (max(0, (side - CROP_SIZE) // 2) for side in image.shape[:2])
        crop = image[y : y + CROP_SIZE, x : x + CROP_SIZE]
        self._write(lambda writer: writer.add_image(name, crop, step, dataformats="HWC"))

    def close(self) -> None:
        """Flush and close the event file."""
        self._write(lambda writer: writer.close())

    def _write(self, action: Callable[[Any], None]) -> None:
        if self._writer is None:
            return
        try:
            action(self._writer)
        except OSError as error:
            logger.error("--tensorboard: cannot write: %s; training continues without it", error.strerror or error)
            self._writer = None
