"""Memory: sizes on the command line, free and peak memory, what is kept and returned, and out-of-memory errors."""

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch

from hrn.errors import HRNError

try:
    import resource
except ImportError:  # Windows
    resource = None

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
"""Messages of the CPU allocator, also on Windows, of the CUDA driver and MPS, and of CUDA libraries."""
POSSIBLY_OUT_OF_MEMORY = (
    "unable to find an engine",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUFFT_INTERNAL_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
)
"""Messages of cuDNN, cuFFT and cuBLAS when they cannot allocate a workspace. Other errors can produce the same messages."""
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory(text: str) -> int:
    """Parse a memory size such as `2G`, `1.5GB`, `800 MiB` or a number of bytes. K, M, G and T are powers of 1024.

    Raises:
        HRNError: the text is not a memory size, or the size is zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or not (size := int(float(match[1]) * _UNITS[match[2].upper()])):
        raise HRNError(f"invalid memory size {text!r}: use for example 2G, 800M or a number of bytes")
    return size


def free_memory(device: torch.device) -> int:
    """Bytes that can be allocated now without swapping.

    On a CPU, control group limits apply, and the memory is divided among the processes that torchrun started on this
    machine.
    """
    return _free_gpu_memory(device) if device.type == "cuda" else _free_cpu_memory() // local_process_count()


def local_process_count() -> int:
    """Return the number of processes that torchrun started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _free_gpu_memory(device: torch.device) -> int:
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _free_cpu_memory() -> int:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 2**31
    return min([free, *_free_in_groups()])


def _free_in_groups() -> Iterator[int]:
    """Yield the free memory of each limited control group of this process, including parent groups.

    See Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the Linux kernel.
    """
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers:  # version 2
            root, limit, used, files = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            files = "total_inactive_file"
        else:
            continue
        inner = root / path.lstrip("/")
        for group in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # in a container, the path may be the host's; a limit may be "max"
                free = int((group / limit).read_text()) - int((group / used).read_text())
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield max(0, free + int(stat.get(files, 0)))  # the page cache can be dropped


def keep_memory() -> None:
    """Make glibc keep freed buffers instead of returning them to the kernel.

    Otherwise every large activation is mapped and faulted in again at each step or image. No effect without glibc.
    """
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        except (OSError, AttributeError):
            pass  # not glibc


def release_memory(device: torch.device) -> None:
    """Return freed memory to the kernel and the GPU driver. For programs that idle between images."""
    empty_cache(device)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def empty_cache(device: torch.device) -> None:
    """Return the GPU memory that PyTorch caches to the driver. No effect on a CPU."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).empty_cache()


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: allocated on a GPU, resident on a CPU. 0 on Windows without a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):  # without /proc; getrusage may return the peak of the parent process
        return _status("VmHWM") * 1024
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memory_meter(device: torch.device) -> Callable[[], float]:
    """Start measuring peak memory. The returned function gives the peak since this call, in MiB above the memory in use
    at this call.

    CPU memory is resident memory. Outside Linux the peak cannot be reset, and the increase of the process's peak is returned.
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
    """Return a value of /proc/self/status in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def is_out_of_memory(error: BaseException, *, possibly: bool = False) -> bool:
    """Whether `error` means that memory ran out on a CPU or GPU.

    Args:
        error: the exception.
        possibly: also accept errors of cuDNN, cuFFT and cuBLAS that a lack of memory may have caused
            (https://github.com/pytorch/pytorch/issues/108645).
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    messages = OUT_OF_MEMORY + (POSSIBLY_OUT_OF_MEMORY if possibly else ())
    return isinstance(error, RuntimeError) and any(message in str(error) for message in messages)
