"""Training speed and memory by setting, and whether loading keeps up.

    python benchmarks/training.py dataset/DIV2K_train.h5 --model hrn_light --scale 4

Each setting runs in its own process, so that memory is measured separately. The processes take their steps in turn, so that
other load on the machine affects all settings equally.
"""

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch
from torch.utils.data import default_collate

from benchmarks.timing import machine, synchronise
from hrn.cli import run_cli
from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.memory import keep_memory, peak_memory
from hrn.model import PRESETS, preset
from hrn.runtime import pick_device, tune_convolutions, warm_up_kernels
from hrn.training.learner import Learner
from hrn.training.recipe import Execution, Recipe


@dataclass(frozen=True)
class Setting:
    """A way to compute a step."""

    label: str
    """Row label in the table."""
    precision: str = "fp32"
    """Precision of the convolutions."""
    channels_last: bool = False
    """Whether features are in channels_last memory."""
    compile: bool = False
    """Whether the network is compiled."""
    tuned: bool = True
    """Whether freed memory is kept, Adam is fused, and GPUs use TF32 and search for the fastest convolutions."""


SETTINGS = (
    Setting("plain: IEEE fp32, NCHW, eager", tuned=False),
    Setting("+ memory kept, fused Adam, TF32 on GPUs"),
    Setting("+ channels_last", channels_last=True),
    Setting("+ compile, NCHW", compile=True),
    Setting("+ compile, channels_last", channels_last=True, compile=True),
    Setting("bf16, NCHW", precision="bf16"),
    Setting("bf16, channels_last", precision="bf16", channels_last=True),
    Setting("bf16, NCHW, compile", precision="bf16", compile=True),
    Setting("bf16, channels_last, compile", precision="bf16", channels_last=True, compile=True),
)


def worker(setting: Setting, args: argparse.Namespace) -> None:
    """Take a step for each line on stdin and print its seconds. At the end, print the peak memory in MiB."""
    if setting.tuned:
        keep_memory()
        tune_convolutions(tf32=True)
    else:
        torch.backends.cudnn.allow_tf32 = False
    warm_up_kernels()
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
    if not setting.tuned:
        learner.optimizer = torch.optim.Adam(learner.parameters, lr=recipe.lr)
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
    assert learner.pop_metrics()["skipped"] == 0
    print(peak_memory(device) / 2**20, flush=True)


def step_table(args: argparse.Namespace) -> tuple[str, float]:
    """Return a Markdown table of all settings, and the images per second of the fastest."""
    processes = []
    for i in range(len(SETTINGS)):
        command = [sys.executable, __file__, *sys.argv[1:], "--setting", str(i)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdout.readline().strip() != "ready":  # started one after another, as compiling uses all cores
            raise HRNError(f"{SETTINGS[i].label}: failed, see above")
        processes.append(process)
    seconds: list[list[float]] = [[] for _ in processes]
    for _ in range(args.rounds):
        for process, times in zip(processes, seconds, strict=True):
            process.stdin.write("\n")
            process.stdin.flush()
            times.append(float(process.stdout.readline()))
    medians = [statistics.median(times) for times in seconds]
    lines = ["| setting | ms per step | images/s | times plain | peak MiB |\n|---|---|---|---|---|"]
    for setting, median, process in zip(SETTINGS, medians, processes, strict=True):
        peak = float(process.communicate()[0])
        lines.append(
            f"| {setting.label} | {median * 1e3:.0f} | {args.batch_size / median:.1f} | {medians[0] / median:.2f} | {peak:,.0f} |"
        )
    return "\n".join(lines), args.batch_size / min(medians)


def loaded_per_second(args: argparse.Namespace) -> float:
    """Return the number of patches per second that one process loads, augments and collates."""
    pairs = H5Pairs(args.path, (args.scale,))
    dataset = PatchDataset(pairs, patch_size=args.patch_size, batch_size=args.batch_size, length=10**9, seed=0)
    size, batches = args.batch_size, 60
    for i in range(0, 10 * size, size):
        default_collate([dataset[j] for j in range(i, i + size)])
    start = time.perf_counter()
    for i in range(0, batches * size, size):
        default_collate([dataset[j] for j in range(i, i + size)])
    return batches * size / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="h5 file of training pairs")
    parser.add_argument("--model", default="hrn_light", choices=PRESETS, help="network preset (default: %(default)s)")
    parser.add_argument("--scale", type=int, default=4, help="enlargement factor (default: %(default)s)")
    parser.add_argument("--patch_size", type=int, default=48, help="side of an LR patch (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=16, help="patches per step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="timed steps of each setting (default: %(default)s)")
    parser.add_argument("--setting", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.setting is not None:
        return worker(SETTINGS[args.setting], args)
    table, computed = step_table(args)
    print(
        f"{args.model} x{args.scale}, {args.batch_size} LR patches of {args.patch_size} per step, {machine(pick_device())}\n\n{table}\n"
    )
    loaded = loaded_per_second(args)
    slower = "computing" if computed < loaded else "loading"
    print(
        f"One process loads {loaded:.0f} patches/s, and the fastest setting computes {computed:.0f}: {slower} is the bottleneck."
    )
    return None


if __name__ == "__main__":
    sys.exit(run_cli(main))
