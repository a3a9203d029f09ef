"""Quality, time and memory of each inference mode.

    python benchmarks/modes.py dataset/valid.h5 dataset/Set5 dataset/Set14 dataset/B100 dataset/Urban100

The default mode is chosen on the first set: the fastest mode whose mean PSNR-Y is within 0.005 dB of the best one. Each mode
runs in its own process, so that its peak memory is measured separately.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import numpy as np

from benchmarks.timing import machine, worker_output
from hrn.cli import run_cli
from hrn.data.benchmark import find_test_set
from hrn.evaluation.evaluate import evaluate
from hrn.inference.enlarger import Enlarger
from hrn.inference.mode import Mode
from hrn.inference.upscale import load_model
from hrn.memory import keep_memory, peak_memory_meter
from hrn.runtime import pick_device

MODES = [
    Mode("full"), Mode("local", 32), Mode("local", 48), Mode("local", 64), Mode("local", 96),
    Mode("windows", 32, 16), Mode("windows", 48, 16), Mode("windows", 64, 16), Mode("windows", 96, 24),
]  # fmt: skip
TIE = 0.005
"""Largest difference in dB that counts as a tie."""
MAX_IMAGES = {"Urban100": 20}
"""Number of images to use, for large sets."""


def worker(mode: Mode, args: argparse.Namespace) -> None:
    """Print the scores of each image, the seconds of each set and the peak memory as JSON."""
    keep_memory()
    enlarger = Enlarger(load_model(args.ckpt_path, device=args.device), mode=mode)
    enlarger(np.zeros((64, 64, 3), np.uint8))
    peak, sets = peak_memory_meter(enlarger.device), {}
    for path in args.sets:
        test_set = find_test_set(path, enlarger.scale)
        test_set = replace(test_set, images=test_set.images[: MAX_IMAGES.get(test_set.name)])
        for image in test_set.images[:2]:
            enlarger(image.load(enlarger.scale).lr)
        results = [result.without_images() for result in evaluate(enlarger, test_set)]
        scores = [(result.scores["psnr_y"], result.scores["ssim_y"]) for result in results]
        sets[f"{test_set.name} ({len(scores)})"] = (scores, sum(result.seconds for result in results))
    print(json.dumps({"sets": sets, "mib": peak()}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", help="test sets; the first one decides")
    parser.add_argument("--ckpt_path", default="hrn_light_x4", help="checkpoint file or name (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: %(default)s)")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        worker(MODES[args.worker], args)
        return 0
    print(f"{args.ckpt_path}, {machine(pick_device(args.device))}\n")
    results = []
    for i, mode in enumerate(MODES):
        output = worker_output(__file__, [*sys.argv[1:], "--worker", str(i)])
        results.append(json.loads(output.splitlines()[-1]))
        if i == 0:
            print("| mode | " + " | ".join(f"{name} | s" for name in results[0]["sets"]) + " | peak MiB above start |")
            print("|---" * (2 + 2 * len(results[0]["sets"])) + "|")
        cells = []
        for scores, seconds in results[-1]["sets"].values():
            psnr, ssim = np.mean(scores, axis=0)
            cells.append(f"{psnr:.3f} / {ssim:.4f} | {seconds:.2f}")
        print(f"| {mode} | " + " | ".join(cells) + f" | {results[-1]['mib']:.0f} |", flush=True)
    print(f"\n{conclusion(results)}")
    return 0


def conclusion(results: list[dict]) -> str:
    """State the mode chosen on the first set."""
    name = next(iter(results[0]["sets"]))
    psnr = [float(np.mean([p for p, _ in result["sets"][name][0]])) for result in results]
    seconds = [result["sets"][name][1] for result in results]
    best = max(range(len(MODES)), key=psnr.__getitem__)
    equal = [i for i in range(len(MODES)) if psnr[i] >= psnr[best] - TIE]
    chosen = min(equal, key=seconds.__getitem__)
    return (
        f"Best on {name}: {MODES[best]}. Fastest within {TIE} dB: {MODES[chosen]}, "
        f"{psnr[best] - psnr[chosen]:.4f} dB lower in {seconds[chosen] / seconds[best]:.2f} of the time."
    )


if __name__ == "__main__":
    sys.exit(run_cli(main))
