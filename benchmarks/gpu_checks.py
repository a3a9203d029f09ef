"""Correctness checks of `benchmarks/gpu.py`, and helpers that its measurements use too."""

import io
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from hrn.distributed import Processes, join_processes
from hrn.inference.enlarger import Enlarger
from hrn.inference.memory import bytes_per_pixel
from hrn.inference.mode import Mode
from hrn.memory import empty_cache
from hrn.model import HRNConfig, build_model, preset
from hrn.runtime import PRECISIONS, tune_convolutions
from hrn.training.learner import Learner
from hrn.training.recipe import Execution, Recipe

SCRIPT = Path(__file__).with_name("gpu.py")
SCALE = 4
TOLERANCES = {"fp32": (1e-5, 1e-3), "bf16": (0.01, 0.1), "fp16": (0.002, 0.02)}
"""Largest relative errors of the output and of the gradient, by precision. A CPU in bf16 has 0.002 and 0.013."""


class NotApplicableError(Exception):
    """The check cannot run on this device or in this configuration. The message states what it needs."""


@dataclass(frozen=True)
class Setup:
    """The device, the network and the sizes to measure."""

    device: torch.device
    config: HRNConfig
    quick: bool = False
    patch: int = 48
    batches: tuple[int, ...] = (10, 32, 64)
    steps: int = 20
    """Timed training steps."""
    side: int = 512
    """Side of the LR image for inference."""
    workers: int = 4
    """DataLoader workers."""

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"


def make_setup(device: torch.device, model: str | None, quick: bool) -> Setup:
    """Full size on a GPU, smaller on a CPU, tiny with `quick`."""
    if quick:
        config = HRNConfig(scales=(SCALE,), channels=8, n_dem=1, n_wrab=1, expansion=1, reduction=4, upsampler="direct")
        return Setup(device, config, quick=True, patch=16, batches=(2,), steps=2, side=48, workers=0)
    if device.type == "cuda":
        return Setup(device, preset(model or "hrn", [SCALE]))
    config = preset(model or "hrn_light", [SCALE])
    return Setup(device, config, batches=(10,), steps=5, side=128, workers=min(2, os.cpu_count() or 1))


def require_gpu(setup: Setup) -> None:
    if not setup.cuda:
        raise NotApplicableError("needs a GPU")


def skip_if_quick(setup: Setup) -> None:
    if setup.quick:
        raise NotApplicableError("left out by --quick")


# correctness


def network_and_pair(setup: Setup) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network on the CPU in which all weights matter, and a batch of two LR and HR patches."""
    torch.manual_seed(0)
    network = build_model(setup.config).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    lr = torch.rand(2, 3, setup.patch, setup.patch)
    return network, lr, F.interpolate(lr, scale_factor=SCALE, mode="bicubic")


def forward_backward(setup: Setup, device: torch.device, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Output, loss and gradient on a device, as float32 vectors on the CPU."""
    network, lr, hr = network_and_pair(setup)
    network, lr, hr = network.to(device), lr.to(device), hr.to(device)
    tune_convolutions(tf32=False)
    dtype = PRECISIONS[precision]
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        sr = network(lr, SCALE)
        loss = F.l1_loss(sr.float(), hr)
    factor = 1024.0 if precision == "fp16" else 1.0  # small gradients would underflow
    (loss * factor).backward()
    gradient = torch.cat([p.grad.flatten().float() for p in network.parameters() if p.grad is not None]) / factor
    return sr.detach().float().cpu().flatten(), loss.detach().cpu().flatten(), gradient.cpu()


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


def check_against_cpu(setup: Setup, precision: str) -> str:
    if precision != "bf16":  # on a CPU, fp32 would be compared with itself, and fp16 is not used
        require_gpu(setup)
    reference = forward_backward(setup, torch.device("cpu"), "fp32")
    errors = [
        relative_error(value, wanted)
        for value, wanted in zip(forward_backward(setup, setup.device, precision), reference, strict=True)
    ]
    text = "relative error of output {:.1e}, loss {:.1e}, gradient {:.1e}".format(*errors)
    output, gradient = TOLERANCES[precision]
    if not (errors[0] <= output and errors[1] <= output and errors[2] <= gradient):
        raise ArithmeticError(f"{text}; tolerances {output:g}, {output:g}, {gradient:g}")
    return text


def check_cudnn(setup: Setup) -> str:
    """Compare gradients with cuDNN on and off (https://github.com/pytorch/pytorch/issues/150700)."""
    require_gpu(setup)
    *_, reference = forward_backward(setup, setup.device, "fp32")
    with torch.backends.cudnn.flags(enabled=False):
        *_, gradient = forward_backward(setup, setup.device, "fp32")
    error = relative_error(gradient, reference)
    if not error <= 1e-3:
        raise ArithmeticError(f"gradients differ by {error:.1e}")
    return f"gradients differ by {error:.1e}"


def make_learner(
    setup: Setup, batch: int, precision: str = "fp32", processes: Processes | None = None, **how
) -> Learner:
    """Return a learner with fixed initial weights, without TF32; `how` are fields of Execution."""
    recipe = Recipe(patch_size=setup.patch, batch_size=batch, norm_batch=batch, precision=precision, ema=0.999)
    execution = Execution(**{"compile": False, "tf32": False, **how})
    return Learner(setup.config, recipe, execution, processes or Processes(device=setup.device))


def random_patches(setup: Setup, batch: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Return a batch for :meth:`Learner.step`."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, setup.patch, setup.patch)
    lr = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return [(lr, lr.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2))]


def weights_after(setup: Setup, learner: Learner, seeds: range) -> Tensor:
    """All weights after a step for each seed, as a vector on the CPU."""
    for seed in seeds:
        learner.step(random_patches(setup, 2, seed), 1e-4)
    if learner.pop_metrics()["skipped"]:
        raise ArithmeticError("a step was not finite")
    return torch.cat([p.detach().cpu().flatten() for p in learner.network.parameters()])


def check_resume(setup: Setup) -> str:
    """Compare four steps with two steps, a saved and loaded state, and two more."""
    tune_convolutions(tf32=False, deterministic=True)
    reference = weights_after(setup, make_learner(setup, 2, deterministic=True), range(4))
    first, file = make_learner(setup, 2, deterministic=True), io.BytesIO()
    weights_after(setup, first, range(2))
    torch.save((first.network.state_dict(), first.state_dict()), file)
    file.seek(0)
    second = make_learner(setup, 2, deterministic=True)
    second.load_state_dict(*torch.load(file, map_location="cpu", weights_only=True))
    weights = weights_after(setup, second, range(2, 4))
    if torch.equal(weights, reference):
        return "bit-identical"
    error = relative_error(weights, reference)
    if not error <= 1e-5:
        raise ArithmeticError(f"weights differ by {error:.1e}")
    return f"not bit-identical: weights differ by {error:.1e}"


def check_compile(setup: Setup) -> str:
    """Compare three compiled steps with three eager ones."""
    skip_if_quick(setup)
    tune_convolutions(tf32=False)
    start = make_learner(setup, 2)
    before = torch.cat([p.detach().cpu().flatten() for p in start.network.parameters()])
    update = weights_after(setup, start, range(3)) - before
    started = time.perf_counter()
    error = relative_error(weights_after(setup, make_learner(setup, 2, compile=True), range(3)) - before, update)
    if not error <= 0.1:  # Adam's first updates are signs of gradients, which rounding may flip
        raise ArithmeticError(f"updates differ by {error:.1e}")
    return f"updates differ by {error:.1e}; {time.perf_counter() - started:.0f} s for compiling and three steps"


def check_cuda_graphs(setup: Setup) -> str:
    require_gpu(setup)
    skip_if_quick(setup)
    learner = make_learner(setup, 2, compile=True)
    weights_after(setup, learner, range(4))  # warm-up and recording
    counts = {e.key: e.count for e in profile_steps(setup, learner, 2, 1)}
    launches = counts.get("cudaGraphLaunch", 0)
    if not launches:
        raise RuntimeError("no CUDA graph is launched")
    return f"{launches} graph launches per step, {counts.get('cudaLaunchKernel', 0)} kernel launches"


def check_processes(setup: Setup) -> str:
    """Train on all GPUs with NCCL, or in two CPU processes with gloo; all must end with the same weights."""
    skip_if_quick(setup)
    count = torch.cuda.device_count() if setup.cuda else 2
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    done = subprocess.run(
        [*command, str(SCRIPT), "--worker", "--device", setup.device.type], capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return done.stdout.strip().splitlines()[-1]


def process_worker(device: str) -> int:
    """One of the processes of `check_processes`."""
    with join_processes(device) as processes:
        if processes.count == 1:  # one GPU: NCCL with a single rank
            dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
            dist.all_reduce(torch.ones(1, device=processes.device))
        setup = make_setup(processes.device, None, quick=True)
        seeds = range(100 * processes.rank, 100 * processes.rank + 3)  # each process has its own patches
        weights = weights_after(setup, make_learner(setup, 2, processes=processes), seeds)
        low, high = (weights.to(processes.device, copy=True) for _ in range(2))
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if not torch.equal(low, high):
            raise ArithmeticError("the processes' weights differ")
        if processes.is_main:
            print(f"{processes.count} process(es): equal weights after three steps")
        if processes.count == 1:
            dist.destroy_process_group()
    return 0


def profile_steps(setup: Setup, learner: Learner, batch: int, steps: int) -> list:
    """Return the profiler's averages by event over some training steps."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setup.cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    patches = random_patches(setup, batch)
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(steps):
            learner.step(patches, 1e-5)
        synchronise(setup)
    return list(found.key_averages())


def synchronise(setup: Setup) -> None:
    if setup.cuda:
        torch.cuda.synchronize(setup.device)


def inference_network(setup: Setup) -> nn.Module:
    network, *_ = network_and_pair(setup)
    return network.eval().requires_grad_(False).to(setup.device, memory_format=torch.channels_last)


def noise_image(setup: Setup) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (setup.side, setup.side, 3), dtype=np.uint8)


def check_out_of_memory(setup: Setup) -> str:
    """Enlarge with half the memory that the image needs. The budget is set too high, so that memory really runs out."""
    require_gpu(setup)
    network, image, device = inference_network(setup), noise_image(setup), setup.device
    enlarger = Enlarger(network, mode=Mode("local"), max_memory=2**40)
    whole = enlarger(image).astype(np.float32)
    empty_cache(device)
    need = bytes_per_pixel(network, SCALE) * setup.side**2
    total = torch.cuda.get_device_properties(device).total_memory
    before = torch.cuda.memory_stats(device).get("num_ooms", 0)
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + need / 2) / total, device)
    try:
        halved = enlarger(image)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    failures = torch.cuda.memory_stats(device).get("num_ooms", 0) - before
    error = float(((halved - whole) ** 2).mean())
    psnr = 10 * np.log10(255**2 / max(error, 1e-9))
    text = f"{failures} failed allocations, {psnr:.1f} dB to the whole image"
    if not failures or psnr < 40:
        raise RuntimeError(text)
    return text
