"""Training curves, and the learning-rate schedules."""

from pathlib import Path

import numpy as np

from hrn.errors import HRNError
from hrn.evaluation.figures.canvas import plt, save
from hrn.training.run_files import read_log
from hrn.training.schedule import SCHEDULES, lr_at


def curve(path: Path, logs: list[Path]) -> None:
    """Draw the training curves of logs: validation PSNR-Y, loss and learning rate against steps.

    Args:
        path: PNG, PDF or SVG file to write.
        logs: JSONL files of `hrn/train.py`.

    Raises:
        HRNError: a log is missing, damaged or empty.
    """
    panels = {"psnr_y": "validation PSNR-Y, dB", "loss": "training loss", "lr": "learning rate"}
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.4), layout="constrained")
    for log in logs:
        lines = read_log(log)
        if not lines:
            raise HRNError(f"{log}: no lines yet")
        for axis, name in zip(axes, panels, strict=True):
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            xy = zip(*points, strict=True) if points else ([], [])
            axis.plot(*xy, label=log.stem, linewidth=1.2, marker="o" if len(points) == 1 else "")
    for axis, title in zip(axes, panels.values(), strict=True):
        axis.set(xlabel="step", ylabel=title)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_major_locator(plt.MaxNLocator(5))
    axes[0].legend(fontsize="small")
    save(figure, path)


def schedules(path: Path, *, base: float, max_steps: int, decay: int, warmup: int) -> None:
    """Draw the learning rate of each schedule; arguments as :func:`hrn.training.schedule.lr_at`.

    Raises:
        HRNError: a number is not positive (`warmup` may be 0).
    """
    if min(max_steps, decay) < 1 or warmup < 0 or base <= 0:
        raise HRNError("--lr, --max_steps and --decay must be positive; --warmup must not be negative")
    steps = np.unique(np.linspace(0, max_steps - 1, 2000).astype(int))
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for schedule in SCHEDULES:
        rates = [
            lr_at(int(s), base=base, max_steps=max_steps, schedule=schedule, decay=decay, warmup=warmup) for s in steps
        ]
        label = schedule + (f", halved every {decay:,}" if schedule == "step" else "")
        axis.plot(steps, rates, label=label, linewidth=1.2)
    axis.set(xlabel="step", ylabel="learning rate")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save(figure, path)
