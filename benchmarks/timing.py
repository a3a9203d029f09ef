"""What the benchmarks share: fair timings on a machine that is never quite quiet."""

import statistics
import time
from collections.abc import Callable

import torch


def paired_seconds(*functions: Callable[[], object], rounds: int = 15, warmup: int = 3) -> list[float]:
    """Median seconds of each function, called in turn, so that slow minutes hit all of them alike."""
    taken: list[list[float]] = [[] for _ in functions]
    for i in range(warmup + rounds):
        for function, times in zip(functions, taken, strict=True):
            synchronise()
            start = time.perf_counter()
            function()
            synchronise()
            if i >= warmup:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: torch.device | str = "cpu") -> str:
    """A line that says what was measured on."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
