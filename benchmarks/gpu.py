"""Check HRN on a GPU and measure its speed. Takes about ten minutes, most of them for compiling.

    python benchmarks/gpu.py                     writes benchmarks/results/gpu_DEVICE.md and .json
    python benchmarks/gpu.py --quick             a tiny network, in seconds, to test this script

Prints a Markdown report to paste into an issue. A failed check becomes a row of the report and does not stop the others; the
exit code is then 1. Without a GPU everything that a CPU can do runs in a smaller size. Weights are random and images are
noise: speed does not depend on them.
"""

import argparse
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import h5py
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from hrn.cli import run_cli
from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.distributed import Processes, join_processes
from hrn.files import write_text
from hrn.inference.enlarger import Enlarger, Mode
from hrn.inference.memory import bytes_per_pixel
from hrn.model import HRNConfig, build_model, preset
from hrn.model.summary import OUTPUT_SIZE, summarise
from hrn.runtime import empty_cache, keep_memory, peak_memory_meter, pick_device, release_memory, tune_convolutions
from hrn.training.learner import Learner
from hrn.training.recipe import Execution, Recipe

SCALE = 4
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {"fp32": (1e-5, 1e-3), "bf16": (0.03, 0.15), "fp16": (0.005, 0.03)}
"""Largest relative errors of the output and of the gradient, by precision."""
TRAINING = (("fp32 eager", "fp32", False), ("bf16 eager", "bf16", False), ("bf16 compiled", "bf16", True))
"""Label, precision, and whether the network is compiled."""


class NotApplicableError(Exception):
    """The check cannot run on this device or in this configuration. The message says what it needs."""


@dataclass(frozen=True)
class Setup:
    """What is measured, and in which sizes."""

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
    """Loading processes."""

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


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    section: str
    name: str
    status: str
    """`ok`, `failed` or `not run`."""
    result: str


class Report:
    """Runs checks and collects their rows."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.rows = setup, []

    def run(self, section: str, name: str, check: Callable[..., str], *args: object) -> None:
        """Add the row of `check(setup, *args)`, which returns its result or raises an exception."""
        try:
            row = Row(section, name, "ok", check(self.setup, *args))
        except NotApplicableError as error:
            row = Row(section, name, "not run", str(error))
        except Exception as error:  # a report with a failed row is worth more than none
            first = (str(error).splitlines() or [""])[0]
            row = Row(section, name, "failed", f"{type(error).__name__}: {first}")
        release_memory(self.setup.device)
        self.rows.append(row)
        print(f"{section}: {name}: {row.status}: {row.result}", file=sys.stderr, flush=True)

    @property
    def failed(self) -> bool:
        return any(row.status == "failed" for row in self.rows)

    def markdown(self) -> str:
        """The report, a table for each section."""
        title = f"# HRN on {device_name(self.setup.device)}"
        notes = ["" if self.setup.cuda else "**No GPU was used.** Sizes are smaller, and the GPU's checks did not run."]
        notes += ["A tiny network (--quick): the speeds mean nothing."] if self.setup.quick else []
        lines = [title, *(f"\n{note}" for note in notes if note)]
        for section in dict.fromkeys(row.section for row in self.rows):
            lines += [f"\n## {section}\n", "| | | |", "|---|---|---|"]
            lines += [
                f"| {r.name} | {r.status} | {r.result.replace('|', '/')} |" for r in self.rows if r.section == section
            ]
        return "\n".join(lines) + "\n"


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"a CPU ({os.cpu_count()} cores)"


def require_gpu(setup: Setup) -> None:
    if not setup.cuda:
        raise NotApplicableError("needs a GPU")


def skip_if_quick(setup: Setup) -> None:
    if setup.quick:
        raise NotApplicableError("left out by --quick")


# environment


def versions(setup: Setup) -> str:
    return f"Python {platform.python_version()}, torch {torch.__version__}, {platform.platform()}"


def gpu_details(setup: Setup) -> str:
    require_gpu(setup)
    p = torch.cuda.get_device_properties(setup.device)
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    return (
        f"{torch.cuda.device_count()} x {p.name}, capability {p.major}.{p.minor}, {p.total_memory / 2**30:.0f} GiB, "
        f"driver {driver}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    )


def host_details(setup: Setup) -> str:
    shm = f"{shutil.disk_usage('/dev/shm').total / 2**20:,.0f} MiB" if Path("/dev/shm").is_dir() else "none"
    compiler = shutil.which("gcc") or shutil.which("cc") or "none"
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, /dev/shm {shm}, C compiler {compiler}"


# correctness


def network_and_pair(setup: Setup) -> tuple[nn.Module, Tensor, Tensor]:
    """A network on the CPU in which all weights matter, and a batch of two LR and HR patches."""
    torch.manual_seed(0)
    network = build_model(setup.config).train()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    lr = torch.rand(2, 3, setup.patch, setup.patch)
    return network, lr, F.interpolate(lr, scale_factor=SCALE, mode="bicubic")


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def forward_backward(setup: Setup, device: torch.device, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Output, loss and gradient on a device, as float32 vectors on the CPU."""
    network, lr, hr = network_and_pair(setup)
    network, lr, hr = network.to(device), lr.to(device), hr.to(device)
    tune_convolutions(tf32=False)
    with autocast(device, precision):
        sr = network(lr, SCALE)
        loss = F.l1_loss(sr.float(), hr)
    factor = 1024.0 if precision == "fp16" else 1.0  # small gradients would underflow
    (loss * factor).backward()
    gradient = torch.cat([p.grad.flatten().float() for p in network.parameters() if p.grad is not None]) / factor
    return sr.detach().float().cpu().flatten(), loss.detach().cpu().flatten(), gradient.cpu()


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


def check_against_cpu(setup: Setup, precision: str) -> str:
    if precision == "fp16":
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
    """A learner with fixed initial weights; `how` are fields of Execution."""
    recipe = Recipe(patch_size=setup.patch, batch_size=batch, norm_batch=batch, precision=precision, ema=0.999)
    execution = Execution(**{"compile": False, **how})
    return Learner(setup.config, recipe, execution, processes or Processes(device=setup.device))


def random_patches(setup: Setup, batch: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """A batch for :meth:`Learner.step`."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, setup.patch, setup.patch)
    lr = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return [(lr, lr.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2))]


def weights_after(setup: Setup, learner: Learner, seeds: range) -> Tensor:
    """All weights after a step for each seed, as a vector on the CPU."""
    for seed in seeds:
        learner.step(random_patches(setup, 2, seed), 1e-4)
    if learner.tally()["skipped"]:
        raise ArithmeticError("a step was not finite")
    return torch.cat([p.detach().cpu().flatten() for p in learner.model.parameters()])


def check_resume(setup: Setup) -> str:
    """Compare four steps with two steps, a saved and loaded state, and two more."""
    tune_convolutions(tf32=False, deterministic=True)
    reference = weights_after(setup, make_learner(setup, 2, deterministic=True), range(4))
    first, file = make_learner(setup, 2, deterministic=True), io.BytesIO()
    weights_after(setup, first, range(2))
    torch.save((first.model.state_dict(), first.state_dict()), file)
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
    before = torch.cat([p.detach().cpu().flatten() for p in start.model.parameters()])
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
    return f"{launches} graph launches a step, {counts.get('cudaLaunchKernel', 0)} kernel launches"


def check_processes(setup: Setup) -> str:
    """Train on all GPUs with NCCL, or in two CPU processes with gloo; all must end with the same weights."""
    skip_if_quick(setup)
    count = torch.cuda.device_count() if setup.cuda else 2
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    done = subprocess.run(
        [*command, __file__, "--worker", "--device", setup.device.type], capture_output=True, text=True, timeout=300
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
        low, high = weights.to(processes.device), weights.to(processes.device)
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        if not torch.equal(low, high):
            raise ArithmeticError("the processes' weights differ")
        if processes.is_main:
            print(f"{processes.count} process(es), {dist.get_backend()}: equal weights after three steps")
        if processes.count == 1:
            dist.destroy_process_group()
    return 0


# training


def synchronise(setup: Setup) -> None:
    if setup.cuda:
        torch.cuda.synchronize(setup.device)


def seconds_per_call(setup: Setup, call: Callable[[], object], calls: int, warmup: int = 1) -> float:
    for _ in range(warmup):
        call()
    synchronise(setup)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronise(setup)
    return (time.perf_counter() - start) / calls


def peak_flops(setup: Setup, precision: str) -> float:
    """FLOP/s of a large matrix product, as the attainable peak."""
    n = 8192 if setup.cuda else 256 if setup.quick else 2048
    a = torch.rand(n, n, device=setup.device, dtype=AUTOCAST.get(precision, torch.float32))
    return 2 * n**3 / seconds_per_call(setup, lambda: a @ a, 10, warmup=3)


def profile_steps(setup: Setup, learner: Learner, batch: int, steps: int) -> list:
    """The profiler's averages by event over some training steps."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if setup.cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    patches = random_patches(setup, batch)
    with torch.profiler.profile(activities=activities) as found:
        for _ in range(steps):
            learner.step(patches, 1e-5)
        synchronise(setup)
    return list(found.key_averages())


def measure_training(setup: Setup, batch: int, precision: str, compiled: bool) -> str:
    if compiled:
        skip_if_quick(setup)
    tune_convolutions(tf32=False)
    learner, patches = make_learner(setup, batch, precision, compile=compiled), random_patches(setup, batch)
    warmup = 5 if setup.cuda else 2
    seconds = seconds_per_call(setup, lambda: learner.step(patches, 1e-5), setup.steps, warmup)
    if learner.tally()["skipped"]:
        raise ArithmeticError("a step was not finite")
    pixels = OUTPUT_SIZE[0] // SCALE * (OUTPUT_SIZE[1] // SCALE)
    multi_adds = summarise(setup.config)[-1].multi_adds / pixels * setup.patch**2 * batch
    rate = 3 * 2 * multi_adds / seconds  # the backward pass costs twice the forward pass
    text = f"{batch / seconds:,.1f} images/s, {1e3 * seconds:.1f} ms a step"
    text += f", {rate / peak_flops(setup, precision):.0%} of a matrix product's FLOP/s"
    if not setup.cuda:
        return f"{text}, GPU idle: needs a GPU"
    steps = 5
    busy = sum(e.self_device_time_total for e in profile_steps(setup, learner, batch, steps)) / 1e6 / steps
    memory = torch.cuda.max_memory_allocated(setup.device) / 2**30
    return f"{text}, GPU idle {max(0.0, 1 - busy / seconds):.0%}, peak {memory:.1f} GiB since the start"


def measure_loader(setup: Setup) -> str:
    """Load patches from an h5 file of noise, as training does."""
    batch, count = setup.batches[-1], 2 if setup.quick else 100
    with tempfile.TemporaryDirectory() as folder:
        path, rng, side = Path(folder) / "noise.h5", np.random.default_rng(0), 2 * setup.patch
        with h5py.File(path, "w") as file:
            for i in range(16):
                for group, s in (("HR", SCALE), (f"X{SCALE}", 1)):
                    file[f"{group}/{i}"] = rng.integers(0, 256, (side * s, side * s, 3), dtype=np.uint8)
        patches = PatchDataset(
            H5Pairs(path, (SCALE,)), patch_size=setup.patch, batch_size=batch, length=(count + 10) * batch, seed=0
        )
        batches = iter(DataLoader(patches, batch, num_workers=setup.workers, pin_memory=setup.cuda))
        for _ in range(10):
            next(batches)
        start = time.perf_counter()
        loaded = sum(1 for _ in batches)
    return f"{loaded * batch / (time.perf_counter() - start):,.0f} images/s, {setup.workers} loading processes"


# inference


def inference_network(setup: Setup) -> nn.Module:
    network, *_ = network_and_pair(setup)
    return network.eval().requires_grad_(False).to(setup.device, memory_format=torch.channels_last)


def noise_image(setup: Setup) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (setup.side, setup.side, 3), dtype=np.uint8)


def measure_inference(setup: Setup, mode: str, precision: str) -> str:
    if precision in ("tf32", "fp16"):
        require_gpu(setup)
    enlarger, image = Enlarger(inference_network(setup), mode=Mode(mode), precision=precision), noise_image(setup)
    seconds = seconds_per_call(setup, lambda: enlarger(image), 1 if setup.quick else 3)
    megapixels = (SCALE * setup.side) ** 2 / 1e6
    return (
        f"{megapixels / seconds:.2f} megapixels/s of output, {setup.side}x{setup.side} to {megapixels:.1f} megapixels"
    )


def measure_memory(setup: Setup) -> str:
    """Compare the peak of a forward pass with :func:`bytes_per_pixel`."""
    network, side = inference_network(setup), setup.side
    x = torch.rand(1, 3, side, side, device=setup.device).to(memory_format=torch.channels_last)
    estimate = bytes_per_pixel(network, SCALE) * side**2 / 2**20
    release_memory(setup.device)
    peak = peak_memory_meter(setup.device)
    with torch.inference_mode():
        network(x, SCALE)
    synchronise(setup)
    measured = peak()
    text = f"{measured:,.0f} MiB measured, {estimate:,.0f} MiB estimated"
    if setup.cuda and measured > 1.25 * estimate:
        raise MemoryError(text)
    return text


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


# the report


def run_all(setup: Setup) -> Report:
    """Run every section."""
    report = Report(setup)
    run = report.run
    for name, check in (("versions", versions), ("GPU", gpu_details), ("host", host_details)):
        run("Environment", name, check)
    for precision in TOLERANCES:
        run("Correctness", f"{precision} against the CPU in fp32", check_against_cpu, precision)
    run("Correctness", "gradients with and without cuDNN", check_cudnn)
    run("Correctness", "resumed training", check_resume)
    run("Correctness", "torch.compile", check_compile)
    run("Correctness", "CUDA graphs", check_cuda_graphs)
    run("Correctness", "several processes", check_processes)
    for label, precision, compiled in TRAINING:
        for batch in setup.batches:
            run("Training", f"{label}, batch {batch}", measure_training, batch, precision, compiled)
    run("Training", "loading alone", measure_loader)
    for mode in ("local", "windows", "full"):
        for precision in ("fp32", "tf32", "bf16", "fp16"):
            run("Inference", f"mode {mode}, {precision}", measure_inference, mode, precision)
    run("Memory", "peak of a forward pass in mode full, fp32", measure_memory)
    run("Memory", "smaller tiles if memory runs out", check_out_of_memory)
    return report


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    add("--model", help="preset to measure (default: hrn on a GPU, hrn_light on a CPU)")
    add("--quick", action="store_true", help="a tiny network, and no compilation")
    add(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results",
        help="folder of the report (default: %(default)s)",
    )
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    keep_memory()
    if args.worker:
        return process_worker(args.device)
    setup = make_setup(pick_device(args.device), args.model, args.quick)
    report = run_all(setup)
    name = "gpu_" + re.sub(r"\W+", "_", device_name(setup.device) if setup.cuda else "cpu").strip("_")
    args.out.mkdir(parents=True, exist_ok=True)
    rows = {"device": device_name(setup.device), "quick": args.quick, "rows": [asdict(row) for row in report.rows]}
    write_text(args.out / f"{name}.json", json.dumps(rows, indent=1) + "\n")
    write_text(args.out / f"{name}.md", report.markdown())
    print(report.markdown())
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(run_cli(main))
