"""Replace the HR images of an h5 file by a trained network's enlargements, as the targets of a smaller network.

python datasets/teacher.py --data dataset/DIV2K_train.h5 --ckpt_path hrn_x4 --out dataset/DIV2K_teacher.h5
python datasets/teacher.py --data dataset/train.h5 --ckpt_path hrn_x4 --count 1000 --add dataset/stripes.h5 --out dataset/teacher.h5

This is knowledge distillation (G. Hinton et al., arXiv 1503.02531). The details of HR that LR does not determine are noise to
training; the network's enlargements leave them out.
"""

import argparse
import signal
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import h5py
import numpy as np
from tqdm import tqdm

from hrn.cli import path_argument, run_cli
from hrn.data.h5 import H5Pairs, write_pair
from hrn.errors import HRNError
from hrn.files import atomic_write
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model
from hrn.runtime import keep_memory


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=path_argument, required=True, metavar="H5", help="training pairs, from div2h5.py")
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="the teacher, or a name such as hrn_x4")
    add("--out", type=path_argument, required=True, metavar="H5", help="the h5 file to write")
    add("--scale", type=int, metavar="S", help="the scale to write (default: the first one of the teacher)")
    add("--count", type=int, metavar="N", help="enlarge N images of --data, drawn at random (default: all)")
    add("--seed", type=int, default=0, help="seed of that choice (default: %(default)s)")
    add("--add", type=path_argument, metavar="H5", help="more training pairs, which keep their HR images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    args = parser.parse_args(argv)
    for name, least in (("count", 1), ("seed", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            parser.error(f"--{name} must be {least} or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    keep_memory()
    enlarger = Enlarger(load_model(args.ckpt_path, scale=args.scale, device=args.device), args.scale)
    pairs = H5Pairs(args.data, (enlarger.scale,))
    more = H5Pairs(args.add, (enlarger.scale,)) if args.add else None
    if (count := args.count or len(pairs)) > len(pairs):
        raise HRNError(f"--count {count}: {args.data} contains {len(pairs)} images")
    chosen = np.sort(np.random.default_rng(args.seed).permutation(len(pairs))[:count]).tolist()
    write_targets(args.out, enlarger, pairs, chosen, more)
    kept = f" and {len(more)} of {args.add} with their HR" if more else ""
    print(f"wrote {args.out}: {count} images enlarged{kept}, {args.out.stat().st_size / 1e6:.0f} MB")


def write_targets(
    out: Path, enlarger: Enlarger, pairs: H5Pairs, chosen: list[int], more: H5Pairs | None = None
) -> None:
    """Write an h5 file in which HR is the enlargement of LR.

    Args:
        out: the h5 file to write. It is not written if an error occurs.
        enlarger: the teacher, at the scale to write.
        pairs: the training pairs.
        chosen: the indices of the images of `pairs` to enlarge.
        more: pairs that are copied with their HR images.

    Raises:
        HRNError: an image cannot be read, memory is too small, or `out` cannot be written.
    """
    lr_group = f"X{enlarger.scale}"
    copied = range(len(more) if more else 0)
    with atomic_write(out) as temporary, h5py.File(temporary, "w") as file:
        for key, index in enumerate(tqdm(chosen, unit="image", desc=out.name)):
            lr = pairs.read(lr_group, index)
            write_pair(file, key, {"HR": enlarger(lr), lr_group: lr}, f"{pairs.name(index)}.png")
        for key, index in enumerate(copied, start=len(chosen)):
            images = {group: more.read(group, index) for group in ("HR", lr_group)}
            write_pair(file, key, images, f"{more.name(index)}.png")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that the unfinished file is deleted
    sys.exit(run_cli(main))
