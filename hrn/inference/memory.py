"""How much memory there is, how much a network needs, and what it looks like when there was not enough."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from hrn.errors import HRNError
from hrn.model.config import HRNConfig

SHARE_OF_FREE = 0.8
"""Of the free memory, what is used unless told otherwise."""
SCRATCH = 1.45
"""What convolutions and the allocator take on top of the feature maps, as a factor."""
_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory(text: str) -> int:
    """`2G`, `1.5GB`, `800 MiB` or a plain number of bytes, in bytes; K, M, G and T are powers of 1024.

    Raises:
        HRNError: anything else, or nothing.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or not (size := int(float(match[1]) * _UNITS[match[2].upper()])):
        raise HRNError(f"memory must be given as 2G, 800M or a number of bytes, not {text!r}")
    return size


def free_memory(device: torch.device) -> int:
    """Bytes that can be had now without pushing anything else out.

    On a CPU within the limits of the control group, and shared with torchrun's other processes on this machine.
    """
    return _free_gpu_memory(device) if device.type == "cuda" else _free_cpu_memory() // processes_here()


def processes_here() -> int:
    """How many processes torchrun started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _free_gpu_memory(device: torch.device) -> int:
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _free_cpu_memory() -> int:
    try:
        lines = (_PROC / "meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else 2**31
    return min([free, *_free_in_groups()])


def _free_in_groups() -> Iterator[int]:
    """What is left in each control group that this process is in and that has a limit, and in those around it.

    Linux's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if not controllers:  # version 2
            root, limit, used, files = _GROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used = _GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            files = "total_inactive_file"
        else:
            continue
        inner = root / path.lstrip("/")
        for group in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # the host's path in a container, or a limit of "max"
                free = int((group / limit).read_text()) - int((group / used).read_text())
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                yield max(0, free + int(stat.get(files, 0)))  # files can be dropped


def bytes_per_pixel(network: nn.Module, scale: int) -> int:
    """What a forward pass holds at its peak for each LR pixel, in float32: the feature maps that are alive, and scratch.

    `benchmarks/inference.py` prints the measured peak.
    """
    config = network.config
    channels, wide, dense = (
        (config.channels, config.expansion, config.n_wrab) if isinstance(config, HRNConfig) else (64, 1, 1)
    )
    body = channels * (8 + dense + 2 * wide)
    direct = isinstance(config, HRNConfig) and config.upsampler == "direct"
    tail = 2 * scale**2 * (3 if direct else channels) + (2 * channels)
    return int(4 * SCRATCH * (max(body, tail) + 3 * scale**2))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had, on a GPU or a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # a CPU; CUDA's driver and mps; CUDA's libraries
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
