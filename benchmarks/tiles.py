"""What it changes that a large image is computed in tiles.

    python benchmarks/tiles.py dataset/Urban100/HR/img012.webp

The image is enlarged whole and in tiles, and both are compared: PSNR over RGB, and the mean step of their difference from
one line to the next, at the borders of tiles and elsewhere, in grey levels.
"""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from hrn.cli import run_cli
from hrn.data.images import read_rgb
from hrn.inference import enlarger as module
from hrn.inference.enlarger import Enlarger, Mode
from hrn.inference.tiling import spans
from hrn.inference.upscale import load_model
from hrn.runtime import keep_memory


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, help="up to 752x752 pixels are taken from its top left")
    parser.add_argument("--ckpt_path", default="hrn_light_x4", help="a checkpoint or a name (default: %(default)s)")
    parser.add_argument("--tiles", type=int, nargs="+", default=[128, 224, 320], help="sides (default: %(default)s)")
    args = parser.parse_args()
    keep_memory()
    network = load_model(args.ckpt_path)
    image = np.ascontiguousarray(read_rgb(args.image)[: module.TILE, : module.TILE])
    print(f"{args.image.name}, {image.shape[1]}x{image.shape[0]}, {args.ckpt_path}\n")
    print("| mode | tile | PSNR to the whole image | largest difference | largest step at borders | elsewhere |")
    print("|---" * 6 + "|")
    for mode in (Mode("local"), Mode("full")):
        enlarger = Enlarger(network, mode=mode)
        whole = enlarger(image).astype(int)
        for tile in args.tiles:
            module.TILE, before = tile, module.TILE
            difference = enlarger(image) - whole
            at_borders, elsewhere = steps(difference, mode, image.shape[:2], enlarger.scale)
            module.TILE = before
            psnr = 10 * np.log10(255**2 / np.mean(difference**2))
            print(
                f"| {mode} | {tile} | {psnr:.1f} dB | {abs(difference).max()} | {at_borders:.2f} | {elsewhere:.2f} |",
                flush=True,
            )
    return 0


def steps(difference: np.ndarray, mode: Mode, size: tuple[int, int], scale: int) -> tuple[float, float]:
    """The largest mean step between neighbouring lines, at borders of tiles and elsewhere; over both axes."""
    layout = mode.layout(size, 10**9, 1)
    at_borders, elsewhere = [], []
    for axis in (0, 1):
        found = spans(size[axis], layout.window[axis], layout.overlap, layout.aligned)
        borders = [scale * edge - 1 for edge in {edge for span in found for edge in span} - {0, size[axis]}]
        means = abs(np.diff(difference, axis=axis)).mean(axis=(1 - axis, 2))
        at_borders.append(means[borders].max(initial=0))
        elsewhere.append(np.delete(means, borders).max())
    return max(at_borders), max(elsewhere)


if __name__ == "__main__":
    sys.exit(run_cli(main))
