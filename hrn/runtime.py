"""What a process needs to be told once: which device to use and how, and how to keep its memory."""

import ctypes
import logging
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch.nn import functional as F

from hrn.errors import HRNError

logger = logging.getLogger(__name__)

_AMPERE = (8, 0)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from malloc.h
PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one that PyTorch has kernels for, else the CPU.

    Raises:
        HRNError: the device is not there, does not work, or is in use by others alone.
    """
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
        (torch.ones(1, device=device) + 1).item()  # PyTorch may see a GPU, but have no kernels for it
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        if name != "auto" or "no kernel image" not in why:
            raise HRNError(f"--device {name}: not usable here ({why})") from None
        logger.warning("this PyTorch has nothing for the GPU (%s); the CPU is used", why)
        return torch.device("cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type == "mps" and torch.__version__ < (2, 14):
        raise HRNError(
            f"--device {name}: PyTorch {torch.__version__} convolves wrongly there, from 2.14 on it does not "
            "(https://github.com/pytorch/pytorch/issues/192212); update it, or use --device cpu"
        )
    return device


def check_gpu_generation(precision: str, device: torch.device) -> None:
    """Raises HRNError for bf16 or TF32 on NVIDIA's GPUs before Ampere, where PyTorch computes them in slow ways or fails."""
    nvidia = device.type == "cuda" and not torch.version.hip
    if precision in ("tf32", "bf16") and nvidia and torch.cuda.get_device_capability(device) < _AMPERE:
        raise HRNError(f"{torch.cuda.get_device_name(device)} has no {precision}; take fp16 or fp32")


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


def warm_up_kernels() -> None:
    """Run a vectorised kernel once in the main thread, after which PyTorch's ELU is up to six times faster there.

    On some CPUs with AVX-512, `F.elu` is slow in a fresh process until a kernel such as GELU's has run.
    `benchmarks/inference.py` prints the ratio.
    """
    F.gelu(torch.zeros(1000), approximate="tanh")


def release_memory(device: torch.device) -> None:
    """Hand freed memory back after all, to the kernel and the GPU: between the images of a program that waits in between."""
    empty_cache(device)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)


def empty_cache(device: torch.device) -> None:
    """Hand a GPU's freed memory back, for other shapes or other programs."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).empty_cache()


def tune_convolutions(*, tf32: bool, deterministic: bool = False) -> None:
    """Let cuDNN search for its fastest convolutions, or keep to the ones that always give the same bits; in TF32 or not.

    Matrix products stay float32 either way, and so does the DCT.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def inference_convolutions(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """On a CUDA GPU, convolve in float32 unless TF32 is asked for, and without a search: many sizes would start one each.

    Both settings are the whole program's, so this is for one thread at a time.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    cudnn.benchmark, cudnn.conv.fp32_precision = False, "tf32" if tf32 else "ieee"
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = before


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: on the GPU, or resident where `device` is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memory_meter(device: torch.device) -> Callable[[], float]:
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
