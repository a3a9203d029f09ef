"""What makes a training step fast, and whether loading keeps up.

    python benchmarks/training.py dataset/DIV2K_train.h5 --model hrn_light --scale 4

Each setting is a process of its own, so that its memory is its own; they take their steps in turn, so that slow moments
of the machine hit all of them alike.
"""

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from torch.utils.data import default_collate

from benchmarks.loading import loading_table
from benchmarks.timing import machine, synchronise
from hrn.cli import run_cli
from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.distributed import Processes
from hrn.model import PRESETS, preset
from hrn.runtime import keep_memory, peak_memory, pick_device, tune_convolutions
from hrn.training.learner import Learner
from hrn.training.recipe import OPTIMIZERS, Execution, Recipe


@dataclass(frozen=True)
class Setting:
    """A way to compute a step."""

    label: str
    precision: str = "fp32"
    channels_last: bool = False
    compile: bool = False
    fused: bool = True
    kept: bool = True
    """Whether freed memory is kept (hrn.runtime.keep_memory)."""


SETTINGS = (
    Setting("plain: fp32, NCHW, eager", fused=False, kept=False),
    Setting("+ memory kept, fused Adam"),
    Setting("+ channels_last", channels_last=True),
    Setting("+ compile, NCHW", compile=True),
    Setting("+ compile, channels_last", channels_last=True, compile=True),
    Setting("bf16, NCHW", precision="bf16"),
    Setting("bf16, channels_last", precision="bf16", channels_last=True),
    Setting("bf16, NCHW, compile", precision="bf16", compile=True),
    Setting("bf16, channels_last, compile", precision="bf16", channels_last=True, compile=True),
)


def worker(setting: Setting, args: argparse.Namespace) -> None:
    """Take a step for each line on stdin and print its seconds; at the end, the peak of memory in MiB."""
    if setting.kept:
        keep_memory()
    tune_convolutions(tf32=True)
    device = pick_device()
    recipe = Recipe(
        patch_size=args.patch_size,
        batch_size=args.batch_size,
        norm_batch=args.batch_size,
        precision=setting.precision,
        ema=0.999,
    )
    execution = Execution(channels_last=setting.channels_last, compile=setting.compile)
    learner = Learner(preset(args.model, [args.scale]), recipe, execution, Processes(device=device))
    if not setting.fused:
        learner.optimizer = OPTIMIZERS["adam"](learner.parameters, lr=recipe.lr)
        learner.optimizer.register_step_pre_hook(lambda optimizer, *_: delattr(optimizer, "found_inf"))
    lr_patch = torch.randint(0, 256, (args.batch_size, 3, args.patch_size, args.patch_size), dtype=torch.uint8)
    hr_patch = lr_patch.repeat_interleave(args.scale, -1).repeat_interleave(args.scale, -2)
    for _ in range(3):
        learner.step([(lr_patch, hr_patch)], 1e-5)
    synchronise()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        learner.step([(lr_patch, hr_patch)], 1e-5)
        synchronise()
        print(time.perf_counter() - start, flush=True)
    assert learner.tally()["skipped"] == 0
    print(peak_memory(device) / 2**20, flush=True)


def step_table(args: argparse.Namespace) -> tuple[str, float]:
    """The settings side by side, as Markdown, and the images per second of the fastest."""
    processes = []
    for i in range(len(SETTINGS)):
        command = [sys.executable, __file__, *sys.argv[1:], "--setting", str(i)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if process.stdout.readline().strip() != "ready":  # one after the other: compiling takes all cores
            raise SystemExit(f"{SETTINGS[i].label}: failed")
        processes.append(process)
    seconds: list[list[float]] = [[] for _ in processes]
    for _ in range(args.rounds):
        for process, times in zip(processes, seconds, strict=True):
            process.stdin.write("\n")
            process.stdin.flush()
            times.append(float(process.stdout.readline()))
    medians = [statistics.median(times) for times in seconds]
    lines = ["| setting | ms a step | images/s | times plain | peak MiB |\n|---|---|---|---|---|"]
    for setting, median, process in zip(SETTINGS, medians, processes, strict=True):
        peak = float(process.communicate()[0])
        lines.append(
            f"| {setting.label} | {median * 1e3:.0f} | {args.batch_size / median:.1f} | {medians[0] / median:.2f} | {peak:,.0f} |"
        )
    return "\n".join(lines), args.batch_size / min(medians)


def loaded_per_second(args: argparse.Namespace, batches: int = 60) -> float:
    """Patches that one process loads, augments and collates in a second."""
    pairs = H5Pairs(args.path, (args.scale,))
    dataset = PatchDataset(pairs, patch_size=args.patch_size, batch_size=args.batch_size, length=10**9, seed=0)
    size = args.batch_size
    for i in range(0, 10 * size, size):
        default_collate([dataset[j] for j in range(i, i + size)])
    start = time.perf_counter()
    for i in range(0, batches * size, size):
        default_collate([dataset[j] for j in range(i, i + size)])
    return batches * size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--model", default="hrn_light", choices=PRESETS)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--patch_size", type=int, default=48)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--setting", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.setting is not None:
        return worker(SETTINGS[args.setting], args)
    print(loading_table(args.path, args.scale, args.patch_size), flush=True)
    table, computed = step_table(args)
    print(
        f"\n{args.model} x{args.scale}, {args.batch_size} LR patches of {args.patch_size} a step, {machine(pick_device())}\n\n{table}\n"
    )
    loaded = loaded_per_second(args)
    binds = "computing" if computed < loaded else "loading"
    print(f"One process loads {loaded:.0f} patches/s; the fastest setting computes {computed:.0f}: {binds} binds.")
    return None


if __name__ == "__main__":
    sys.exit(run_cli(main))
