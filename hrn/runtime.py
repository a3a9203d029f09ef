"""Device selection and process-wide PyTorch settings: convolution algorithms and precisions."""

import importlib.util
import logging
import os
import re
import shutil
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch.nn import functional as F

from hrn.errors import HRNError

logger = logging.getLogger(__name__)

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions of convolutions and their autocast type; None runs without autocast."""

NVIDIA_DEVICE = Path("/dev/nvidia0")
"""Device file that exists if an NVIDIA driver serves a GPU."""
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
"""File with the version of the NVIDIA driver."""

_AMPERE = (8, 0)
_WITHOUT_BF16 = ("AVX2", "NO AVX")
"""CPU capabilities without bf16 instructions. Some CPUs with AVX-512 have them."""
_cudnn_settings = threading.RLock()


def pick_device(name: str = "auto") -> torch.device:
    """Select a device and check that it computes.

    Args:
        name: `auto`, or a device name of PyTorch (`cpu`, `cuda`, `cuda:1`, `mps`). `auto` selects the GPU if this PyTorch
            has kernels for it, otherwise the CPU.

    Raises:
        HRNError: the device does not exist, does not work, is in exclusive use by another process, or needs a newer driver.
    """
    if name == "auto" or name.startswith("cuda"):
        check_driver(name)
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
        (torch.ones(1, device=device) + 1).item()  # a GPU can be visible without kernels for its generation
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        if name != "auto" or "no kernel image" not in reason:
            raise HRNError(f"--device {name}: not usable here ({reason})") from None
        logger.warning("this PyTorch build has no kernels for the GPU (%s); using the CPU", reason)
        return torch.device("cpu")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type == "mps" and torch.__version__ < (2, 14):
        raise HRNError(
            f"--device {name}: convolutions of PyTorch {torch.__version__} are wrong on MPS "
            "(https://github.com/pytorch/pytorch/issues/192212). Update to 2.14 or later, or use --device cpu."
        )
    return device


def check_driver(name: str = "auto") -> None:
    """Fail if the machine has an NVIDIA GPU whose driver is too old for this PyTorch.

    PyTorch only warns in that case and reports that CUDA is unavailable, so `auto` would silently use the CPU.

    Raises:
        HRNError: names the driver and the CUDA version that PyTorch was built for.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if torch.version.cuda is None or hidden or not NVIDIA_DEVICE.exists() or torch.cuda.is_available():
        return
    try:
        found = re.search(r"Module\s+(?:for \S+\s+)?([\d.]+)", NVIDIA_DRIVER.read_text())
    except OSError:
        found = None
    raise HRNError(
        f"--device {name}: this machine has an NVIDIA GPU (driver {found[1] if found else 'unknown'}), but PyTorch "
        f"{torch.__version__} for CUDA {torch.version.cuda} cannot use it. Update the driver, install a PyTorch build for an "
        "older CUDA version, or use --device cpu."
    )


@cache
def _warn_of_slow_bf16() -> None:
    """Log a warning, once per process."""
    logger.warning("this CPU has no bf16 instructions; fp32 is several times faster than bf16")


class UnsupportedPrecisionError(HRNError):
    """A device does not support a precision."""


def check_precision(precision: str, device: torch.device, *, training: bool = False) -> None:
    """Check that a device supports a precision. Logs a warning for bf16 on a CPU that certainly has no bf16 instructions.

    Args:
        precision: a name in :data:`PRECISIONS`.
        device: the device that will compute.
        training: also allow fp16 on a CPU, where it is slow, so that loss scaling can be tested.

    Raises:
        UnsupportedPrecisionError: fp16 on a CPU, TF32 without an NVIDIA GPU, or bf16 or TF32 on an NVIDIA GPU before Ampere,
            where PyTorch is slow or fails.
        HRNError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise HRNError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu" and not training:
        raise UnsupportedPrecisionError("fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if precision == "tf32" and (device.type != "cuda" or torch.version.hip):
        raise UnsupportedPrecisionError("tf32 needs an NVIDIA GPU; use fp32 or bf16, or fp16 on another GPU")
    if precision == "bf16" and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in _WITHOUT_BF16:
        _warn_of_slow_bf16()
    nvidia = device.type == "cuda" and not torch.version.hip
    if precision in ("tf32", "bf16") and nvidia and torch.cuda.get_device_capability(device) < _AMPERE:
        name = torch.cuda.get_device_name(device)
        raise UnsupportedPrecisionError(f"{name} does not support {precision}; use fp16 or fp32")


def has_tf32(device: torch.device) -> bool:
    """Return whether a GPU can round float32 convolutions to TF32."""
    return not torch.version.hip and torch.cuda.get_device_capability(device) >= _AMPERE


def missing_for_compile(device: torch.device) -> str:
    """Return what `torch.compile` needs but this machine lacks, or an empty string.

    Inductor compiles C++ for the CPU, and Triton compiles C for CUDA. Both need Python's headers.
    """
    variable, names = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    if os.name == "nt":
        names = ("cl",)  # of Microsoft Visual C++
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton"
    if not any(shutil.which(name) for name in (os.environ.get(variable) or "", *names)):
        return f"a compiler ({' or '.join(names)}{_debian('build-essential')})"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return f"Python's headers (Python.h{_debian('python3-dev')})"
    return ""


def _debian(package: str) -> str:
    return f"; Debian: apt-get install {package}" if sys.platform == "linux" else ""


def warm_up_kernels() -> None:
    """Run one vectorised kernel in the main thread, so that PyTorch's ELU is fast from the start.

    On an AMD EPYC with AVX-512, `F.elu` was six times slower in a fresh process until a kernel such as GELU's had run.
    On an Intel Xeon (Sapphire Rapids) there is no such difference. `benchmarks/inference.py --tables elu` prints the ratio.
    """
    F.gelu(torch.zeros(1000), approximate="tanh")


def tune_convolutions(*, tf32: bool, deterministic: bool = False) -> None:
    """Configure cuDNN for training. Matrix products, and so the DCT, stay in float32.

    Args:
        tf32: round float32 convolutions to TF32.
        deterministic: use only algorithms that always return the same bits, instead of searching for the fastest ones.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def inference_convolutions(device: torch.device, *, tf32: bool) -> Iterator[None]:
    """Configure cuDNN for inference, and restore the settings at the end. Only CUDA devices are affected.

    Convolutions run in float32 unless `tf32` is set. The search for the fastest algorithm is off, because it would run for
    every new image size. The settings are global, so other threads wait until the body ends.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    with _cudnn_settings:
        before = cudnn.benchmark, cudnn.conv.fp32_precision
        cudnn.benchmark, cudnn.conv.fp32_precision = False, "tf32" if tf32 else "ieee"
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.conv.fp32_precision = before
