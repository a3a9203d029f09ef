"""Enlarge images, and score them where there is an original.

    python hrn/sample.py                                             the shipped checkpoint on scikit-image's photographs
    python hrn/sample.py --ckpt_path checkpoint/hrn/hrn_x4.pth --test_data_dir dataset/Set5 dataset/Set14 --scale 4
    python hrn/sample.py --ckpt_path checkpoint/hrn/hrn_x4.pth --input photo.jpg
    python hrn/sample.py --model bicubic --test_data_dir dataset/Set5 --scale 2 3 4

Images go to SAMPLE_DIR/<checkpoint>/<set>/x4/SR/, with scores.csv and scores.json beside that folder.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import numpy as np
from tqdm import tqdm

from hrn.checkpoint import load_checkpoint, load_network
from hrn.cli import fail_in_words
from hrn.data.benchmark import TestSet, find_test_set, photographs
from hrn.data.images import EXTENSIONS, Picture, list_images, read_picture, write_image
from hrn.data.resize import imresize
from hrn.errors import HRNError
from hrn.evaluation.evaluate import ImageResult, evaluate
from hrn.evaluation.report import SetReport, image_table, provenance, set_report, summary_table, write_reports
from hrn.files import file_hash, write_text
from hrn.inference.upscale import FULL, MODES, Mode, enlarge, enlarge_picture
from hrn.model import PRESETS
from hrn.pretrained import find_checkpoint
from hrn.runtime import keep_memory, pick_device

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (ROOT / "checkpoint/hrn/hrn_x4.pth", ROOT / "checkpoint/hrn_light/hrn_light_x4.pth")
"""Best first; the main job takes the first one that is there."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--model",
        choices=(*PRESETS, "bicubic"),
        help="which network the checkpoint must hold (default: whatever it holds)",
    )
    add(
        "--ckpt_path",
        type=Path,
        metavar="FILE",
        help="a checkpoint, or the name of a shipped one, such as hrn_light_x4 (default: the best one that is shipped)",
    )
    add("--test_data_dir", type=Path, nargs="+", metavar="SET", help="test sets to enlarge and score (README: layouts)")
    add("--input", type=Path, metavar="PATH", help="an image, or a folder of images, that has no original")
    add("--scale", type=int, nargs="+", choices=(2, 3, 4, 8), help="default: the checkpoint's")
    add(
        "--sample_dir", type=Path, default=Path("sample"), metavar="DIR", help="where results go (default: %(default)s)"
    )
    add("--shave", type=int, help="border in HR pixels left out of PSNR and SSIM (default: the scale)")
    add(
        "--raw_grey",
        nargs="+",
        default=[],
        metavar="NAME",
        help="grey images to score on their own 0-255 instead of Y, as published bicubic rows do with Set14's bridge",
    )
    add(
        "--mode",
        default=FULL.name,
        choices=MODES,
        help="the image whole, or in overlapping windows (default: %(default)s)",
    )
    add("--window", type=int, default=FULL.window, help="side of a window in LR pixels (default: %(default)s)")
    add("--overlap", type=int, default=FULL.overlap, help="of windows, in LR pixels (default: %(default)s)")
    add("--no_images", action="store_true", help="score only, write no SR images")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    add("--cuda", action="store_const", const="cuda", dest="device", help="the same as --device cuda")
    add("--group", type=int, default=1, choices=(1,), help="no effect: kept for command lines of the released code")
    args = parser.parse_args(argv)
    if args.input and args.test_data_dir:
        parser.error("--input and --test_data_dir exclude each other")
    if args.model == "bicubic" and (args.ckpt_path or not args.scale):
        parser.error("--model bicubic needs --scale and no --ckpt_path")
    if args.shave is not None and args.shave < 0:
        parser.error("--shave cannot be negative")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    keep_memory()
    device = pick_device(args.device)
    mode = Mode(args.mode, args.window, args.overlap)
    header = provenance(device)
    if args.model == "bicubic":
        label, scales = "bicubic", args.scale
        header |= {"checkpoint": None}
        enlargers = {s: partial(imresize, scale=s) for s in scales}
    else:
        path = find_checkpoint(args.ckpt_path) if args.ckpt_path else shipped_checkpoint()
        checkpoint = load_checkpoint(path)
        scales = args.scale or list(checkpoint.config.scales)
        networks = {s: load_network(checkpoint, model=args.model, scale=s).to(device) for s in scales}
        label = path.stem
        header |= {"checkpoint": path.name, "checkpoint_sha256": file_hash(path), "model": checkpoint.model_name}
        header["mode"] = str(mode)
        enlargers = {s: partial(enlarge, networks[s], scale=s, mode=mode) for s in scales}
    folder = args.sample_dir / label
    if args.input:
        for s in scales:
            enlarge_input(args.input, partial(enlarge_picture, enlargers[s]), s, folder)
        return 0
    reports = []
    for s in scales:
        test_sets = [find_test_set(p, s) for p in args.test_data_dir] if args.test_data_dir else [photographs(s)]
        for test_set in test_sets:
            reports.append(run_test_set(test_set, enlargers[s], folder / test_set.name / f"x{s}", label, header, args))
    protocols = "\n".join(dict.fromkeys(f"x{r.scale}: {r.protocol}." for r in reports))
    summary = f"{summary_table(reports, label)}\n\n{protocols}\n"
    write_text(folder / "summary.md", summary)
    print(f"\n{summary}\nResults in {folder}/")
    return 0


def run_test_set(
    test_set: TestSet,
    enlarger: Callable[[np.ndarray], np.ndarray],
    folder: Path,
    label: str,
    header: dict,
    args: argparse.Namespace,
) -> SetReport:
    """Enlarge, write and score a test set; print its table."""
    scale = test_set.scale
    shave = scale if args.shave is None else args.shave
    bicubic = partial(imresize, scale=scale) if label != "bicubic" else None
    results, figure = [], None
    images = evaluate(enlarger, test_set, shave=shave, raw_grey=args.raw_grey, bicubic=bicubic)
    for result in tqdm(
        images, total=len(test_set.images), unit="image", desc=f"{test_set.name} x{scale}", disable=None, leave=False
    ):
        if not args.no_images:
            write_image(folder / "SR" / f"{result.name}.png", result.sr)
        if bicubic and (figure is None or gain(result) > gain(figure)):
            figure = result
        results.append(result.without_pictures())
    report = set_report(test_set, results, shave=shave, raw_grey=args.raw_grey)
    write_reports(report, folder, header)
    print(f"\n{test_set.source}\n\n{image_table(report, label)}")
    if figure and not args.no_images:
        draw_figure(folder / "comparison.png", figure, label, bicubic, shave)
    return report


def gain(result: ImageResult) -> float:
    """By how much the model beats bicubic, in dB of PSNR-Y."""
    return result.scores["psnr_y"] - result.bicubic["psnr_y"]


def draw_figure(
    path: Path, result: ImageResult, label: str, bicubic: Callable[[np.ndarray], np.ndarray], shave: int
) -> None:
    """The image of the set that gains most, with the crop that gains most."""
    from hrn.evaluation.figures import compare, telling_crop  # matplotlib is slow to import

    low = bicubic(result.lr)
    compare(
        path,
        result.name,
        result.hr,
        {"bicubic": low, label: result.sr},
        crop=telling_crop(result.hr, low, result.sr),
        shave=shave,
    )
    print(f"\nfigure: {path}")


def enlarge_input(path: Path, enlarger: Callable[[Picture], Picture], scale: int, folder: Path) -> None:
    """Enlarge a file, or every image of a folder, that has no original; always to PNG, which loses nothing."""
    if path.is_dir():
        paths, folder = list_images(path), folder / path.resolve().name
        if not paths:
            raise HRNError(f"no images in {path}: looked for {', '.join(EXTENSIONS)}")
    else:
        paths = [path]
    for source in tqdm(paths, unit="image", disable=None, leave=False):
        picture = read_picture(source)
        target = folder / f"x{scale}" / "SR" / f"{source.stem}.png"
        enlarged = enlarger(picture)
        write_image(target, enlarged)
        (h, w), (new_h, new_w) = picture.rgb.shape[:2], enlarged.rgb.shape[:2]
        print(f"{target}  {w}x{h} -> {new_w}x{new_h}")


def shipped_checkpoint() -> Path:
    for path in SHIPPED:
        if path.is_file():
            return path
    raise HRNError(
        "no shipped checkpoint found; looked for\n  " + "\n  ".join(map(str, SHIPPED)) + "\nName one with --ckpt_path"
    )


if __name__ == "__main__":
    sys.exit(fail_in_words(main))
