"""Draw figures for papers and the README.

python -m hrn.evaluation.figures compare --image barbara zebra --test_data_dir dataset/Set14 --methods bicubic hrn_light
python -m hrn.evaluation.figures compare --image butterfly.png --crop 60,40,96,96 --methods bicubic hrn_light EDSR=results/edsr
python -m hrn.evaluation.figures curve checkpoint/hrn_light/hrn_light_x3_stage1.jsonl
python -m hrn.evaluation.figures spectrum --ckpt_path hrn_light_x4
python -m hrn.evaluation.figures tradeoff --scale 4
python -m hrn.evaluation.figures schedules
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from hrn.cli import path_argument, run_cli
from hrn.data.benchmark import photographs, single_test_image
from hrn.errors import HRNError
from hrn.evaluation.crops import Crop
from hrn.evaluation.figures.compare import compare, comparisons_of
from hrn.evaluation.figures.curves import curve, schedules
from hrn.evaluation.figures.spectrum import spectrum
from hrn.evaluation.figures.tradeoff import tradeoff
from hrn.evaluation.tables import ADD_HELP
from hrn.inference.upscale import load_model
from hrn.model.config import SCALES


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)

    add = _adder(kinds, "compare", "crops of several methods beside the original, with scores")
    add("--image", nargs="+", required=True, metavar="IMAGE", help="files of originals, or names in --test_data_dir")
    add(
        "--test_data_dir",
        type=path_argument,
        nargs="+",
        default=[],
        metavar="SET",
        help="test sets that contain the named images",
    )
    add(
        "--crop",
        type=parse_crop,
        nargs="+",
        default=[],
        metavar="X,Y,W,H",
        help="one per image, or one for all (default: where the last method gains most)",
    )
    add(
        "--methods",
        nargs="+",
        default=["bicubic", "hrn_light"],
        metavar="METHOD",
        help="bicubic, a folder of results, a checkpoint or its name, or a model; LABEL=METHOD names it "
        "(default: bicubic hrn_light)",
    )
    add("--scale", type=int, choices=SCALES, default=4, help="enlargement factor (default: %(default)s)")

    add = _adder(kinds, "curve", "validation PSNR, loss and learning rate of training logs")
    add("log", type=path_argument, nargs="+", help="NAME_xS.jsonl of hrn/train.py")

    add = _adder(kinds, "schedules", "learning-rate schedules of hrn/train.py")
    add("--lr", type=float, default=1e-4, help="peak learning rate (default: %(default)s)")
    add("--max_steps", type=int, default=500_000, help="length of the run (default: %(default)s)")
    add(
        "--decay",
        type=int,
        default=200_000,
        help="with --schedule step: steps between two halvings of the rate (default: %(default)s)",
    )
    add("--warmup", type=int, default=20_000, help="steps of linear warm-up (default: %(default)s)")

    add = _adder(kinds, "spectrum", "share of each branch of a DEM, by frequency")
    add("--ckpt_path", default="hrn_light_x4", metavar="FILE", help="checkpoint or its name (default: %(default)s)")
    add("--scale", type=int, choices=SCALES, help="enlargement factor (default: the checkpoint's first)")
    add("--image", type=path_argument, nargs="+", default=[], help="HR images (default: photographs of scikit-image)")

    add = _adder(kinds, "tradeoff", "PSNR against Multi-Adds, for published methods and our checkpoints")
    add("--scale", type=int, choices=(2, 3, 4), default=4, help="enlargement factor (default: %(default)s)")
    add("--add", type=path_argument, nargs="+", default=[], metavar="PATH", help=ADD_HELP)
    return parser.parse_args(argv)


def _adder(kinds: argparse._SubParsersAction, name: str, about: str) -> Callable[..., object]:
    parser = kinds.add_parser(name, help=about)
    out = Path(f"{name}.png")
    parser.add_argument("--out", type=path_argument, default=out, help="PNG, PDF or SVG file (default: %(default)s)")
    return parser.add_argument


def parse_crop(text: str) -> Crop:
    """Parse `60,40,96,96`: x, y, width and height in HR pixels. Raises HRNError for anything else."""
    try:
        return Crop(*(int(part) for part in text.split(",")))
    except (ValueError, TypeError):
        raise HRNError(f"--crop {text!r}: expected X,Y,WIDTH,HEIGHT, such as 60,40,96,96") from None


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.kind == "compare":
        comparisons = comparisons_of(args.image, args.test_data_dir, args.methods, args.scale, args.crop)
        compare(args.out, *comparisons)
        for c in comparisons:
            print(f"{c.title}: --crop {c.crop.x},{c.crop.y},{c.crop.width},{c.crop.height}")
    elif args.kind == "curve":
        curve(args.out, args.log)
    elif args.kind == "spectrum":
        network = load_model(args.ckpt_path, scale=args.scale)
        scale = args.scale or network.config.scales[0]
        images = [single_test_image(path) for path in args.image] or photographs(scale).images
        spectrum(args.out, network, [image.load(scale).lr for image in images], scale)
    elif args.kind == "tradeoff":
        tradeoff(args.out, args.scale, args.add)
    else:
        schedules(args.out, base=args.lr, max_steps=args.max_steps, decay=args.decay, warmup=args.warmup)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
