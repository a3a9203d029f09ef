"""What each mode of enlarging brings and costs, on validation and test images.

    python benchmarks/modes.py dataset/valid.h5 dataset/Set5 dataset/Set14 dataset/B100 dataset/Urban100

The first set chooses: the winner is the quickest mode of those whose mean PSNR-Y there is the best one, but for what a
table of two decimals does not show. Each mode is a process of its own, so that its peak of memory is its own.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from benchmarks.timing import machine
from hrn.cli import run_cli
from hrn.data.benchmark import find_test_set
from hrn.evaluation.evaluate import evaluate
from hrn.inference.enlarger import Enlarger, Mode
from hrn.inference.upscale import load_model
from hrn.runtime import keep_memory, peak_memory_meter, pick_device

MODES = [
    Mode("full"), Mode("local", 32), Mode("local", 48), Mode("local", 64), Mode("local", 96),
    Mode("windows", 32, 16), Mode("windows", 48, 16), Mode("windows", 64, 16), Mode("windows", 96, 24),
]  # fmt: skip
TIE = 0.005
"""dB."""
MOST_IMAGES = {"Urban100": 20}
"""Large sets are cut to their first images."""


def worker(mode: Mode, args: argparse.Namespace) -> None:
    """Print the scores of each image of each set, their seconds, and the peak of memory, as JSON."""
    keep_memory()
    network = load_model(args.ckpt_path, device=args.device)
    device = next(network.parameters()).device
    enlarger = Enlarger(network, mode=mode)
    enlarger(np.zeros((64, 64, 3), np.uint8))
    peak, sets = peak_memory_meter(device), {}
    for path in args.sets:
        test_set = find_test_set(path, enlarger.scale)
        test_set = replace(test_set, images=test_set.images[: MOST_IMAGES.get(test_set.name)])
        for image in test_set.images[:2]:
            enlarger(image.load(enlarger.scale).lr)
        results = list(r.without_images() for r in evaluate(enlarger, test_set))
        scores = [(r.scores["psnr_y"], r.scores["ssim_y"]) for r in results]
        sets[f"{test_set.name} ({len(scores)})"] = (scores, sum(r.seconds for r in results))
    print(json.dumps({"sets": sets, "mib": peak()}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="test sets; the first one chooses")
    parser.add_argument("--ckpt_path", default="hrn_light_x4", help="a checkpoint or a name (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        worker(MODES[args.worker], args)
        return 0
    print(f"{args.ckpt_path}, {machine(pick_device(args.device))}\n")
    found = []
    for i, mode in enumerate(MODES):
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(i)]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found.append(json.loads(told.splitlines()[-1]))
        if i == 0:
            print("| mode | " + " | ".join(f"{name} | s" for name in found[0]["sets"]) + " | peak MiB over start |")
            print("|---" * (2 + 2 * len(found[0]["sets"])) + "|")
        cells = []
        for scores, seconds in found[-1]["sets"].values():
            psnr, ssim = np.mean(scores, axis=0)
            cells.append(f"{psnr:.3f} / {ssim:.4f} | {seconds:.2f}")
        print(f"| {mode} | " + " | ".join(cells) + f" | {found[-1]['mib']:.0f} |", flush=True)
    print(f"\n{verdict(found)}")
    return 0


def verdict(found: list[dict]) -> str:
    """Which mode the first set chooses, and why."""
    name = next(iter(found[0]["sets"]))
    psnr = [float(np.mean([p for p, _ in f["sets"][name][0]])) for f in found]
    seconds = [f["sets"][name][1] for f in found]
    best = max(range(len(MODES)), key=psnr.__getitem__)
    equal = [i for i in range(len(MODES)) if psnr[i] >= psnr[best] - TIE]
    winner = min(equal, key=seconds.__getitem__)
    return (
        f"Best on {name}: {MODES[best]}. Within {TIE} dB of it and quickest: {MODES[winner]}, "
        f"{psnr[best] - psnr[winner]:.4f} dB behind in {seconds[winner] / seconds[best]:.2f} of its time."
    )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    sys.exit(run_cli(main))
