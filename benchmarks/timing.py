"""Timing helpers of the benchmarks."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

from hrn.errors import HRNError


def worker_output(script: str, arguments: Sequence[str]) -> str:
    """Run a script in a process of its own, for example to measure its memory, and return what it prints. Raises HRNError."""
    worker = subprocess.run([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if worker.returncode:
        raise HRNError(f"a worker of {script} failed; its output is above")
    return worker.stdout


def paired_seconds(*functions: Callable[[], object], rounds: int = 15, warmup: int = 3) -> list[float]:
    """Median seconds of each function. The functions run in turn, so that other load affects all of them alike."""
    taken: list[list[float]] = [[] for _ in functions]
    for i in range(warmup + rounds):
        for function, times in zip(functions, taken, strict=True):
            seconds = seconds_of(function)
            if i >= warmup:
                times.append(seconds)
    return [statistics.median(times) for times in taken]


def median_seconds(function: Callable[[], object]) -> float:
    """Median seconds of up to seven calls after a warm-up call; slow functions run fewer times, very slow ones once."""
    times = [seconds_of(function)]
    while len(times) < 8 and sum(times) < 10:
        times.append(seconds_of(function))
    return statistics.median(times[1:] or times)


def seconds_of(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return time.perf_counter() - start


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: torch.device | str = "cpu") -> str:
    """Device and PyTorch version, for the heading of a table."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}"
