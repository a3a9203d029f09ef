"""Figures: crops side by side in the layout of super-resolution papers, and curves of training.

python -m hrn.evaluation.figures curve checkpoint/hrn_light/hrn_light_x4.jsonl --out curve.png
python -m hrn.evaluation.figures schedules --out schedules.png
python -m hrn.evaluation.figures tradeoff --scale 4 --out tradeoff.png
python -m hrn.evaluation.figures compare sample/hrn_light_x4 --test_data_dir dataset/Set14 --images barbara zebra
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import uniform_filter

from hrn.cli import fail_in_words
from hrn.data.benchmark import find_test_set
from hrn.data.images import read_rgb
from hrn.data.resize import Bicubic
from hrn.errors import HRNError
from hrn.evaluation.metrics import rgb_to_y, score
from hrn.evaluation.results import ours, published
from hrn.files import writing_beside
from hrn.model.config import SCALES
from hrn.training.files import read_log
from hrn.training.schedule import SCHEDULES, lr_at

CROP = 96
"""Default side of a crop, in HR pixels."""


def telling_crop(hr: np.ndarray, worse: np.ndarray, better: np.ndarray, side: int = CROP) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the square in which `better` gains most over `worse` in squared error of Y."""
    side = min(side, *hr.shape[:2])
    y_hr = rgb_to_y(hr)
    gain = (rgb_to_y(worse) - y_hr) ** 2 - (rgb_to_y(better) - y_hr) ** 2
    h, w = gain.shape
    mean = uniform_filter(gain, side, mode="constant")[side // 2 : h - (side - 1) // 2, side // 2 : w - (side - 1) // 2]
    y, x = np.unravel_index(np.argmax(mean), mean.shape)
    return int(x), int(y), side, side


@dataclass(frozen=True)
class Comparison:
    """A row of crops of an image."""

    title: str
    hr: np.ndarray
    """(H, W, 3) uint8 original, which is drawn whole at the left, and as the last crop."""
    methods: dict[str, np.ndarray]
    """Name to super-resolved image, of HR's size."""
    crop: tuple[int, int, int, int]
    """(x, y, width, height) in HR pixels."""
    shave: int
    """Of the scores under each crop."""


def compare(path: Path, *comparisons: Comparison) -> None:
    """Draw comparisons, one below the other, as PNG or PDF."""
    height = 3.2 if len(comparisons) == 1 else 2.4  # inches
    widths = [
        [height * min(1.5, c.hr.shape[1] / c.hr.shape[0])] + [height * c.crop[2] / c.crop[3]] * (len(c.methods) + 1)
        for c in comparisons
    ]
    across = max(sum(row) + 0.1 * len(row) for row in widths)
    figure = plt.figure(figsize=(across, (height + 0.5) * len(comparisons)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(comparisons), 1))
    for part, comparison, row in zip(parts, comparisons, widths, strict=True):
        _draw_row(part.subplots(1, len(row), width_ratios=row), comparison)
    _save(figure, path)


def _draw_row(axes: np.ndarray, comparison: Comparison) -> None:
    hr, (x, y, w, h) = comparison.hr, comparison.crop
    axes[0].imshow(hr, interpolation="antialiased")
    axes[0].add_patch(plt.Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor="#e02020", linewidth=1.6))
    axes[0].set_xlabel(comparison.title)
    for axis, (name, image) in zip(axes[1:], {**comparison.methods, "original": hr}.items(), strict=True):
        axis.imshow(image[y : y + h, x : x + w], interpolation="nearest")
        scores = score(image, hr, comparison.shave) if name != "original" else None
        axis.set_xlabel(f"{name}\n{scores['psnr_y']:.2f} dB / {scores['ssim_y']:.4f}" if scores else name)
    for axis in axes:
        axis.set(xticks=[], yticks=[])


def comparisons_of(results: Path, test_sets: list[Path], names: list[str], scale: int) -> list[Comparison]:
    """Bicubic, what `hrn/sample.py` wrote, and the original, in the crop where the gain is largest.

    Args:
        results: a folder of `hrn/sample.py`, such as sample/hrn_light_x4.
        test_sets: that `results` has SR images of.
        names: of their images, in the order of the figure.
        scale: of both.

    Raises:
        HRNError: an image is in none of the sets, or was not enlarged.
    """
    images = {}
    for path in test_sets:
        test_set = find_test_set(path, scale)
        images |= {image.name: (image, results / test_set.name / f"x{scale}" / "SR") for image in test_set.images}
    found = []
    for name in names:
        if name not in images:
            raise HRNError(f"no image {name} in {', '.join(map(str, test_sets))}")
        image, folder = images[name]
        pair, sr = image.load(scale), read_rgb(folder / f"{name}.png")
        if sr.shape != pair.hr.shape:
            raise HRNError(f"{folder / name}.png: is {sr.shape[:2]}, but the original {pair.hr.shape[:2]}")
        bicubic = Bicubic(scale)(pair.lr)
        crop = telling_crop(pair.hr, bicubic, sr)
        found.append(Comparison(name, pair.hr, {"bicubic": bicubic, results.name: sr}, crop, scale))
    return found


def curve(path: Path, logs: list[Path]) -> None:
    """Draw the training curves of logs: validation PSNR-Y, loss and learning rate against steps.

    Args:
        path: PNG, PDF or SVG to write.
        logs: JSONL files as `hrn/train.py` writes them.

    Raises:
        HRNError: a log is missing, damaged or empty.
    """
    panels = {"psnr_y": "validation PSNR-Y, dB", "loss": "training loss", "lr": "learning rate"}
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.4), layout="constrained")
    for log in logs:
        lines = read_log(log)
        if not lines:
            raise HRNError(f"{log}: holds no line yet")
        for axis, name in zip(axes, panels, strict=True):
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            axis.plot(*zip(*points, strict=True) if points else ([], []), label=log.stem, linewidth=1.2)
    for axis, title in zip(axes, panels.values(), strict=True):
        axis.set(xlabel="step", ylabel=title)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.xaxis.set_major_locator(plt.MaxNLocator(5))
    axes[0].legend(fontsize="small")
    _save(figure, path)


def schedules(path: Path, *, base: float, max_steps: int, decay: int, warmup: int) -> None:
    """Draw the learning rate of each schedule, as :func:`hrn.training.schedule.lr_at` gives it."""
    steps = np.unique(np.linspace(0, max_steps - 1, 2000).astype(int))
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for schedule in SCHEDULES:
        rates = [
            lr_at(int(s), base=base, max_steps=max_steps, schedule=schedule, decay=decay, warmup=warmup) for s in steps
        ]
        axis.plot(
            steps, rates, label=schedule + (f", halved every {decay:,}" if schedule == "step" else ""), linewidth=1.2
        )
    axis.set(xlabel="step", ylabel="learning rate")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    _save(figure, path)


def tradeoff(path: Path, scale: int, test_set: str = "Set5", most: float = 1000) -> None:
    """Draw PSNR-Y on a test set against Multi-Adds, of published methods up to `most` G and of our checkpoints."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    own = ours(scale)
    shown = [r for r in (*published(scale), *own) if r.multi_adds <= most and test_set in r.scores]
    before = (0.0, 0.0)
    for r in sorted(shown, key=lambda r: r.multi_adds):
        x, y = place = r.multi_adds, r.scores[test_set][0]
        under = x < 1.5 * before[0] and abs(y - before[1]) < 0.1  # its label would meet the last one's
        axis.scatter(
            *place, s=20 + r.parameters / 2e4, color="#c22f2f" if r in own else "#5b6b7b", alpha=0.75, linewidth=0
        )
        label = f"{r.method}\n{r.parameters / 1e3:,.0f} K"
        axis.annotate(label, place, (6, -20 if under else -4), textcoords="offset points", fontsize=7)
        before = place
    axis.set(xscale="log", xlabel="Multi-Adds for 1280x720 output, G", ylabel=f"PSNR-Y on {test_set} x{scale}, dB")
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    kind = path.suffix.removeprefix(".").lower()
    if kind not in figure.canvas.get_supported_filetypes():
        raise HRNError(
            f"{path}: a figure cannot be written as {kind or 'a file without an ending'}; use .png, .pdf or .svg"
        )
    with writing_beside(path) as beside:
        figure.savefig(beside, format=kind, dpi=160)
    plt.close(figure)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("curve", help="training curves of logs")
    one.add_argument("log", type=Path, nargs="+", help="NAME_xS.jsonl as hrn/train.py writes it")
    one.add_argument("--out", type=Path, default=Path("curve.png"), help="(default: %(default)s)")
    two = kinds.add_parser("schedules", help="learning rates that hrn/train.py offers")
    two.add_argument("--lr", type=float, default=1e-4)
    two.add_argument("--max_steps", type=int, default=500_000)
    two.add_argument("--decay", type=int, default=200_000)
    two.add_argument("--warmup", type=int, default=20_000)
    two.add_argument("--out", type=Path, default=Path("schedules.png"), help="(default: %(default)s)")
    three = kinds.add_parser("tradeoff", help="PSNR against Multi-Adds, published methods and our checkpoints")
    three.add_argument("--scale", type=int, choices=(2, 3, 4), default=4)
    three.add_argument("--out", type=Path, default=Path("tradeoff.png"), help="(default: %(default)s)")
    four = kinds.add_parser("compare", help="crops of bicubic, of what hrn/sample.py wrote, and of the originals")
    four.add_argument("results", type=Path, help="a folder of hrn/sample.py, such as sample/hrn_light_x4")
    four.add_argument("--test_data_dir", type=Path, nargs="+", required=True, metavar="SET")
    four.add_argument("--images", nargs="+", required=True, metavar="NAME")
    four.add_argument("--scale", type=int, choices=SCALES, default=4)
    four.add_argument("--out", type=Path, default=Path("compare.png"), help="(default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.kind == "curve":
        curve(args.out, args.log)
    elif args.kind == "compare":
        compare(args.out, *comparisons_of(args.results, args.test_data_dir, args.images, args.scale))
    elif args.kind == "tradeoff":
        tradeoff(args.out, args.scale)
    else:
        if min(args.max_steps, args.decay) < 1 or args.warmup < 0 or args.lr <= 0:
            raise HRNError("--lr, --max_steps and --decay must be positive, --warmup not negative")
        schedules(args.out, base=args.lr, max_steps=args.max_steps, decay=args.decay, warmup=args.warmup)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(fail_in_words(main))
