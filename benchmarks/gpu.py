"""Check HRN on a GPU and measure its speed, in one command. Most of the time is spent compiling.

    python benchmarks/gpu.py                     writes benchmarks/results/gpu_DEVICE.md and .json
    python benchmarks/gpu.py --quick             a tiny network, in seconds, to test this script

Prints a Markdown report to paste into an issue. A failed check becomes a row of the report and does not stop the others; the
exit code is then 1. Without a GPU everything that a CPU can do runs in a smaller size. Weights are random and images are
noise: speed does not depend on them.
"""

import argparse
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
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import h5py
import numpy as np
import torch
from torch.autograd import DeviceType
from torch.utils.data import DataLoader

from benchmarks.gpu_checks import (
    SCALE,
    TOLERANCES,
    NotApplicableError,
    Setup,
    check_against_cpu,
    check_compile,
    check_cuda_graphs,
    check_cudnn,
    check_out_of_memory,
    check_processes,
    check_resume,
    inference_network,
    make_learner,
    make_setup,
    noise_image,
    process_worker,
    profile_steps,
    random_patches,
    require_gpu,
    skip_if_quick,
    synchronise,
)  # fmt: skip
from hrn.cli import run_cli
from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.data.resident import ResidentPatches
from hrn.errors import HRNError
from hrn.files import write_text
from hrn.inference.enlarger import Enlarger
from hrn.inference.memory import bytes_per_pixel
from hrn.inference.mode import Mode
from hrn.memory import keep_memory, peak_memory_meter, release_memory
from hrn.model import PRESETS
from hrn.model.summary import OUTPUT_SIZE, summarise
from hrn.runtime import PRECISIONS, UnsupportedPrecisionError, pick_device, tune_convolutions

TRAINING = (("fp32 eager", "fp32", False), ("bf16 eager", "bf16", False), ("bf16 compiled", "bf16", True))
"""Label, precision, and whether the network is compiled."""


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
            release_memory(self.setup.device)
            row = Row(section, name, "ok", check(self.setup, *args))
        except (NotApplicableError, UnsupportedPrecisionError) as error:
            row = Row(section, name, "not run", str(error))
        except Exception as error:  # a report with a failed row is worth more than none
            first = (str(error).splitlines() or [""])[0]
            row = Row(section, name, "failed", f"{type(error).__name__}: {first}")
        self.rows.append(row)
        print(f"{section}: {name}: {row.status}: {row.result}", file=sys.stderr, flush=True)

    @property
    def failed(self) -> bool:
        return any(row.status == "failed" for row in self.rows)

    def markdown(self) -> str:
        """Return the report, a table for each section."""
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


# training


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
    a = torch.rand(n, n, device=setup.device, dtype=PRECISIONS[precision] or torch.float32)
    return 2 * n**3 / seconds_per_call(setup, lambda: a @ a, 10, warmup=3)


def device_seconds(events: list) -> float:
    """Sum of the kernels' durations. Operators repeat the time of the kernels that they launch, so they are left out."""
    kernels = [e for e in events if e.device_type != DeviceType.CPU and not e.is_user_annotation]
    return sum(e.self_device_time_total for e in kernels) / 1e6


def measure_training(setup: Setup, batch: int, precision: str, compiled: bool) -> str:
    if compiled:
        skip_if_quick(setup)
    tune_convolutions(tf32=False)
    peak = peak_memory_meter(setup.device)
    learner, patches = make_learner(setup, batch, precision, compile=compiled), random_patches(setup, batch)
    warmup = 5 if setup.cuda else 2
    seconds = seconds_per_call(setup, lambda: learner.step(patches, 1e-5), setup.steps, warmup)
    memory = peak()
    if learner.pop_metrics()["skipped"]:
        raise ArithmeticError("a step was not finite")
    pixels = OUTPUT_SIZE[0] // SCALE * (OUTPUT_SIZE[1] // SCALE)
    multi_adds = summarise(setup.config)[-1].multi_adds / pixels * setup.patch**2 * batch
    rate = 3 * 2 * multi_adds / seconds  # the backward pass costs twice the forward pass
    text = f"{batch / seconds:,.1f} images/s, {1e3 * seconds:.1f} ms per step"
    text += f", {rate / peak_flops(setup, precision):.0%} of a matrix product's FLOP/s"
    if not setup.cuda:
        return f"{text}, GPU idle: needs a GPU"
    steps = 5
    busy = device_seconds(profile_steps(setup, learner, batch, steps)) / steps
    return f"{text}, GPU idle {max(0.0, 1 - busy / seconds):.0%}, {memory / 1024:.1f} GiB"


def measure_loader(setup: Setup, resident: bool) -> str:
    """Load patches from an h5 file of noise, as training does: by DataLoader workers, or from images on the device."""
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
        if resident:
            images = ResidentPatches(patches, setup.device)
            batches = (images.batch(range(i, i + batch)) for i in range(0, len(patches), batch))
        else:
            batches = iter(DataLoader(patches, batch, num_workers=setup.workers, pin_memory=setup.cuda))
        for _ in range(10):
            next(batches)
        start = time.perf_counter()
        loaded = sum(1 for _ in batches)
        synchronise(setup)
        seconds = time.perf_counter() - start
    source = "images on the device" if resident else f"{setup.workers} DataLoader workers"
    return f"{loaded * batch / seconds:,.0f} images/s, {source}"


# inference


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
    run("Correctness", "NCCL on all GPUs" if setup.cuda else "two processes, gloo", check_processes)
    for label, precision, compiled in TRAINING:
        for batch in setup.batches:
            run("Training", f"{label}, batch {batch}", measure_training, batch, precision, compiled)
    for name, resident in (("loading alone", False), ("loading alone, --data_on_gpu", True)):
        run("Training", name, measure_loader, resident)
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
    add("--model", choices=PRESETS, help="preset to measure (default: hrn on a GPU, hrn_light on a CPU)")
    add("--quick", action="store_true", help="a tiny network, and no compilation")
    add(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results",
        help="folder of the report (default: %(default)s)",
    )
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.quick and args.model:
        parser.error("--model has no effect with --quick")
    keep_memory()
    if args.worker:
        return process_worker(args.device)
    if args.out.exists() and not args.out.is_dir():
        raise HRNError(f"--out {args.out} is not a folder")
    setup = make_setup(pick_device(args.device), args.model, args.quick)
    report = run_all(setup)
    name = "gpu_" + re.sub(r"\W+", "_", device_name(setup.device) if setup.cuda else "cpu").strip("_")
    print(report.markdown())
    rows = {"device": device_name(setup.device), "quick": args.quick, "rows": [asdict(row) for row in report.rows]}
    write_text(args.out / f"{name}.json", json.dumps(rows, indent=1) + "\n")
    write_text(args.out / f"{name}.md", report.markdown())
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(run_cli(main))
