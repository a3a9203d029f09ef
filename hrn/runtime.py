"""What a process needs to be told once: which device to use, and how to keep its memory."""

import ctypes
import sys

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
