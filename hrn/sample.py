"""Enlarge images, and score them where there is an original.

    python hrn/sample.py                                             the shipped checkpoint on scikit-image's photographs
    python hrn/sample.py --ckpt_path checkpoint/hrn/hrn_x4.pth --test_data_dir dataset/Set5 dataset/Set14 --scale 4
    python hrn/sample.py --input photo.jpg
    python hrn/sample.py --input photo.jpg --size 1920x1080
    python hrn/sample.py --input photos/ --scale 2.5 --skip_existing --max_memory 2G
    torchrun --nproc_per_node=4 hrn/sample.py --input photos/
    python hrn/sample.py --model bicubic --test_data_dir dataset/Set5 --scale 2 3 4

Images go to SAMPLE_DIR/<checkpoint>/<set or folder>/x4/SR/, with scores.csv and scores.json beside that folder; summary.md
and, with --report, report.html to SAMPLE_DIR/<checkpoint>/.
"""

import argparse
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import numpy as np
from tqdm import tqdm

from hrn.checkpoint import Checkpoint, load_checkpoint, load_network
from hrn.cli import run_cli
from hrn.data.benchmark import TestSet, find_test_set, photographs
from hrn.data.images import EXTENSIONS, count_pixels, write_image
from hrn.data.resize import Bicubic
from hrn.distributed import Processes, exit_process, is_worker, join_processes, launch
from hrn.errors import HRNError
from hrn.evaluation.crops import best_crop
from hrn.evaluation.evaluate import ImageResult, evaluate
from hrn.evaluation.html_report import Page
from hrn.evaluation.metrics import score
from hrn.evaluation.report import SetReport, image_table, provenance, set_report, summary_table, write_reports
from hrn.files import file_hash, write_text
from hrn.inference.batch import enlarge_file, jobs
from hrn.inference.enlarger import MODES, PRECISIONS, Enlarger, Mode, default_mode
from hrn.inference.memory import parse_memory
from hrn.inference.resizer import Resizer, Size, parse_size
from hrn.model import PRESETS, config_from_dict, preset_of
from hrn.model.config import SCALES
from hrn.pretrained import find_checkpoint, read_manifest
from hrn.runtime import keep_memory

SHIPPED = ("hrn", "hrn_light")
"""Best first; the first one that serves is taken unless told otherwise."""


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
        nargs="+",
        metavar="FILE",
        help="checkpoints of one model or their names, such as hrn_light_x4 (default: the best that are shipped)",
    )
    add("--test_data_dir", type=Path, nargs="+", metavar="SET", help="test sets to enlarge and score (README: layouts)")
    add("--input", type=Path, metavar="PATH", help="an image, or a folder with subfolders of images, to enlarge")
    add(
        "--scale",
        type=parse_scale,
        nargs="+",
        metavar="S",
        help="2, 3, 4 or 8; with --input any factor, such as 2.5 (default, or auto: the checkpoint's)",
    )
    add("--size", type=parse_size, metavar="WxH", help="make --input so large, in pixels")
    add("--long_edge", type=int, metavar="N", help="make the longer side of --input so long, in pixels")
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
        "--mode", choices=MODES, help="what the network sees at once (README; default: local, or full for hrn_released)"
    )
    add("--window", type=int, default=Mode.window, help="how much it sees, in LR pixels (default: %(default)s)")
    add("--overlap", type=int, default=Mode.overlap, help="of windows, in LR pixels (default: %(default)s)")
    add("--self_ensemble", action="store_true", help="average over eight flips and turns, at eight times the cost")
    add("--precision", default="fp32", choices=PRECISIONS, help="of the convolutions (default: %(default)s)")
    add("--compile", action="store_true", help="compile the network first, which takes a minute")
    add(
        "--max_memory",
        type=parse_memory,
        metavar="SIZE",
        help="memory for each process to stay within, such as 2G (default: most of what is free)",
    )
    add("--format", default="png", choices=[e[1:] for e in EXTENSIONS], help="of --input's results (default: png)")
    add("--skip_existing", action="store_true", help="leave out images of --input whose result is there")
    add(
        "--num_gpu",
        type=int,
        default=1,
        metavar="N",
        help="share --input out over so many GPUs of this machine; 0 uses the CPU",
    )
    add("--no_images", action="store_true", help="score only, write no SR images")
    add(
        "--report",
        action="store_true",
        help="write report.html too: scores, before and after, crops and spectra to look at",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    add("--cuda", action="store_const", const="cuda", dest="device", help="the same as --device cuda")
    add("--group", type=int, default=1, choices=(1,), help="no effect: kept for command lines of the released code")
    args = parser.parse_args(argv)
    if args.input and args.test_data_dir:
        parser.error("--input and --test_data_dir exclude each other")
    if args.scale and None in args.scale:
        if len(args.scale) > 1:
            parser.error("--scale auto excludes other scales")
        args.scale = None
    if args.long_edge is not None and args.long_edge < 1:
        parser.error("--long_edge must be 1 or more")
    if args.input and (args.no_images or args.report or args.raw_grey):
        parser.error("--no_images, --report and --raw_grey are for test sets")
    if not args.input and (args.skip_existing or args.format != "png"):
        parser.error("--skip_existing and --format need --input")
    if (args.size or args.long_edge) and (args.scale or not args.input or args.model == "bicubic"):
        parser.error("--size and --long_edge need --input and a network, and exclude --scale")
    if args.size and args.long_edge:
        parser.error("--size and --long_edge exclude each other")
    if not args.input or args.model == "bicubic":
        for scale in args.scale or ():
            if scale not in SCALES:
                parser.error(f"--scale {scale:g}: {'bicubic' if args.input else 'scores'} take 2, 3, 4 or 8")
    if args.model == "bicubic" and (args.ckpt_path or not args.scale):
        parser.error("--model bicubic needs --scale and no --ckpt_path")
    if args.model == "bicubic" and (args.self_ensemble or args.report):
        parser.error("--self_ensemble and --report need a network")
    if args.num_gpu < 0:
        parser.error("--num_gpu cannot be negative")
    if args.num_gpu > 1 and not args.input:
        parser.error("--num_gpu shares a folder out: it needs --input")
    if args.shave is not None and args.shave < 0:
        parser.error("--shave cannot be negative")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.num_gpu > 1 and not is_worker():
        return launch(__file__, sys.argv[1:] if argv is None else argv, args.num_gpu)
    keep_memory()
    device = args.device if args.num_gpu else "cpu"
    with join_processes(device, timeout=timedelta(days=7)) as processes:  # some may have many more pixels than others
        ways = make_ways(args, processes)
        if not args.input:
            if processes.count > 1:
                raise HRNError("several processes share out --input only; score test sets in one")
            score_test_sets(args, ways)
            return 0
        failures = enlarge_input(args, ways, processes)
        if failures and processes.is_main:
            print(f"\n{len(failures)} of the images could not be enlarged:", *failures, sep="\n  ", file=sys.stderr)
        return 1 if failures else 0


@dataclass(frozen=True)
class Way:
    """What enlarges by a scale, what its results are called, and what its scores depend on."""

    enlarger: Bicubic | Enlarger
    label: str
    header: dict[str, Any]


def make_ways(args: argparse.Namespace, processes: Processes) -> list[Way]:
    """One for each scale that is asked for, or that the checkpoints serve."""
    header = provenance(processes.device)
    if args.model == "bicubic":
        return [Way(Bicubic(s), "bicubic", header | {"checkpoint": None}) for s in args.scale]
    served = processes.run_on_main(lambda: load_served(args))
    scales = sorted(served) if args.input or not args.scale else args.scale
    ways = []
    for s in scales:
        checkpoint, sha256 = served.get(s) or next(iter(served.values()))
        network = load_network(checkpoint, model=args.model, scale=s).to(processes.device)
        enlarger = Enlarger(
            network,
            s,
            Mode(args.mode or default_mode(checkpoint.config).name, args.window, args.overlap),
            ensemble=args.self_ensemble,
            precision=args.precision,
            compile=args.compile,
            max_memory=args.max_memory,
        )
        about = {"checkpoint": checkpoint.path.name, "checkpoint_sha256": sha256}
        about |= {"model": checkpoint.model_name, "mode": str(enlarger.mode)}
        about |= {"self_ensemble": args.self_ensemble, "precision": args.precision}
        ways.append(Way(enlarger, checkpoint.path.stem, header | about))
    return ways


def load_served(args: argparse.Namespace) -> dict[int, tuple[Checkpoint, str]]:
    """For each scale the checkpoint that serves it, and the SHA-256 of its file.

    Raises:
        HRNError: one that cannot be had or read, or two for one scale.
    """
    if not args.ckpt_path:
        names = shipped_checkpoints(args)
        loaded = {name: load_hashed(name) for name in dict.fromkeys(names.values())}
        return {s: loaded[name] for s, name in names.items()}
    served: dict[int, tuple[Checkpoint, str]] = {}
    for name in args.ckpt_path:
        checkpoint, sha256 = load_hashed(name)
        for s in checkpoint.config.scales:
            if s in served:
                raise HRNError(
                    f"--ckpt_path: {served[s][0].path} and {checkpoint.path} are both for x{s}; leave one out"
                )
            served[s] = checkpoint, sha256
    return served


def load_hashed(name: str | Path) -> tuple[Checkpoint, str]:
    """A checkpoint by its path or name, and the SHA-256 of its file."""
    path = find_checkpoint(name)
    return load_checkpoint(path), file_hash(path)


def score_test_sets(args: argparse.Namespace, ways: list[Way]) -> None:
    """Enlarge and score the test sets at each scale, and print what came out."""
    runs = [(way, test_set) for way in ways for test_set in find_test_sets(args.test_data_dir, way.enlarger.scale)]
    known = {image.name for _, test_set in runs for image in test_set.images}
    if unknown := [name for name in args.raw_grey if name not in known]:
        raise HRNError(f"--raw_grey {' '.join(unknown)}: no such image in {', '.join(s.name for _, s in runs)}")
    page = Page(sum(len(test_set.images) for _, test_set in runs)) if args.report else None
    reports = [run_test_set(test_set, way, args, page) for way, test_set in runs]
    protocols = "\n".join(dict.fromkeys(f"x{r.scale}: {r.protocol}." for r in reports))
    summary = f"{summary_table(reports)}\n\n{protocols}\n"
    folders = [args.sample_dir / label for label in dict.fromkeys(way.label for way in ways)]
    for folder in folders:
        write_text(folder / "summary.md", summary)
    for way in {way.label: way for way in ways}.values() if page else ():
        page.write(args.sample_dir / way.label / "report.html", way.label)
    print(f"\n{summary}\nResults in {', '.join(f'{folder}/' for folder in folders)}")


def find_test_sets(paths: list[Path] | None, scale: int) -> list[TestSet]:
    """The test sets at these paths; photographs that need no download, where there are none.

    Raises:
        HRNError: a set that is not found, or names that would write to the same place.
    """
    sets = [find_test_set(path, scale) for path in paths or ()] or [photographs(scale)]
    for test_set in sets:
        if [other.name for other in sets].count(test_set.name) > 1:
            raise HRNError(f"two test sets are called {test_set.name}; score them with a --sample_dir each")
        names = [image.name for image in test_set.images]
        if double := next((name for name in names if names.count(name) > 1), None):
            raise HRNError(f"{test_set.source}: two images are called {double}; their results would be one file")
    return sets


def run_test_set(test_set: TestSet, way: Way, args: argparse.Namespace, page: Page | None = None) -> SetReport:
    """Enlarge, write and score a test set, and show it on the page; print its table."""
    enlarger, scale = way.enlarger, test_set.scale
    folder = args.sample_dir / way.label / test_set.name / f"x{scale}"
    shave = scale if args.shave is None else args.shave
    bicubic = None if isinstance(enlarger, Bicubic) else Bicubic(scale)
    results, figure, gains = [], None, []
    once = enlarger.without_ensemble() if args.self_ensemble else None
    if not isinstance(enlarger, Bicubic) and enlarger.device.type != "cpu":
        enlarger(test_set.images[0].load(scale).lr)  # a GPU first loads what it computes by
    images = evaluate(enlarger, test_set, shave=shave, raw_grey=args.raw_grey, bicubic=bicubic)
    if page:
        page.begin(way.header)
    for result in tqdm(
        images, total=len(test_set.images), unit="image", desc=f"{test_set.name} x{scale}", disable=None, leave=False
    ):
        if not args.no_images:
            write_image(folder / "SR" / f"{result.name}.png", result.sr)
        if bicubic and (figure is None or gain(result) > gain(figure)):
            figure = result
        if once:
            single = score(once(result.lr), result.hr, shave, result.name in args.raw_grey)
            gains.append(result.scores["psnr_y"] - single["psnr_y"])
        if page:
            page.add(result)
        results.append(result.without_images())
    report = set_report(test_set, way.label, results, shave=shave, raw_grey=args.raw_grey)
    if page:
        page.end(report)
    write_reports(report, folder, way.header)
    print(f"\n{test_set.source}\n\n{image_table(report)}")
    if once:
        print(f"\nself-ensemble: {np.mean(gains):+.3f} dB PSNR-Y, {min(gains):+.3f} to {max(gains):+.3f} by image")
    if figure and not args.no_images:
        draw_figure(folder / "comparison.png", figure, way.label, shave)
    return report


def gain(result: ImageResult) -> float:
    """By how much the model beats bicubic, in dB of PSNR-Y."""
    return result.scores["psnr_y"] - result.bicubic["psnr_y"]


def draw_figure(path: Path, result: ImageResult, label: str, shave: int) -> None:
    """The image of the set that gains most, with the crop that gains most."""
    from hrn.evaluation.figures.compare import Comparison, compare  # matplotlib is slow to import

    crop, _ = best_crop(result.hr, result.bicubic_sr, result.sr)
    methods = {"bicubic": result.bicubic_sr, label: result.sr}
    compare(path, Comparison(result.name, result.hr, methods, crop, shave))
    print(f"\nfigure: {path}")


def enlarge_input(args: argparse.Namespace, ways: list[Way], processes: Processes) -> list[str]:
    """Enlarge a file or a folder that has no original; what went wrong, with the images that it went wrong with."""
    labels = {way.label for way in ways}
    label = labels.pop() if len(labels) == 1 else str(ways[0].header["model"])
    folder = args.sample_dir / label / (args.input.resolve().name if args.input.is_dir() else "")
    failures = []
    for enlarger, name in enlargers_of(args, ways):
        failures += enlarge_all(args, enlarger, folder / name / "SR", processes)
    return failures


def enlargers_of(args: argparse.Namespace, ways: list[Way]) -> list[tuple[Bicubic | Resizer, str]]:
    """What makes of --input what is asked for, and what that is called."""
    if args.model == "bicubic":
        return [(way.enlarger, f"x{way.enlarger.scale}") for way in ways]
    if args.size or args.long_edge:
        sizes = [args.size or Size(long_edge=args.long_edge)]
    else:
        sizes = [Size(factor=scale) for scale in args.scale or [way.enlarger.scale for way in ways]]
    return [(Resizer([way.enlarger for way in ways], size), str(size)) for size in sizes]


def enlarge_all(args: argparse.Namespace, enlarger: Bicubic | Resizer, folder: Path, processes: Processes) -> list[str]:
    """Enlarge --input into a folder, shared out over the processes; what went wrong in any of them."""
    todo = processes.run_on_main(lambda: jobs(args.input, folder, f".{args.format}", args.sample_dir))
    if args.skip_existing:
        there = processes.run_on_main(lambda: [job.target.is_file() for job in todo])
        todo = [job for job, done in zip(todo, there, strict=True) if not done]
        if processes.is_main and any(there):
            print(f"{sum(there)} done already, {len(todo)} to do")
    mine = todo[processes.rank :: processes.count]
    pixels = sum(count_pixels(job.source) for job in mine)
    failures = []
    with tqdm(
        total=pixels, unit="px", unit_scale=True, disable=None if processes.is_main else True, leave=False
    ) as bar:
        for job in mine:
            try:
                tqdm.write(enlarge_file(job, enlarger, bar.update))
            except HRNError as error:
                if not args.input.is_dir():
                    raise
                failures.append(str(error) if str(job.source) in str(error) else f"{job.source}: {error}")
    return [failure for some in processes.gather([failures]) for failure in some]


def shipped_checkpoints(args: argparse.Namespace) -> dict[int, str]:
    """By scale the names of the manifest's checkpoints that serve best.

    They are of the best model that has every scale that is asked for, or, where none is asked for, x4 or another one.
    For sizes in between, they are all that the best model has.
    """
    models = (args.model,) if args.model else SHIPPED
    configs = {name: config_from_dict(entry["config"]) for name, entry in read_manifest()["checkpoints"].items()}
    shipped: dict[str, dict[int, str]] = {model: {} for model in models}
    for name in sorted(configs, key=lambda name: len(configs[name].scales)):  # those of one scale first
        for s in configs[name].scales:
            shipped.get(preset_of(configs[name]) or "", {}).setdefault(s, name)
    there = [by_scale for by_scale in shipped.values() if by_scale]
    between = args.size or args.long_edge
    for by_scale in [] if between else there:
        scales = args.scale or [4 if 4 in by_scale else min(by_scale)]
        if set(scales) <= by_scale.keys():
            return {s: by_scale[s] for s in scales}
    if args.input and there:
        return there[0]
    raise HRNError(f"no checkpoint of {' or '.join(models)} is shipped for that. Name a file with --ckpt_path")


def parse_scale(text: str) -> float | None:
    """A factor, whole ones as int; None for auto."""
    if text == "auto":
        return None
    factor = float(text)
    if not 0 < factor < float("inf"):
        raise ValueError
    return int(factor) if factor == int(factor) else factor


def cli() -> int:
    """Entry point of the console script hrn-sample."""
    return run_cli(main)


if __name__ == "__main__":
    exit_process(cli())
