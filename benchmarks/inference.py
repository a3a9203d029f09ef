"""Inference speed and memory.

    python benchmarks/inference.py                          all tables; takes some minutes
    python benchmarks/inference.py --tables elu steps       optimisations of the forward pass of hrn_light
    python benchmarks/inference.py --tables presets large   each preset and mode, and large images

Most timings run in a process of their own. Timings that are compared run in turn, several times, so that other load affects
all of them alike. Networks have untrained weights, which does not affect speed.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import machine, median_seconds, paired_seconds, seconds_of, worker_output
from hrn.cli import run_cli
from hrn.inference.enlarge_file import Job, enlarge_file
from hrn.inference.enlarger import Enlarger
from hrn.inference.local import make_local
from hrn.inference.mode import Mode
from hrn.memory import keep_memory, parse_memory, peak_memory_meter
from hrn.model import build_model, preset
from hrn.model.attention import CoordinateAttention
from hrn.model.blocks import WRAB
from hrn.model.pointwise import Fusion
from hrn.model.summary import OUTPUT_SIZE, summarise
from hrn.runtime import inference_convolutions, pick_device, warm_up_kernels

SCALE = 4
SIDES = (128, 256, 512)
PRESET_SIDE = 256
"""Side of the LR image in the table of presets."""
ROUNDS = 3
MEGAPIXELS = (0.25, 1, 4, 16, 24)
PRESETS_AND_MODES = [
    ("hrn_light", "local"), ("hrn_light", "full"), ("hrn_light", "windows"),
    ("hrn_base", "local"), ("hrn_base", "full"), ("hrn_base", "windows"),
    ("hrn", "local"), ("hrn", "full"), ("hrn", "windows"),
    ("hrn_released", "full"), ("hrn_released", "windows"),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {
        "elu": elu_table, "steps": steps_table, "shares": shares_table, "presets": presets_table, "large": large_table,
    }  # fmt: skip
    parser.add_argument(
        "--tables", nargs="+", default=list(tables), choices=tables, help="tables to print (default: all)"
    )
    parser.add_argument("--max_memory", default="2G", help="memory budget of table large (default: %(default)s)")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        WORKERS[args.worker[0]](*args.worker[1:])
        return
    for name in args.tables:
        print(f"x{SCALE}, {machine(pick_device() if name == 'presets' else 'cpu')}\n")
        tables[name](args)
        print(flush=True)


# optimisations of the forward pass


def elu_table(args: argparse.Namespace) -> None:
    """Measure the effect of `warm_up_kernels` in a fresh process."""
    print("| hrn_light at 256x256 | ms, fresh process | ms, warm_up_kernels | ratio |")
    print("|---|---|---|---|")
    times: dict[str, list[list[float]]] = {"no": [], "yes": []}
    for _ in range(ROUNDS):
        for warm, rounds in times.items():
            rounds.append([float(seconds) for seconds in run_worker("elu", warm)])
    fresh, warm = (np.median(rounds, axis=0) for rounds in times.values())
    for i, label in enumerate(("forward pass, mode full", "F.elu of (1, 48, 256, 256)")):
        print(f"| {label} | {1e3 * fresh[i]:.1f} | {1e3 * warm[i]:.1f} | {fresh[i] / warm[i]:.2f} |")


def elu_worker(warm: str) -> None:
    keep_memory()
    if warm == "yes":
        warm_up_kernels()
    network = light().to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, 256, 256)
    features = torch.randn(1, 48, 256, 256).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        print(median_seconds(lambda: network(x)), median_seconds(lambda: F.elu(features, inplace=True)))


def steps_table(args: argparse.Namespace) -> None:
    """Measure the network as its formulas are written, in NCHW, and each optimisation added in turn."""
    steps = {
        "plain": "as the formulas are written, NCHW",
        "kept": "+ freed memory kept",
        "network": "+ no concatenations, ELU in place, channels_last",
        "bf16": "+ bf16",
    }
    print("| hrn_light, full | " + " | ".join(f"ms at {s}x{s} | times plain" for s in SIDES) + " |")
    print("|---" * (1 + 2 * len(SIDES)) + "|")
    times = {(step, side): [] for step in steps for side in SIDES}
    for _ in range(ROUNDS):
        for step, side in times:
            times[step, side].append(float(run_worker("step", step, str(side))[0]))
    found = {key: statistics.median(values) for key, values in times.items()}
    for step, label in steps.items():
        cells = [f"{1e3 * found[step, s]:.0f} | {found['plain', s] / found[step, s]:.2f}" for s in SIDES]
        print(f"| {label} | " + " | ".join(cells) + " |")
    x = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        difference = (written_out(light())(x) - light().to(memory_format=torch.channels_last)(x)).abs().max()
    print(f"\nLargest difference between the plain and the optimised network in fp32: {difference:.1e}.")


def light() -> nn.Module:
    """hrn_light with random weights, none of which are zero."""
    torch.manual_seed(0)
    network = build_model(preset("hrn_light", [SCALE])).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return network


def written_out(network: nn.Module) -> nn.Module:
    """Replace the optimised modules by direct implementations of their formulas."""

    def fuse(self: Fusion, maps: list[Tensor]) -> Tensor:
        return F.conv2d(torch.cat(maps, dim=1), self.weight, self.bias)

    def attend(self: CoordinateAttention, x: Tensor) -> Tensor:
        rows, columns = x.mean(dim=3, keepdim=True), x.mean(dim=2, keepdim=True).mT
        y_h, y_w = self.normalise(self.squeeze(torch.cat([rows, columns], dim=2))).split(x.shape[-2:], dim=2)
        return x * torch.sigmoid(self.gate_h(y_h)) * torch.sigmoid(self.gate_w(y_w)).mT

    def widen(self: WRAB, x: Tensor) -> Tensor:
        return x + self.attention(self.narrow(F.elu(self.widen(x))))

    for module in network.modules():
        for kind, forward in ((Fusion, fuse), (CoordinateAttention, attend), (WRAB, widen)):
            if isinstance(module, kind):
                module.forward = partial(forward, module)
    return network


def step_worker(step: str, side: str) -> None:
    warm_up_kernels()
    if step != "plain":
        keep_memory()
    network = light()
    network = written_out(network) if step in ("plain", "kept") else network.to(memory_format=torch.channels_last)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=step == "bf16")

    x = torch.rand(1, 3, int(side), int(side))
    with torch.inference_mode(), autocast:
        print(median_seconds(lambda: network(x)))


# profile


def shares_table(args: argparse.Namespace) -> None:
    """Time shares of the operators, from PyTorch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    keep_memory()
    warm_up_kernels()
    network = light().to(memory_format=torch.channels_last)
    print("| hrn_light at 256x256 | convolutions | next |")
    print("|---|---|---|")
    for mode, net in (("local", make_local(network, Mode.window)), ("full", network)):
        x = torch.rand(1, 3, 256, 256)
        with torch.inference_mode():
            for _ in range(3):
                net(x)
            with profile(activities=[ProfilerActivity.CPU]) as found:
                for _ in range(5):
                    net(x)
        times = {e.key.removeprefix("aten::"): e.self_cpu_time_total for e in found.key_averages()}
        total = sum(times.values())
        convolutions = sum(t for key, t in times.items() if "conv" in key)
        others = sorted(((t, key) for key, t in times.items() if "conv" not in key), reverse=True)[:6]
        rest = ", ".join(f"{key} {t / total:.1%}" for t, key in others)
        print(f"| {mode} | {convolutions / total:.1%} | {rest} |")


# presets and modes


def presets_table(args: argparse.Namespace) -> None:
    peak = matrix_product_peak()
    print(f"Fastest matrix product (2048, float32): {peak / 1e9:.0f} G Multi-Adds/s.\n")
    print(
        "| preset | mode | LR | parameters | Multi-Adds | s | ns per output pixel | peak MiB above start | G Multi-Adds/s | of the matrix product |"
    )
    print("|---" * 10 + "|")
    for name, mode in PRESETS_AND_MODES:
        cost = summarise(preset(name, [SCALE]))[-1]
        per_pixel = cost.multi_adds / (OUTPUT_SIZE[0] // SCALE * (OUTPUT_SIZE[1] // SCALE))
        seconds, mib = (float(value) for value in run_worker("preset", name, mode, str(PRESET_SIDE)))
        work = per_pixel * PRESET_SIDE**2
        print(
            f"| {name} | {mode} | {PRESET_SIDE}x{PRESET_SIDE} | {cost.parameters:,} | {work / 1e9:.1f} G | {seconds:.3f} "
            f"| {seconds / (PRESET_SIDE * SCALE) ** 2 * 1e9:.0f} | {mib:,.0f} | {work / seconds / 1e9:.0f} | {work / seconds / peak:.0%} |",
            flush=True,
        )
    print("\nMulti-Adds are counted for the whole image; overlapping windows compute more.")


def matrix_product_peak() -> float:
    """Multi-Adds per second of the fastest of three matrix products: PyTorch, NumPy, and a 1x1 convolution."""
    n, device = 2048, pick_device()
    a, b = torch.rand(n, n, device=device), np.ones((n, n), np.float32)
    x = torch.rand(1, n, 32, n // 32, device=device).to(memory_format=torch.channels_last)
    with torch.inference_mode(), inference_convolutions(device, tf32=False):
        products = (lambda: a @ a, lambda: b @ b, lambda: F.conv2d(x, a[..., None, None]))
        return n**3 / min(paired_seconds(*products, rounds=5))


def preset_worker(name: str, mode: str, side: str) -> None:
    keep_memory()
    device = pick_device()
    enlarger = Enlarger(
        build_model(preset(name, [SCALE])).eval().to(device, memory_format=torch.channels_last), mode=Mode(mode)
    )
    enlarger(np.zeros((64, 64, 3), np.uint8))
    peak = peak_memory_meter(device)
    image = np.random.default_rng(0).integers(0, 256, (int(side), int(side), 3), dtype=np.uint8)
    print(median_seconds(lambda: enlarger(image)), peak())


# large images


def large_table(args: argparse.Namespace) -> None:
    print(f"hrn_light, --max_memory {args.max_memory}, from a PNG to a PNG:\n")
    print(
        "| megapixels | from | to | s to enlarge | ns per LR pixel | s with reading and writing | peak MiB above start |"
    )
    print("|---" * 7 + "|")
    for megapixels in MEGAPIXELS:
        w, h, alone, whole, mib = (float(value) for value in run_worker("large", str(megapixels), args.max_memory))
        print(
            f"| {megapixels} | {w:.0f}x{h:.0f} | {w * SCALE:.0f}x{h * SCALE:.0f} | {alone:.1f} "
            f"| {alone / (w * h) * 1e9:.0f} | {whole:.1f} | {mib:,.0f} |",
            flush=True,
        )


def large_worker(megapixels: str, memory: str) -> None:
    from PIL import Image

    keep_memory()
    height = round((float(megapixels) * 1e6 / 1.5) ** 0.5)
    width = round(1.5 * height)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    scene = np.stack([127 + 60 * np.sin(x / 7 + i) + 60 * np.sin(y / 11 - i) for i in range(3)], -1).astype(np.uint8)
    scene ^= np.random.default_rng(0).integers(0, 8, scene.shape, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder) / "in.png", Path(folder) / "out.png")
        Image.fromarray(scene).save(job.source, compress_level=1)
        del scene, x, y
        print(width, height, *run_worker("job", str(job.source), str(job.target), memory))


class TimedEnlarger(Enlarger):
    """Measures the time spent in `strips`, without reading and writing."""

    seconds = 0.0

    def strips(self, lr: np.ndarray) -> Iterator[np.ndarray]:
        strips = super().strips(lr)
        while True:
            before = time.perf_counter()
            strip = next(strips, None)
            self.seconds += time.perf_counter() - before
            if strip is None:
                return
            yield strip


def job_worker(source: str, target: str, memory: str) -> None:
    """Run in a separate process, so that the peak does not include making the image."""
    keep_memory()
    enlarger = TimedEnlarger(light().to(memory_format=torch.channels_last), max_memory=parse_memory(memory))
    enlarger(np.zeros((64, 64, 3), np.uint8))
    enlarger.seconds = 0.0
    peak = peak_memory_meter(torch.device("cpu"))
    whole = seconds_of(lambda: enlarge_file(Job(Path(source), Path(target)), enlarger))
    print(enlarger.seconds, whole, peak())


# processes


WORKERS: dict[str, Callable[..., None]] = {
    "elu": elu_worker, "step": step_worker, "preset": preset_worker, "large": large_worker, "job": job_worker,
}  # fmt: skip


def run_worker(*args: str) -> list[str]:
    """Run a worker in a fresh process and split its output."""
    return worker_output(__file__, ["--worker", *args]).split()


if __name__ == "__main__":
    sys.exit(run_cli(main))
