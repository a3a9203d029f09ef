"""The two methods of the DCT, FFT and matrix product, timed forward and backward by size.

    python benchmarks/dct.py

`hrn.model.dct.MATRIX_UP_TO` should not exceed the crossover in this table.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch

from benchmarks.timing import machine, paired_seconds
from hrn.cli import run_cli
from hrn.memory import keep_memory
from hrn.model.dct import MATRIX_UP_TO, dct, idct
from hrn.runtime import pick_device

CHANNELS = 24


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    keep_memory()
    device = pick_device()
    print(
        f"DCT then inverse DCT, {CHANNELS} channels, float32, {machine(device)}; auto uses the matrix up to {MATRIX_UP_TO}\n"
    )
    print("| size | batch | fft ms | matrix ms | fft / matrix | fft ms, with gradient | matrix ms | fft / matrix |")
    print("|---|---|---|---|---|---|---|---|")
    for size in (16, 32, 48, 64, 96, 128, 192, 256, 384, 512):
        batch = max(1, 16 * 32 * 32 // size**2)
        x = torch.randn(batch, CHANNELS, size, size, device=device)
        y = x.clone().requires_grad_()

        def forward(method: str, x=x) -> None:
            with torch.inference_mode():
                idct(dct(x, method=method), method=method)

        def backward(method: str, y=y) -> None:
            idct(dct(y, method=method), method=method).sum().backward()

        fft, matrix = paired_seconds(lambda f=forward: f("fft"), lambda f=forward: f("matrix"))
        fft_b, matrix_b = paired_seconds(lambda f=backward: f("fft"), lambda f=backward: f("matrix"))
        print(
            f"| {size} | {batch} | {fft * 1e3:.2f} | {matrix * 1e3:.2f} | {fft / matrix:.2f} "
            f"| {fft_b * 1e3:.2f} | {matrix_b * 1e3:.2f} | {fft_b / matrix_b:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(run_cli(main))
