"""Difference between enlarging an image in tiles and as a whole.

    python benchmarks/tiles.py dataset/Urban100/HR/img012.png

Prints the PSNR over RGB, the largest difference, and the mean step of the difference between neighbouring lines, at the
borders of tiles and elsewhere. Steps are in grey levels.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import numpy as np

from hrn.cli import run_cli
from hrn.data.images import read_rgb
from hrn.inference.enlarger import Enlarger
from hrn.inference.mode import TILE, Mode
from hrn.inference.tiling import spans
from hrn.inference.upscale import load_model
from hrn.memory import keep_memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, help=f"image file; its top left {TILE}x{TILE} pixels are used")
    parser.add_argument("--ckpt_path", default="hrn_light_x4", help="checkpoint file or name (default: %(default)s)")
    parser.add_argument(
        "--tiles", type=int, nargs="+", default=[128, 224, 320], help="tile sides (default: 128 224 320)"
    )
    args = parser.parse_args()
    keep_memory()
    network = load_model(args.ckpt_path)
    image = np.ascontiguousarray(read_rgb(args.image)[:TILE, :TILE])
    print(f"{args.image.name}, {image.shape[1]}x{image.shape[0]}, {args.ckpt_path}\n")
    print("| mode | tile | PSNR to the whole image | largest difference | largest step at borders | elsewhere |")
    print("|---" * 6 + "|")
    for name in ("local", "full"):
        whole = Enlarger(network, mode=Mode(name))(image).astype(int)
        for tile in args.tiles:
            tiled = Enlarger(network, mode=Mode(name, tile=tile))
            side = tiled.layout(image.shape[:2]).window[0]  # whole blocks
            difference = tiled(image) - whole
            at_borders, elsewhere = steps(difference, tiled)
            psnr = 10 * np.log10(255**2 / np.mean(difference**2))
            print(
                f"| {tiled.mode} | {side} | {psnr:.1f} dB | {abs(difference).max()} | {at_borders:.2f} | {elsewhere:.2f} |",
                flush=True,
            )
    return 0


def steps(difference: np.ndarray, enlarger: Enlarger) -> tuple[float, float]:
    """Return the largest mean step between neighbouring lines along either axis: at tile borders, and elsewhere."""
    size = tuple(side // enlarger.scale for side in difference.shape[:2])
    layout = enlarger.layout(size)
    at_borders, elsewhere = [], []
    for axis in (0, 1):
        tiles = spans(size[axis], layout.window[axis], layout.overlap, layout.aligned)
        borders = [enlarger.scale * edge - 1 for edge in {edge for tile in tiles for edge in tile} - {0, size[axis]}]
        means = abs(np.diff(difference, axis=axis)).mean(axis=(1 - axis, 2))
        at_borders.append(means[borders].max(initial=0))
        elsewhere.append(np.delete(means, borders).max())
    return max(at_borders), max(elsewhere)


if __name__ == "__main__":
    sys.exit(run_cli(main))
