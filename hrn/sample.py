"""Enlarge images, and score methods on test sets.

    python hrn/sample.py                                        an included model on photographs of scikit-image
    python hrn/sample.py --input photo.jpg
    python hrn/sample.py --input photo.jpg --size 1920x1080
    python hrn/sample.py --input photos/ --scale 2.5 --skip_existing --max_memory 2G
    torchrun --nproc_per_node=4 hrn/sample.py --input photos/
    python hrn/sample.py --ckpt_path checkpoint/hrn/hrn_x4.pth --test_data_dir dataset/Set5 dataset/Set14 --scale 4
    python hrn/sample.py --model bicubic --test_data_dir dataset/Set5 --scale 2 3 4
    python hrn/sample.py --sr_dir EDSR=results/edsr RCAN=results/rcan --test_data_dir dataset/Set5 --scale 4

Images are written to SAMPLE_DIR/<checkpoint>/<set or folder>/x4/SR/. For test sets, scores.csv and scores.json are written
next to SR/, and summary.md to SAMPLE_DIR/<checkpoint>/. --report also writes report.html there.
"""

import argparse
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from hrn.cli import interrupt_on_signals, path_argument, run_cli
from hrn.data.images import EXTENSIONS
from hrn.data.resize import Bicubic
from hrn.distributed import (
    Processes,
    check_gpu_count,
    check_process_count,
    exit_process,
    join_processes,
    launch,
    started_by_torchrun,
)
from hrn.errors import HRNError
from hrn.inference.batch import BatchSettings, enlarge_batch
from hrn.inference.methods import Method, load_checkpoints, network_method
from hrn.inference.mode import MODES, Mode, default_mode
from hrn.inference.resizer import Size, parse_size
from hrn.memory import keep_memory, parse_memory
from hrn.model import PRESETS
from hrn.model.config import SCALES
from hrn.runtime import PRECISIONS

NETWORK_FLAGS = ("mode", "window", "overlap", "self_ensemble", "precision", "compile", "max_memory")
"""Flags without effect on bicubic interpolation and on results of other programs."""
TIMEOUT = timedelta(days=7)
"""How long processes wait for each other. Some may have many more pixels to enlarge."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument_group("what to enlarge or score").add_argument
    add("--input", type=path_argument, metavar="PATH", help="image, or folder to search recursively, to enlarge")
    text = "test sets to score (see docs/data.md)"
    add("--test_data_dir", type=path_argument, nargs="+", default=[], metavar="SET", help=text)
    add("--sr_dir", nargs="+", metavar="[NAME=]FOLDER", help="score folders of SR images that other programs made")
    text = "2, 3, 4 or 8; with --input and a network, any factor (default: the scales of --ckpt_path, else 4)"
    add("--scale", type=parse_scale, nargs="+", metavar="S", help=text)
    add("--size", type=parse_size, metavar="WxH", help="output size of --input in pixels")
    add("--long_edge", type=int, metavar="N", help="length of the longer output side of --input in pixels")

    add = parser.add_argument_group("model").add_argument
    add("--model", choices=(*PRESETS, "bicubic"), help="included model to use, or model that --ckpt_path must hold")
    add("--ckpt_path", type=path_argument, nargs="+", metavar="FILE", help="checkpoints, or names such as hrn_light_x4")
    add(
        "--mode",
        choices=MODES,
        help="local: DCT over blocks, pooling over nearby pixels of the row and column; windows: overlapping windows; full: the whole image (default: local, or full for hrn_released)",
    )
    add("--window", type=int, default=Mode.window, help="side of a block or window in LR pixels (default: %(default)s)")
    add(
        "--overlap",
        type=int,
        default=Mode.overlap,
        help="overlap of windows in LR pixels, in mode windows (default: %(default)s)",
    )
    add("--self_ensemble", action="store_true", help="average over eight flips and rotations; eight times slower")

    add = parser.add_argument_group("computation").add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: %(default)s)")
    add("--cuda", action="store_const", const="cuda", dest="device", help="same as --device cuda")
    add("--num_gpu", type=int, default=1, metavar="N", help="share --input among N GPUs; 0: CPU (default: %(default)s)")
    add("--precision", default="fp32", choices=PRECISIONS, help="precision of convolutions (default: %(default)s)")
    add("--compile", action="store_true", help="compile the network first, which takes a minute")
    text = "memory limit per process, such as 2G (default: 80%% of free)"
    add("--max_memory", type=parse_memory, metavar="SIZE", help=text)

    add = parser.add_argument_group("output").add_argument
    add(
        "--sample_dir",
        type=path_argument,
        default=Path("sample"),
        metavar="DIR",
        help="output folder (default: %(default)s)",
    )
    add(
        "--format",
        default="png",
        choices=[e[1:] for e in EXTENSIONS],
        help="file format of the results of --input (default: png)",
    )
    add("--skip_existing", action="store_true", help="skip images of --input that already have a result")
    add("--no_images", action="store_true", help="write scores only, without SR images and figures")
    add("--report", action="store_true", help="write report.html with images, crops and spectra")
    add("--shave", type=int, help="border in HR pixels to leave out of PSNR and SSIM (default: the scale)")
    add("--raw_grey", nargs="+", default=[], metavar="NAME", help="grey images to score on 0-255 instead of Y")
    add("--group", type=int, default=1, choices=(1,), help="no effect; accepted for the released code's commands")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = build_parser()
    args = parser.parse_args(argv)
    bicubic, sized = args.model == "bicubic", args.size or args.long_edge is not None
    for wrong, message in (
        (args.input and args.test_data_dir, "--input and --test_data_dir are mutually exclusive"),
        (args.long_edge is not None and args.long_edge < 1, "--long_edge must be 1 or more"),
        (args.input and (args.no_images or args.report or args.raw_grey or args.shave is not None), "--no_images, --report, --raw_grey and --shave need test sets"),
        (not args.input and (args.skip_existing or args.format != "png"), "--skip_existing and --format need --input"),
        (sized and (args.scale or not args.input or bicubic), "--size and --long_edge need --input and a network, and cannot be combined with --scale"),
        (args.size and args.long_edge, "--size and --long_edge are mutually exclusive"),
        (bicubic and (args.ckpt_path or not args.scale), "--model bicubic needs --scale and cannot be combined with --ckpt_path"),
        (bicubic and args.report, "--report needs a network"),
        (args.sr_dir and (args.input or args.model or args.ckpt_path), "--sr_dir cannot be combined with --input, --model or --ckpt_path"),
        (args.sr_dir and not args.scale, "--sr_dir needs --scale"),
        (args.num_gpu < 0, "--num_gpu must not be negative"),
        (args.num_gpu == 0 and args.device not in ("auto", "cpu"), f"--num_gpu 0 uses the CPU and cannot be combined with --device {args.device}"),
        (args.mode != "windows" and args.overlap != Mode.overlap, "--overlap needs --mode windows"),
        (args.mode == "full" and args.window != Mode.window, "--window has no effect in mode full"),
        (args.num_gpu > 1 and not args.input, "--num_gpu needs --input"),
        (args.scale and len(set(args.scale)) < len(args.scale), "--scale: a scale is given twice"),
        (args.shave is not None and args.shave < 0, "--shave must not be negative"),
    ):  # fmt: skip
        if wrong:
            parser.error(message)
    for name in NETWORK_FLAGS:
        if (bicubic or args.sr_dir) and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} needs a network")
    if not args.input or bicubic:
        for scale in args.scale or ():
            if scale not in SCALES:
                parser.error(f"--scale {scale:g}: must be 2, 3, 4 or 8 for {'bicubic' if bicubic else 'test sets'}")
    return args


def parse_scale(text: str) -> float:
    """Parse an enlargement factor. A whole number becomes an int."""
    try:
        factor = float(text)
    except ValueError:
        factor = 0
    if not 0 < factor < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(factor) if factor == int(factor) else factor


def build_methods(args: argparse.Namespace, processes: Processes) -> list[Method]:
    """Build a method for each requested scale, or for each scale of the checkpoints."""
    if args.model == "bicubic":
        return [Method("bicubic", s, Bicubic(s), {"checkpoint": None}) for s in args.scale]
    find = partial(
        load_checkpoints, args.ckpt_path, processes.device, model=args.model, scales=args.scale,
        resized=bool(args.input), all_scales=bool(args.size or args.long_edge),
    )  # fmt: skip
    found = processes.run_on_main(find)
    methods = []
    for s in sorted(found) if args.input or not args.scale else args.scale:
        loaded = found.get(s) or next(iter(found.values()))  # if none has this scale, network_method reports it
        mode = Mode(args.mode or default_mode(loaded.config).name, args.window, args.overlap)
        methods.append(
            network_method(
                loaded, s, processes.device, model=args.model, mode=mode, ensemble=args.self_ensemble,
                precision=args.precision, compile=args.compile, max_memory=args.max_memory,
            )
        )  # fmt: skip
    return methods


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    check_process_count(args.num_gpu)
    if args.num_gpu > 1 and not started_by_torchrun():
        check_gpu_count(args.num_gpu, args.device)
        return launch(__file__, sys.argv[1:] if argv is None else argv, args.num_gpu)
    keep_memory()
    device = args.device if args.num_gpu and not args.sr_dir and args.model != "bicubic" else "cpu"
    with join_processes(device, timeout=TIMEOUT) as processes:
        if args.input:
            methods = build_methods(args, processes)
            sizes = [args.size or Size(long_edge=args.long_edge)] if args.size or args.long_edge else []
            sizes = sizes or [Size(factor=scale) for scale in args.scale or ()]
            settings = BatchSettings(args.sample_dir, f".{args.format}", args.skip_existing, sizes)
            return 1 if enlarge_batch(args.input, methods, settings, processes) else 0
        if processes.count > 1:
            raise HRNError("several processes can share --input only; score test sets in one process")
        # imports h5py and scikit-image
        from hrn.evaluation.score_sets import ScoreSettings, external_methods, score_test_sets

        methods = external_methods(args.sr_dir, args.scale) if args.sr_dir else build_methods(args, processes)
        settings = ScoreSettings(args.sample_dir, args.shave, args.raw_grey, not args.no_images, args.report)
        score_test_sets(methods, args.test_data_dir, settings)
    return 0


def cli() -> int:
    """Entry point of the console script hrn-sample."""
    interrupt_on_signals()
    return run_cli(main)


if __name__ == "__main__":
    exit_process(cli())
