"""Write the LR images of test sets, as inputs of other programs.

    python datasets/lr_images.py dataset/Set5 dataset/Set14 --scales 2 3 4

HR is cropped to a multiple of the scale and reduced by MATLAB's bicubic, as `hrn/sample.py` does to score. The LR image of
`baby` at x4 goes to LR_bicubic/X4/babyx4.png in the folder of the set, or in --out. LR images that a set already has are
copied to --out, and refused without it. Does not need PyTorch.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from hrn.cli import interrupt_on_signals, path_argument, run_cli
from hrn.data.benchmark import find_test_set
from hrn.data.image_writer import write_image
from hrn.errors import HRNError
from hrn.files import atomic_folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=path_argument, nargs="+", metavar="SET", help="test sets (see docs/data.md)")
    parser.add_argument(
        "--scales", type=int, nargs="+", default=[4], choices=range(2, 9), metavar="S", help="2 to 8 (default: 4)"
    )
    text = "folder of the results, with a subfolder for each set (default: the folder of the set)"
    parser.add_argument("--out", type=path_argument, metavar="FOLDER", help=text)
    args = parser.parse_args(argv)
    if not args.out and any(path.is_file() for path in args.sets):
        parser.error("an h5 file as SET needs --out")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    sets = [(path, find_test_set(path, scale)) for path in args.sets for scale in args.scales]
    folders = [(args.out / s.name if args.out else path) / "LR_bicubic" / f"X{s.scale}" for path, s in sets]
    for (_, test_set), folder in zip(sets, folders, strict=True):
        test_set.check_names()
        if folders.count(folder) > 1:
            raise HRNError(f"{folder} would be written twice; name each set and scale once")
        if not args.out and test_set.has_lr:
            raise HRNError(f"this set already has LR images; use --out to copy them: {test_set.source}")
        if folder.exists():
            raise HRNError(f"{folder} already exists; delete it, or use another --out")
    for (_, test_set), folder in zip(sets, folders, strict=True):
        with atomic_folder(folder) as temporary:
            for image in test_set.images:
                write_image(temporary / f"{image.name}x{test_set.scale}.png", image.load(test_set.scale).lr)
        print(f"wrote {len(test_set.images)} images to {folder} ({test_set.source})")


if __name__ == "__main__":
    interrupt_on_signals()
    sys.exit(run_cli(main))
