"""Validation during training, shared by all processes of a run."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import nn

from hrn.data.benchmark import TestSet
from hrn.distributed import Processes
from hrn.evaluation.evaluate import evaluate, mean_scores
from hrn.inference.enlarger import Enlarger

SHOWN_IMAGES = 4
"""Images of each test set that TensorBoard shows."""


def validate(
    network: nn.Module,
    test_sets: list[TestSet],
    processes: Processes,
    *,
    shave: int | None = None,
    stop: Callable[[], int] = lambda: 0,
    show: Callable[[str, np.ndarray], None] | None = None,
) -> dict[str, float] | None:
    """Score a network by the evaluation protocol. The images are distributed over the processes.

    Args:
        network: the network, in eval mode.
        test_sets: at least one test set.
        processes: the processes of the run, which must all call this.
        shave: border in HR pixels left out of the scores; the scale by default.
        stop: returns the signal that asks this process to stop, or 0. Checked after each image.
        show: called with a name and an (H, W, 3) uint8 image, for the first images of each set.

    Returns:
        Mean `psnr_y` and `ssim_y` over the test sets, or None if any process was asked to stop.
    """
    rows = []
    for test_set in test_sets:
        enlarger, mine = Enlarger(network, test_set.scale), []
        for first in range(0, len(test_set.images), processes.count):
            image = test_set.images[first : first + processes.count][processes.rank :][:1]  # empty at an uneven end
            for result in evaluate(enlarger, replace(test_set, images=image), shave=shave):
                if show and len(mine) < SHOWN_IMAGES:
                    show(f"{test_set.name} x{test_set.scale}/{result.name}", result.sr)
                mine.append(result.scores)
            if processes.max(stop()):
                return None
        rows.append(mean_scores(processes.gather(mine)))
    return {name: sum(row[name] for row in rows) / len(rows) for name in ("psnr_y", "ssim_y")}
