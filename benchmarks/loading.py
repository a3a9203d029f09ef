"""Reading patches from the h5 file on demand, compared with all images in memory as in the released code.

    python benchmarks/loading.py dataset/DIV2K_train.h5 --scale 4

Each method runs in its own process, so that resident memory is measured separately.
"""

import argparse
import random
import sys
import time
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import h5py
import numpy as np
import torch

from benchmarks.timing import worker_output
from hrn.cli import run_cli
from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.memory import peak_memory

CPU = torch.device("cpu")


class InMemory:
    """All images of the file as arrays, with crops, flips and rotations by numpy, as in the released code."""

    def __init__(self, path: Path, scale: int, patch_size: int) -> None:
        with h5py.File(path, "r") as file:
            self.hr = [file["HR"][key][:] for key in file["HR"]]
            self.lr = [file[f"X{scale}"][key][:] for key in file["HR"]]
        self.scale, self.p = scale, patch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        hr, lr = self.hr[index % len(self.hr)], self.lr[index % len(self.hr)]
        p, s = self.p, self.scale
        y, x = random.randint(0, lr.shape[0] - p), random.randint(0, lr.shape[1] - p)
        pair = lr[y : y + p, x : x + p], hr[y * s : (y + p) * s, x * s : (x + p) * s]
        up, left, turns = random.random() < 0.5, random.random() < 0.5, random.randint(0, 3)
        pair = (np.flipud(image) if up else image for image in pair)
        pair = (np.fliplr(image) if left else image for image in pair)
        return tuple(np.ascontiguousarray(np.rot90(image, turns)).transpose(2, 0, 1).copy() for image in pair)


def measure(method: str, path: Path, scale: int, patch_size: int, samples: int) -> None:
    """Print seconds to start, samples per second of one process, and the increase of its peak resident memory in MiB."""
    base = peak_memory(CPU)
    start = time.perf_counter()
    if method == "memory":
        dataset = InMemory(path, scale, patch_size)
    else:
        dataset = PatchDataset(H5Pairs(path, (scale,)), patch_size=patch_size, batch_size=1, length=10**9, seed=0)
    dataset[0]
    ready = time.perf_counter() - start
    for i in range(200):
        dataset[i]
    start = time.perf_counter()
    for i in range(samples):
        dataset[i]
    print(ready, samples / (time.perf_counter() - start), (peak_memory(CPU) - base) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="h5 file of training pairs")
    parser.add_argument("--scale", type=int, default=4, help="enlargement factor (default: %(default)s)")
    parser.add_argument("--patch_size", type=int, default=48, help="side of an LR patch (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=3000, help="patches to load (default: %(default)s)")
    parser.add_argument("--method", choices=("memory", "h5"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        return measure(args.method, args.path, args.scale, args.patch_size, args.samples)
    print(loading_table(args.path, args.scale, args.patch_size, args.samples))
    return None


def loading_table(path: Path, scale: int, patch_size: int, samples: int = 3000) -> str:
    """Return a Markdown table of both methods."""
    H5Pairs(path, (scale,))
    lines = [
        f"{path.name}, {path.stat().st_size / 2**20:.0f} MiB, x{scale}, LR patches of {patch_size}, one process\n",
        "| method | ready after s | samples/s | peak resident MiB above start |\n|---|---|---|---|",
    ]
    flags = [str(path), "--scale", str(scale), "--patch_size", str(patch_size), "--samples", str(samples)]
    for method, label in (("memory", "all in memory"), ("h5", "patches from the h5")):
        out = worker_output(__file__, [*flags, "--method", method]).split()
        lines.append(f"| {label} | {float(out[0]):.2f} | {float(out[1]):.0f} | {float(out[2]):.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(run_cli(main))
