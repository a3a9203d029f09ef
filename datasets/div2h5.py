"""Convert DIV2K, or any folder of images, to the h5 files that training reads. Does not need PyTorch.

python datasets/div2h5.py                                         DIV2K, unpacked in dataset/DIV2K
python datasets/div2h5.py --hr photos/ --out dataset/photos.h5    any images; LR is made by MATLAB's bicubic
python datasets/div2h5.py --hr HR/ --lr LR/ --scales 2 4 --out dataset/mine.h5
python datasets/div2h5.py --copies 0.8 0.6                        with copies of the training images at 0.8 and 0.6 of their size
"""

import argparse
import multiprocessing
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import h5py
import numpy as np
from tqdm import tqdm

from hrn.cli import interrupt_on_signals, path_argument, run_cli
from hrn.cpus import cpu_count
from hrn.data.benchmark import find_lr
from hrn.data.h5 import write_pair
from hrn.data.images import EXTENSIONS, check_lr_size, list_images, read_rgb
from hrn.data.resize import bicubic_lr, imresize, modcrop
from hrn.errors import HRNError
from hrn.files import atomic_write

DATASET = Path(__file__).resolve().parents[1] / "dataset"
MAX_WORKERS_WINDOWS = 61
"""Limit of ProcessPoolExecutor."""
SCALES = (2, 3, 4, 8)
"""As in `hrn.model`, which needs torch."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--hr", type=path_argument, nargs="+", metavar="FOLDER", help="folders of HR images (default: DIV2K in --root)"
    )
    parser.add_argument(
        "--lr",
        type=path_argument,
        metavar="FOLDER",
        help="with --hr: folder with LR images in X2/, X3/, ..., named 0001x2.png or 0001.png",
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        metavar="FILE",
        help="with --hr: the h5 file to write; DIV2K goes to DIV2K_train.h5 and DIV2K_valid.h5 beside --root",
    )
    parser.add_argument(
        "--scales",
        type=int,
        nargs="+",
        choices=SCALES,
        metavar="S",
        help="any of 2 3 4 8 (default: 2 3 4; for DIV2K, all scales found)",
    )
    parser.add_argument(
        "--min_size",
        type=int,
        default=0,
        metavar="PIXELS",
        help="skip images whose shorter side is smaller after cropping to a multiple of the scales; training needs patch_size x scale (default: %(default)s)",
    )
    parser.add_argument(
        "--copies",
        type=float,
        nargs="+",
        default=[],
        metavar="FACTOR",
        help="also add copies of the training images at these fractions of their size, such as 0.8 0.6",
    )
    parser.add_argument(
        "--root",
        type=path_argument,
        default=DATASET / "DIV2K",
        help="the folder that contains DIV2K_{train,valid}_{HR,LR_bicubic}",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=cpu_count(),
        help="processes that decode and resize (default: all CPUs)",
    )
    args = parser.parse_args(argv)
    if args.hr and not args.out:
        parser.error("--hr needs --out FILE")
    if not args.hr and (args.out or args.lr):
        parser.error("--out and --lr need --hr FOLDER; DIV2K is written beside --root")
    if args.copies and args.lr:
        parser.error("--copies cannot be used with --lr: the LR images of the copies are made by MATLAB's bicubic")
    if not all(0.1 <= factor < 1 for factor in args.copies) or len(set(args.copies)) < len(args.copies):
        parser.error("--copies needs different factors, at least 0.1 and below 1")
    if args.workers < 1:
        parser.error("--workers must be 1 or more")
    if os.name == "nt":
        args.workers = min(args.workers, MAX_WORKERS_WINDOWS)
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.hr:
        convert(args.hr, args.lr, args.out, args.scales or [2, 3, 4], args.workers, args.min_size, args.copies)
        return
    parts = [part for part in ("train", "valid") if (args.root / f"DIV2K_{part}_HR").is_dir()]
    if not parts:
        raise HRNError(
            f"DIV2K not found. Expected\n  {args.root}/\n  ├── DIV2K_train_HR/            0001.png ...\n"
            "  ├── DIV2K_train_LR_bicubic/    X2/0001x2.png ...\n  ├── DIV2K_valid_HR/\n  └── DIV2K_valid_LR_bicubic/\n"
            "Unpack it there, give another folder with --root, or convert other images with --hr FOLDER --out FILE."
        )
    for part in parts:
        lr = args.root / f"DIV2K_{part}_LR_bicubic"
        found = [s for s in SCALES if (lr / f"X{s}").is_dir()]
        scales = args.scales or found or [2, 3, 4]
        convert(
            [args.root / f"DIV2K_{part}_HR"],
            lr if set(scales) & set(found) else None,
            Path(os.path.abspath(args.root)).parent / f"DIV2K_{part}.h5",
            scales,
            args.workers,
            args.min_size,
            args.copies if part == "train" else [],
        )


def convert(
    hr_folders: list[Path],
    lr_folder: Path | None,
    out: Path,
    scales: list[int],
    workers: int,
    min_size: int = 0,
    copies: Sequence[float] = (),
) -> None:
    """Write all images of `hr_folders` and their LR images to an h5 file.

    Args:
        hr_folders: folders of HR images.
        lr_folder: a folder with LR images in X{s}. For scales without such a folder, HR is cropped to a multiple of the scale
            and reduced by MATLAB's bicubic. Without any LR images, HR is cropped to a multiple of all scales.
        out: the h5 file to write.
        scales: the scales of the LR images.
        workers: the number of processes that decode and resize.
        min_size: images with a shorter side, in pixels, are skipped.
        copies: factors below 1. Each image is followed by copies at these fractions of its size, as in C. Dong et al.,
            FSRCNN, ECCV 2016. Their LR images are made by MATLAB's bicubic. Copies too small for a scale are skipped.

    Raises:
        HRNError: there are no images, one is damaged, an LR image is missing or has the wrong size, HR images that need LR
            images have the same name, `out` cannot be written, or a process was killed or could not be started.
    """
    paths = []
    for folder in hr_folders:
        if not folder.is_dir():
            raise HRNError(f"no such folder: {folder}")
        paths += list_images(folder)
    if not paths:
        raise HRNError(f"no images ({', '.join(EXTENSIONS)}) in {', '.join(map(str, hr_folders))}")
    lr_folders = {
        s: lr_folder / f"X{s}" if lr_folder and (lr_folder / f"X{s}").is_dir() else None for s in sorted(scales)
    }
    if lr_folder and (twice := [stem for stem, n in Counter(path.stem for path in paths).items() if n > 1]):
        raise HRNError(
            f"{twice[0]}: several HR images have this name; rename them, because LR images are found by name"
        )
    if lr_folder and not any(lr_folders.values()):
        raise HRNError(f"{lr_folder}: none of the folders {', '.join(f'X{s}' for s in scales)} exists")
    for s, folder in lr_folders.items():
        print(f"X{s}: {folder or 'MATLAB bicubic of HR'}")
    with atomic_write(out) as temporary, h5py.File(temporary, "w") as file, ProcessPoolExecutor(workers) as pool:
        items = [(path, factor) for path in paths for factor in (1.0, *copies)]
        loaded = load_ahead(pool, 4 * workers, items, partial(load_pair, lr_folders=lr_folders, min_size=min_size))
        key, kind = 0, "images and copies" if copies else "images"
        progress = tqdm(loaded, total=len(items), unit="image", desc=out.name, disable=None)
        for (path, factor), images in zip(items, progress, strict=True):
            if images is None:
                continue
            name = path.name if factor == 1 else f"{path.stem}_{factor}{path.suffix}"
            write_pair(file, key, images, name)
            key += 1
        if key == 0:
            raise HRNError(f"all {len(items)} {kind} are too small (--min_size {min_size})")
    skipped = f", {len(items) - key} too small (--min_size {min_size})" if key < len(items) else ""
    print(f"wrote {out}: {key} {kind}, {out.stat().st_size / 1e6:.0f} MB{skipped}")


def load_ahead(
    pool: Executor, ahead: int, items: Sequence[tuple], load: Callable[..., dict[str, np.ndarray] | None]
) -> Iterator[dict[str, np.ndarray] | None]:
    """Yield `load(*item)` for each item in order. At most `ahead` results are computed in advance, which limits memory."""
    pending: deque[Future] = deque()
    try:
        for item in items:
            try:
                pending.append(pool.submit(load, *item))
            except OSError as error:
                for process in multiprocessing.active_children():
                    process.kill()  # would wait for work forever; SIGTERM can be lost just after a fork
                raise HRNError(f"cannot start a process: {error.strerror}; use fewer --workers") from None
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise HRNError("a process was killed; if memory ran out, use fewer --workers") from None
    finally:  # after an error
        for future in pending:
            future.cancel()


def load_pair(
    path: Path, factor: float, lr_folders: dict[int, Path | None], min_size: int = 0
) -> dict[str, np.ndarray] | None:
    """Read an HR image; read or make its LR images.

    Args:
        path: the HR file.
        factor: 1 for the image itself; below 1 for a copy at this fraction of its size, whose LR images are always made.
        lr_folders: for each scale the folder of its LR images, or None to make them.
        min_size: the minimum height and width of HR after cropping.

    Returns:
        The images by group name (`HR`, `X2`, ...), (H, W, 3) uint8. None if HR is smaller than `min_size`, or if a copy is
        too small for a scale.

    Raises:
        HRNError: see :func:`convert`.
    """
    hr = read_rgb(path)
    if factor != 1:
        hr, lr_folders = imresize(hr, scale=factor), dict.fromkeys(lr_folders)
    if not any(lr_folders.values()):
        hr = modcrop(hr, int(np.lcm.reduce(list(lr_folders))))
    if min(hr.shape[:2]) < (min_size if factor == 1 else max(min_size, *lr_folders)):
        return None
    if min(hr.shape[:2]) < max(lr_folders):
        raise HRNError(f"{path}: too small for the scales {', '.join(map(str, lr_folders))}")
    images = {"HR": hr}
    for s, folder in lr_folders.items():
        if folder is None:
            images[f"X{s}"] = bicubic_lr(modcrop(hr, s), s)
            continue
        lr_path = find_lr(path, folder, s)
        lr = read_rgb(lr_path)
        check_lr_size(str(lr_path), lr.shape[:2], str(path), hr.shape[:2], s)
        images[f"X{s}"] = lr
    return images


if __name__ == "__main__":
    interrupt_on_signals()
    sys.exit(run_cli(main))
