"""How a run is watched: a line on the screen, and TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hrn.errors import HRNError

MEASURED = ("images_per_second", "seconds_left")
"""What depends on the machine; all else in a log line is the same in every run of a recipe."""
SHOWN = 512
"""Side of the middle of a validation picture that TensorBoard gets."""


def log_line(line: Mapping[str, Any], max_steps: int) -> str:
    """A log line for people."""
    parts = [f"step {line['step']:,}/{max_steps:,}"]
    if line.get("loss") is not None:
        parts.append(f"loss {line['loss']:.5f}")
    if "lr" in line:
        parts += [
            f"lr {line['lr']:.2e}",
            f"{line['images_per_second']:.1f} images/s",
            f"{duration(line['seconds_left'])} left",
        ]
    if line.get("skipped"):
        parts.append(f"{line['skipped']} skipped")
    if "psnr_y" in line:
        parts += [f"PSNR-Y {line['psnr_y']:.3f} dB", f"SSIM-Y {line['ssim_y']:.4f}"]
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """1:02:03, with days before it where there are any."""
    days, rest = divmod(round(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}d {clock}" if days else clock


class TensorBoard:
    """Curves and validation pictures for TensorBoard, which is an extra: `pip install .[tensorboard]`.

    Args:
        folder: for the event files.
        step: of the run as it starts; later events of an earlier try are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise HRNError("--tensorboard needs another package: pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def line(self, line: Mapping[str, Any]) -> None:
        """Every number of a log line becomes a point of its curve."""
        for name, value in line.items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """The middle of an (H, W, 3) uint8 image."""
        y, x = (max(0, (side - SHOWN) // 2) for side in image.shape[:2])
        self._writer.add_image(name, image[y : y + SHOWN, x : x + SHOWN], step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
