"""Turn DIV2K, or any folder of images, into the h5 files that training reads.

cd datasets && python div2h5.py                                   DIV2K, as unpacked into dataset/DIV2K
python datasets/div2h5.py --hr photos/ --out dataset/photos.h5    any images; LR made by MATLAB's bicubic
python datasets/div2h5.py --hr HR/ --lr LR/ --scales 2 4 --out dataset/mine.h5
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import h5py
import numpy as np
from tqdm import tqdm

from hrn.cli import run_cli
from hrn.data.benchmark import find_lr
from hrn.data.images import EXTENSIONS, list_images, read_rgb
from hrn.data.resize import bicubic_lr, modcrop
from hrn.errors import HRNError
from hrn.files import atomic_write

DATASET = Path(__file__).resolve().parents[1] / "dataset"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--hr", type=Path, nargs="+", metavar="FOLDER", help="folders of HR images; default: DIV2K in --root"
    )
    parser.add_argument(
        "--lr", type=Path, metavar="FOLDER", help="folder with X2/, X3/ ... of LR images named 0001x2.png or 0001.png"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the h5 file to write; needed with --hr")
    parser.add_argument(
        "--scales",
        type=int,
        nargs="+",
        choices=(2, 3, 4, 8),
        metavar="S",
        help="out of 2 3 4 8; default: 2 3 4 (DIV2K: all that are there)",
    )
    parser.add_argument(
        "--min_size",
        type=int,
        default=1,
        metavar="PIXELS",
        help="leave out HR images with a shorter side (patch_size x scale is what training needs)",
    )
    parser.add_argument(
        "--root", type=Path, default=DATASET / "DIV2K", help="where DIV2K_{train,valid}_{HR,LR_bicubic} are"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that decode and resize; default: all cores"
    )
    args = parser.parse_args(argv)
    if args.hr and not args.out:
        parser.error("--hr needs --out FILE")
    if args.workers is not None and args.workers < 1:
        parser.error("--workers must be 1 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.hr:
        convert(args.hr, args.lr, args.out, args.scales or [2, 3, 4], args.workers, args.min_size)
        return
    parts = [part for part in ("train", "valid") if (args.root / f"DIV2K_{part}_HR").is_dir()]
    if not parts:
        raise HRNError(
            f"DIV2K not found. Looked for\n  {args.root}/\n  ├── DIV2K_train_HR/            0001.png ...\n"
            "  ├── DIV2K_train_LR_bicubic/    X2/0001x2.png ...\n  ├── DIV2K_valid_HR/\n  └── DIV2K_valid_LR_bicubic/\n"
            "Unpack it there, or name another folder with --root, or any images with --hr FOLDER --out FILE."
        )
    for part in parts:
        lr = args.root / f"DIV2K_{part}_LR_bicubic"
        there = [s for s in (2, 3, 4, 8) if (lr / f"X{s}").is_dir()]
        convert(
            [args.root / f"DIV2K_{part}_HR"],
            lr if there else None,
            args.root.parent / f"DIV2K_{part}.h5",
            args.scales or there or [2, 3, 4],
            args.workers,
            args.min_size,
        )


def convert(
    hr_folders: list[Path], lr_folder: Path | None, out: Path, scales: list[int], workers: int, min_size: int = 1
) -> None:
    """Write all images of `hr_folders` and their LR images to the h5 file `out`.

    Images with a side under `min_size` pixels are left out. Where `lr_folder` has no X{s}, HR is cropped to a multiple of every such scale and reduced by MATLAB's bicubic.

    Raises:
        HRNError: no images, a damaged one, an LR image missing or of the wrong size, or `out` cannot be written.
    """
    paths = []
    for folder in hr_folders:
        if not folder.is_dir():
            raise HRNError(f"no such folder: {folder}")
        paths += list_images(folder)
    if not paths:
        raise HRNError(f"no images in {', '.join(map(str, hr_folders))}: looked for {', '.join(EXTENSIONS)}")
    lr_folders = {
        s: lr_folder / f"X{s}" if lr_folder and (lr_folder / f"X{s}").is_dir() else None for s in sorted(scales)
    }
    if lr_folder and not any(lr_folders.values()):
        raise HRNError(f"{lr_folder}: has none of {', '.join(f'X{s}' for s in scales)}")
    for s, folder in lr_folders.items():
        print(f"X{s}: {folder or 'MATLAB bicubic of HR'}")
    with atomic_write(out) as beside, h5py.File(beside, "w") as file, ProcessPoolExecutor(workers) as pool:
        work = pool.map(partial(load_pair, lr_folders=lr_folders), paths, chunksize=4)
        key = 0
        for path, images in zip(paths, tqdm(work, total=len(paths), unit="image", desc=out.name), strict=True):
            if min(images["HR"].shape[:2]) < min_size:
                continue
            for group, image in images.items():
                file.create_dataset(f"{group}/{key}", data=image)
            file[f"HR/{key}"].attrs["name"] = path.name
            key += 1
        if key == 0:
            raise HRNError(f"all {len(paths)} images have a side under {min_size} pixels")
    left_out = f", {len(paths) - key} smaller than --min_size left out" if key < len(paths) else ""
    print(f"wrote {out}: {key} images, {out.stat().st_size / 1e6:.0f} MB{left_out}")


def load_pair(path: Path, lr_folders: dict[int, Path | None]) -> dict[str, np.ndarray]:
    """The HR image and its LR images, by group name."""
    hr = read_rgb(path)
    made = [s for s, folder in lr_folders.items() if folder is None]
    hr = modcrop(hr, int(np.lcm.reduce(made)) if made else 1)
    if 0 in hr.shape:
        raise HRNError(f"{path}: too small for the scales {made}")
    images = {"HR": hr}
    for s, folder in lr_folders.items():
        if folder is None:
            images[f"X{s}"] = bicubic_lr(hr, s)
            continue
        lr_path = find_lr(path, folder, s)
        lr = read_rgb(lr_path)
        wanted = (hr.shape[0] // s, hr.shape[1] // s)
        if lr.shape[:2] != wanted:
            raise HRNError(
                f"{lr_path} is {lr.shape[1]}x{lr.shape[0]}, but {path} of {hr.shape[1]}x{hr.shape[0]} needs {wanted[1]}x{wanted[0]} at x{s}"
            )
        images[f"X{s}"] = lr
    return images


if __name__ == "__main__":
    sys.exit(run_cli(main))
