"""Validation during training, shared by all processes of a run."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from torch import nn

from hrn.data.benchmark import TestSet
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.evaluation.evaluate import Enlarge, ImageResult, evaluate
from hrn.evaluation.metrics import mean_scores
from hrn.inference.enlarger import Enlarger

FAILED = 1000
"""Status code for an error. It is larger than every signal number, so it wins in `Processes.max`."""
MAX_PSNR = 100.0
"""Limit of PSNR-Y in dB. One plain image that is perfect must not make the mean infinite."""
SHOWN_IMAGES = 4
"""Images of each test set that TensorBoard shows: the first ones of the main process."""
SCORING_THREADS = {"cuda": 4}
"""Threads that score images while a GPU enlarges others, by device type. On a CPU the network needs all cores."""


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
        show: called with a name and an (H, W, 3) uint8 image, for the first of this process's images of each set.

    Returns:
        Mean `psnr_y` and `ssim_y` over the test sets, or None if any process was asked to stop.

    Raises:
        HRNError: an image cannot be read or scored; in all processes if it happens in one.
    """
    rows = []
    for test_set in test_sets:
        mine = score_set(network, test_set, processes, shave=shave, stop=stop, show=show)
        if mine is None:
            return None
        rows.append(mean_scores(processes.gather(mine)))
    return {name: sum(row[name] for row in rows) / len(rows) for name in ("psnr_y", "ssim_y")}


def score_set(
    network: nn.Module,
    test_set: TestSet,
    processes: Processes,
    *,
    shave: int | None,
    stop: Callable[[], int],
    show: Callable[[str, np.ndarray], None] | None,
) -> list[dict[str, float]] | None:
    """Score this process's images of a test set. Arguments as for :func:`validate`. Returns None after a stop."""
    enlarge = one_at_a_time(Enlarger(network, test_set.scale))

    def score(first: int) -> list[ImageResult]:
        images = test_set.images[first : first + processes.count][processes.rank :][:1]  # empty at an uneven end
        results = evaluate(enlarge, replace(test_set, images=images), shave=shave)
        is_shown = show is not None and first < SHOWN_IMAGES * processes.count
        return [result if is_shown else result.without_images() for result in results]

    device, mine = next(network.parameters()).device, []
    firsts = range(0, len(test_set.images), processes.count)
    with ordered_map(SCORING_THREADS.get(device.type, 0)) as apply:
        scored = apply(score, firsts)
        for _ in firsts:
            error = None
            try:
                for result in next(scored):
                    if result.sr is not None:
                        show(f"{test_set.name} x{test_set.scale}/{result.name}", result.sr)
                    mine.append({**result.scores, "psnr_y": min(result.scores["psnr_y"], MAX_PSNR)})
            except HRNError as caught:
                error = caught
            ended = processes.max(FAILED if error else stop())
            if ended == FAILED:
                raise error or HRNError("validation failed in another process")
            if ended:
                return None
    return mine


def one_at_a_time(enlarge: Enlarge) -> Enlarge:
    """Return `enlarge` for use by several threads."""
    lock = threading.Lock()

    def call(lr: np.ndarray) -> np.ndarray:
        with lock:
            return enlarge(lr)

    return call


@contextmanager
def ordered_map(threads: int) -> Iterator[Callable]:
    """Yield a `map` that computes ahead in `threads` threads, or the built-in one if 0. On exit, calls not begun are cancelled."""
    if not threads:
        yield map
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
