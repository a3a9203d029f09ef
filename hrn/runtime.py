"""What a process needs to be told once: which device to use and how, and how to keep its memory."""

import ctypes
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from hrn.errors import HRNError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one, else the CPU. Raises HRNError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HRNError(f"--device {name}: not usable here ({str(error).splitlines()[0]})") from None
    return device


def keep_memory() -> None:
    """Let glibc keep freed buffers instead of handing them back to the kernel.

    Otherwise each large activation is mapped and faulted in anew at every step or image. Does nothing elsewhere.
    """
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        except (OSError, AttributeError):
            pass  # not glibc


def release_memory() -> None:
    """Hand freed memory back to the kernel after all: between the images of a program that waits in between."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def tune_convolutions(*, tf32: bool, deterministic: bool = False) -> None:
    """Let cuDNN search for its fastest convolutions, or keep to the ones that always give the same bits; in TF32 or not.

    Matrix products stay float32 either way, and so does the DCT.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def without_search() -> Iterator[None]:
    """Do not search for the fastest convolutions: images of many sizes would start a search each."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: on the GPU, or resident where `device` is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_from_here(device: torch.device) -> Callable[[], float]:
    """A function that tells the peak of memory from now on, in MiB over what is held now; on a CPU, resident.

    Where that cannot be reset (not Linux), it tells by how much the process's peak rises.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        return lambda: (torch.cuda.max_memory_allocated(device) - held) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        held = _status("VmRSS")
        return lambda: (_status("VmHWM") - held) / 1024
    except OSError:
        before = peak_memory(device)
        return lambda: (peak_memory(device) - before) / 2**20


def _status(name: str) -> int:
    """A line of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
