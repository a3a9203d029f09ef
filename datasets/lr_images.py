"""Write the LR images of test sets, as inputs of other programs.

    python datasets/lr_images.py dataset/Set5 dataset/Set14 --scales 2 3 4

HR is cropped to a multiple of the scale and reduced by MATLAB's bicubic, as `hrn/sample.py` does to score. The LR image of
`baby` at x4 goes to LR_bicubic/X4/babyx4.png in the folder of the set, or in --out. LR images that a set already has are
copied to --out, and refused without it. With --hr, the cropped HR image goes to HR_cropped/X4/baby.png. It has the size and
the name of the results in SR/, as other metrics such as LPIPS need. Does not need PyTorch.
"""

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from hrn.cli import interrupt_on_signals, path_argument, run_cli
from hrn.data.benchmark import TestSet, find_test_set
from hrn.data.image_writer import write_image
from hrn.errors import HRNError
from hrn.files import atomic_folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=path_argument, nargs="+", metavar="SET", help="test sets (see docs/data.md)")
    parser.add_argument(
        "--scales", type=int, nargs="+", default=[4], choices=range(2, 9), metavar="S", help="2 to 8 (default: 4)"
    )
    parser.add_argument("--hr", action="store_true", help="also write the cropped HR images")
    text = "folder of the results, with a subfolder for each set (default: the folder of the set)"
    parser.add_argument("--out", type=path_argument, metavar="FOLDER", help=text)
    args = parser.parse_args(argv)
    if not args.out and any(path.is_file() for path in args.sets):
        parser.error("an h5 file as SET needs --out")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    sets = [(path, find_test_set(path, scale)) for path in args.sets for scale in args.scales]
    folders = [args.out / s.name if args.out else path for path, s in sets]
    kinds = ["LR_bicubic", *["HR_cropped"] * args.hr]
    targets = [
        {kind: folder / kind / f"X{s.scale}" for kind in kinds} for (_, s), folder in zip(sets, folders, strict=True)
    ]
    for (_, test_set), target in zip(sets, targets, strict=True):
        test_set.check_names()
        if targets.count(target) > 1:
            raise HRNError(f"{target['LR_bicubic']} would be written twice; name each set and scale once")
        if not args.out and test_set.has_lr:
            raise HRNError(f"this set already has LR images; use --out to copy them: {test_set.source}")
        for folder in target.values():
            if folder.exists():
                raise HRNError(f"{folder} already exists; delete it, or use another --out")
    for (_, test_set), target in zip(sets, targets, strict=True):
        write_images(test_set, target)


def write_images(test_set: TestSet, target: Mapping[str, Path]) -> None:
    """Write the LR images of a set, and the HR images if `target` has a folder for them.

    Args:
        test_set: the test set.
        target: the folders of `LR_bicubic` and, optionally, `HR_cropped`.

    Raises:
        HRNError: an image is unreadable or too small, or cannot be written.
    """
    with ExitStack() as stack:
        folders = {kind: stack.enter_context(atomic_folder(folder)) for kind, folder in target.items()}
        for image in test_set.images:
            pair = image.load(test_set.scale)
            write_image(folders["LR_bicubic"] / f"{image.name}x{test_set.scale}.png", pair.lr)
            if "HR_cropped" in folders:
                write_image(folders["HR_cropped"] / f"{image.name}.png", pair.hr)
    for folder in target.values():
        print(f"wrote {len(test_set.images)} images to {folder} ({test_set.source})")


if __name__ == "__main__":
    interrupt_on_signals()
    sys.exit(run_cli(main))
