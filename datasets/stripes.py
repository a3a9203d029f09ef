"""Draw images of stripes and grids, which training photographs seldom show. Does not need PyTorch.

python datasets/stripes.py --count 64 --out dataset/stripes
python datasets/div2h5.py --hr dataset/DIV2K/DIV2K_train_HR dataset/stripes --scales 4 --out dataset/train.h5
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import numpy as np

from hrn.cli import interrupt_on_signals, path_argument, run_cli
from hrn.data.image_writer import write_image
from hrn.files import atomic_folder

OVERSAMPLING = 4
"""Samples per pixel and axis, averaged."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=path_argument, required=True, metavar="FOLDER", help="a new folder for 0001.png, 0002.png, ..."
    )
    parser.add_argument(
        "--scale", type=int, default=4, help="stripes that are too dense for this scale fade (default: %(default)s)"
    )
    parser.add_argument("--count", type=int, default=320, help="number of images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=208, help="width and height in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices (default: %(default)s)")
    args = parser.parse_args(argv)
    for name, least in (("scale", 1), ("count", 1), ("size", 1), ("seed", 0)):
        if getattr(args, name) < least:
            parser.error(f"--{name} must be {least} or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with atomic_folder(args.out) as folder:
        for i in range(args.count):
            image = draw(np.random.default_rng([args.seed, i]), args.size, args.scale)
            write_image(folder / f"{i + 1:04d}.png", image)
    print(f"wrote {args.count} images of {args.size}x{args.size} pixels to {args.out}")


def draw(rng: np.random.Generator, size: int, scale: int) -> np.ndarray:
    """Draw one image: stripes, or a grid in one case of three, in two colours, at a random angle and in perspective.

    The period in the centre is 2 to 10 LR pixels. Elsewhere the perspective changes it. Stripes fade where they are too dense
    to be recovered from the LR image, because a network would learn to invent them.

    Args:
        rng: makes all random choices.
        size: width and height in pixels.
        scale: HR pixels per LR pixel.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    samples = (np.arange(size * OVERSAMPLING) + 0.5) / OVERSAMPLING - size / 2
    y, x = np.meshgrid(samples, samples, indexing="ij")
    angle = rng.uniform(0, np.pi) if rng.random() < 0.5 else rng.choice([0, np.pi / 2])
    across, along = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    depth = 1 + (x * rng.uniform(-0.8, 0.8) + y * rng.uniform(-0.8, 0.8)) / size
    pattern = wave(rng, across / depth, scale)
    if rng.random() < 1 / 3:
        pattern = np.maximum(pattern, wave(rng, along / depth, scale))
    pattern = pattern.reshape(size, OVERSAMPLING, size, OVERSAMPLING).mean((1, 3))[..., None]
    contrast = np.exp(rng.uniform(np.log(0.1), 0))
    dark = rng.uniform(0, 1 - contrast)
    tint = rng.uniform(-0.15, 0.15, (2, 3)) if rng.random() < 0.5 else np.zeros((2, 3))
    colours = np.clip(np.array([[dark], [dark + contrast]]) + tint, 0, 1)
    return np.rint(255 * (colours[0] * (1 - pattern) + colours[1] * pattern)).astype(np.uint8)


def wave(rng: np.random.Generator, position: np.ndarray, scale: int) -> np.ndarray:
    """Return a square wave of 0 and 1 with a random period of 2 to 10 LR pixels, and a random phase and duty cycle.

    Where `position` changes faster than 1 per HR pixel, the period is shorter. The wave fades from full contrast at a period
    of 3 LR pixels to its mean at 2.

    Args:
        rng: makes all random choices.
        position: position across the stripes in HR pixels, (H, W), with OVERSAMPLING samples per pixel.
        scale: HR pixels per LR pixel.
    """
    cycles = position / (scale * np.exp(rng.uniform(np.log(2), np.log(10)))) + rng.random()
    duty = rng.uniform(0.25, 0.75)
    local_period = 1 / (OVERSAMPLING * np.hypot(*np.gradient(cycles)))
    fade = np.clip(local_period / scale - 2, 0, 1)
    return duty + fade * ((cycles % 1 < duty) - duty)


if __name__ == "__main__":
    interrupt_on_signals()
    sys.exit(run_cli(main))
