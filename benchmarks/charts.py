"""Checkpoints on grey test charts with dense stripes: PSNR-Y and the share of coloured pixels.

    python benchmarks/charts.py hrn_light_x4 hrn_base_x4 hrn_x4

A network that is not stable on regular stripes turns them into colour artefacts. The charts differ from the training images that
`datasets/stripes.py` draws.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import numpy as np

from hrn.cli import run_cli
from hrn.data.resize import Bicubic, bicubic_lr
from hrn.data.upscaler import Upscaler
from hrn.evaluation.metrics import score
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model

SIZE = 576
OVERSAMPLING = 4
COLOURED = 32
"""Difference between the colour channels of a pixel, in grey levels, above which it counts as coloured."""


def charts() -> dict[str, np.ndarray]:
    """Return black and white charts by name, (SIZE, SIZE, 3) uint8. Most periods are 2.5 to 50 pixels."""
    samples = (np.arange(SIZE * OVERSAMPLING) + 0.5) / OVERSAMPLING
    y, x = np.meshgrid(samples, samples, indexing="ij")
    centre = SIZE / 2
    cycles = {
        "zone plate": ((x - centre) ** 2 + (y - centre) ** 2) / (8 * centre),
        "star": 60 * np.arctan2(y - centre, x - centre) / (2 * np.pi),
        "bars": x / 50 + x**2 / (8 * SIZE),
        "fan": 90 * np.arctan2(x, y + SIZE / 4) / (np.pi / 2),
    }
    return {name: square_wave(c) for name, c in cycles.items()}


def square_wave(cycles: np.ndarray) -> np.ndarray:
    """Draw a wave that is white in the first half of each cycle. Each pixel is the mean of its samples."""
    white = (cycles % 1 < 0.5).reshape(SIZE, OVERSAMPLING, SIZE, OVERSAMPLING).mean((1, 3))
    return np.repeat(np.rint(255 * white).astype(np.uint8)[..., None], 3, axis=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+", help="files or names of networks with one scale")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: %(default)s)")
    args = parser.parse_args()
    images = charts()
    print("| PSNR-Y, coloured pixels | scale | " + " | ".join(images) + " |")
    print("|---" * (2 + len(images)) + "|")
    scales = {}
    for checkpoint in args.checkpoints:
        enlarger = Enlarger(load_model(checkpoint, device=args.device))
        scales[enlarger.scale] = None
        print(row(Path(checkpoint).stem, enlarger, images), flush=True)
    for scale in scales:
        print(row("bicubic", Bicubic(scale), images))


def row(name: str, upscaler: Upscaler, images: dict[str, np.ndarray]) -> str:
    """Return a row of the table."""
    cells = []
    for hr in images.values():
        sr = upscaler(bicubic_lr(hr, upscaler.scale))
        cells.append(f"{score(sr, hr, upscaler.scale)['psnr_y']:.2f}, {coloured_share(sr):.2%}")
    return f"| {name} | x{upscaler.scale} | " + " | ".join(cells) + " |"


def coloured_share(image: np.ndarray) -> float:
    """Return the share of coloured pixels of an (H, W, 3) uint8 image."""
    return float(np.mean(np.ptp(image.astype(int), axis=2) > COLOURED))


if __name__ == "__main__":
    sys.exit(run_cli(main))
