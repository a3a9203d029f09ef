"""Replace the HR images of an h5 file by a trained network's enlargements, as the targets of a smaller network.

python datasets/teacher.py --data dataset/DIV2K_train.h5 --ckpt_path hrn_x4 --out dataset/DIV2K_teacher.h5
python datasets/teacher.py --data dataset/train.h5 --ckpt_path hrn_x4 --count 1000 --add dataset/stripes.h5 --out dataset/teacher.h5
python datasets/teacher.py --data dataset/train.h5 --ckpt_path hrn_x4 --enlarge HR --crop 96 --count 1000 --out dataset/teacher.h5

This is knowledge distillation (G. Hinton et al., arXiv 1503.02531). LR does not determine the finest details of HR, which
may act as noise in training. The network's enlargements contain fewer of them. `--self_ensemble` makes them more accurate.
With `--enlarge HR`, the network enlarges the HR images, for which no larger originals exist.
"""

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import h5py
import numpy as np
from tqdm import tqdm

from hrn.cli import interrupt_on_signals, path_argument, run_cli
from hrn.data.h5 import H5Pairs, write_pair
from hrn.errors import HRNError
from hrn.files import atomic_write, check_not_input
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model
from hrn.memory import keep_memory

Part = tuple[int, slice, slice]
"""The index of an image, and rows and columns of it."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=path_argument, required=True, metavar="H5", help="training pairs, from div2h5.py")
    text = "checkpoint of the teacher: a file, or a name such as hrn_x4"
    add("--ckpt_path", type=path_argument, required=True, metavar="FILE", help=text)
    add("--out", type=path_argument, required=True, metavar="H5", help="the h5 file to write")
    add("--scale", type=int, metavar="S", help="the scale to write (default: the first one of the teacher)")
    text = "the images to enlarge: the LR images, or the HR images, which become LR (default: %(default)s)"
    add("--enlarge", default="LR", choices=("LR", "HR"), help=text)
    add("--match", default="*", metavar="PATTERN", help="only images whose name matches, such as '*_0.6' for copies")
    text = "enlarge a random part of NxN pixels of each image; smaller images are left out"
    add("--crop", type=int, metavar="N", help=text)
    add("--count", type=int, metavar="N", help="enlarge N of the images, drawn at random (default: all)")
    add("--seed", type=int, default=0, help="seed of the random choices (default: %(default)s)")
    text = "average over the eight flips and rotations of each image, in eight times the time"
    add("--self_ensemble", action="store_true", help=text)
    add("--add", type=path_argument, nargs="+", default=[], metavar="H5", help="more pairs, which are copied unchanged")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    args = parser.parse_args(argv)
    for name, least in (("count", 1), ("crop", 1), ("seed", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            parser.error(f"--{name} must be {least} or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check_not_input(args.out, [args.data, args.ckpt_path, *args.add])
    keep_memory()
    network = load_model(args.ckpt_path, scale=args.scale, device=args.device)
    enlarger = Enlarger(network, args.scale, ensemble=args.self_ensemble)
    group, reduced = ("HR", 1) if args.enlarge == "HR" else (f"X{enlarger.scale}", enlarger.scale)
    pairs = H5Pairs(args.data, () if args.enlarge == "HR" else (enlarger.scale,))
    more = [H5Pairs(path, (enlarger.scale,)) for path in args.add]
    rng = np.random.default_rng(args.seed)
    parts = choose(pairs, reduced, rng, args.match, args.crop, args.count)
    write_targets(args.out, enlarger, pairs, group, parts, more)
    copied = f", {sum(map(len, more))} copied" if more else ""
    print(f"wrote {args.out}: {len(parts)} images enlarged{copied}, {args.out.stat().st_size / 1e6:.0f} MB")


def choose(
    pairs: H5Pairs,
    reduced: int,
    rng: np.random.Generator,
    match: str = "*",
    crop: int | None = None,
    count: int | None = None,
) -> list[Part]:
    """Choose the images to enlarge, or parts of them.

    Args:
        pairs: the training pairs.
        reduced: 1 to enlarge the HR images, or the scale of the LR images to enlarge.
        rng: makes all random choices.
        match: a pattern, as of file names, for the names of the images.
        crop: the side of a random part in pixels; by default the whole image. Smaller images are left out.
        count: how many images to draw without repetition; by default all.

    Returns:
        The index, rows and columns of each part, in the order of the images.

    Raises:
        HRNError: fewer than `count` images match and are large enough, or none.
    """
    sizes = [(h // reduced, w // reduced) for h, w in pairs.hr_sizes]
    suitable = [i for i in range(len(pairs)) if min(sizes[i]) >= (crop or 1) and fnmatch(pairs.name(i), match)]
    if len(suitable) < (count or 1):
        condition = f" of at least {crop}x{crop} pixels" if crop else ""
        raise HRNError(f"{pairs.path}: {len(suitable)} images{condition} match {match!r}, but {count or 1} are needed")
    chosen = sorted(rng.permutation(suitable)[:count].tolist())
    return [(i, *(random_slice(rng, side, crop or side) for side in sizes[i])) for i in chosen]


def random_slice(rng: np.random.Generator, side: int, length: int) -> slice:
    """Return a random part of `length` pixels of a side."""
    start = int(rng.integers(side - length + 1))
    return slice(start, start + length)


def write_targets(
    out: Path, enlarger: Enlarger, pairs: H5Pairs, group: str, parts: Sequence[Part], more: Sequence[H5Pairs] = ()
) -> None:
    """Write an h5 file whose HR images are enlargements of its LR images.

    Args:
        out: the h5 file to write. It is unchanged if an error occurs.
        enlarger: the teacher, at the scale to write.
        pairs: the training pairs.
        group: the group of `pairs` with the images to enlarge.
        parts: see :func:`choose`.
        more: pairs that are copied.

    Raises:
        HRNError: an image cannot be read, memory is too small, or `out` cannot be written.
    """
    lr_group = f"X{enlarger.scale}"
    copied = [(source, index) for source in more for index in range(len(source))]
    with atomic_write(out) as temporary, h5py.File(temporary, "w") as file:
        for key, (index, rows, columns) in enumerate(tqdm(parts, unit="image", desc=out.name, disable=None)):
            lr = pairs.read(group, index, rows, columns)
            write_pair(file, key, {"HR": enlarger(lr), lr_group: lr}, f"{pairs.name(index)}.png")
        for key, (source, index) in enumerate(copied, start=len(parts)):
            images = {name: source.read(name, index) for name in ("HR", lr_group)}
            write_pair(file, key, images, f"{source.name(index)}.png")


if __name__ == "__main__":
    interrupt_on_signals()
    sys.exit(run_cli(main))
