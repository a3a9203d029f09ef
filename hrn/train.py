"""Train HRN.

    python hrn/train.py --model hrn --ckpt_name hrn --ckpt_dir checkpoint/hrn --scale 4 --train_data_path dataset/DIV2K_train.h5
    python hrn/train.py ... --resume          go on after a stop of any kind

Writes to --ckpt_dir: NAME_x4.pth (weights for use), NAME_x4.train.pth (for --resume), NAME_x4.jsonl (log).
"""

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hrn import __version__
from hrn.cli import fail_in_words
from hrn.data.benchmark import find_test_set
from hrn.data.h5 import H5Pairs
from hrn.errors import HRNError
from hrn.model import PRESETS, preset
from hrn.runtime import keep_memory, pick_device
from hrn.training.schedule import SCHEDULES
from hrn.training.trainer import LOSSES, PRECISIONS, Files, Recipe, Trainer

MULTI_SCALE = (2, 3, 4)
RECIPE_CHOICES = {"schedule": SCHEDULES, "loss_fn": LOSSES, "precision": PRECISIONS}
RECIPE_HELP = {
    "patch_size": "side of an LR patch",
    "batch_size": "patches a step",
    "lr": "learning rate of Adam",
    "decay": "schedule step: halve the rate every so many steps",
    "warmup": "steps over which the rate grows first",
    "clip": "largest norm of the gradient",
    "ema": "decay of the running mean of the weights, 0 for none",
    "precision": "of convolutions; the DCT stays float32",
    "print_interval": "steps between log lines",
    "valid_interval": "steps between validations",
    "save_interval": "steps between training states",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, choices=PRESETS, help="which network")
    add("--ckpt_name", required=True, metavar="NAME", help="name of the files that are written")
    add("--ckpt_dir", type=Path, default=Path("checkpoint"), metavar="DIR", help="where they go (default: %(default)s)")
    add(
        "--scale",
        type=int,
        default=0,
        choices=(0, 2, 3, 4, 8),
        help="0 trains x2, x3 and x4 together (default: %(default)s)",
    )
    add(
        "--train_data_path",
        type=Path,
        default=Path("dataset/DIV2K_train.h5"),
        metavar="H5",
        help="(default: %(default)s)",
    )
    add(
        "--valid_data_path",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="h5 files or test set folders that choose the best weights",
    )
    add("--shave", type=int, help="border in HR pixels left out of validation scores (default: the scale)")
    add("--resume", type=Path, nargs="?", const=True, metavar="FILE", help="go on from NAME_xS.train.pth, or from FILE")
    for f in fields(Recipe):
        text = f"{RECIPE_HELP.get(f.name, '')} (default: %(default)s)".strip()
        add(f"--{f.name}", type=type(f.default), default=f.default, choices=RECIPE_CHOICES.get(f.name), help=text)
    add("--workers", type=int, help="loading processes (default: 4 with a GPU, else 0)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    add("--num_gpu", type=int, default=1, choices=(0, 1), help="0 trains on the CPU (default: %(default)s)")
    add("--verbose", action="store_true", help="log more")
    add("--group", type=int, default=1, choices=(1,), help="no effect: kept for command lines of the released code")
    add("--sample_dir", help="no effect: kept for command lines of the released code")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S"
    )
    keep_memory()
    recipe = Recipe(**{f.name: getattr(args, f.name) for f in fields(Recipe)})
    scales = (args.scale,) if args.scale else MULTI_SCALE
    try:
        config = preset(args.model, scales)
    except ValueError as error:
        raise HRNError(f"--model {args.model} --scale {args.scale}: {error}") from None
    device = pick_device(args.device if args.num_gpu else "cpu")
    files = Files(args.ckpt_dir, args.ckpt_name + "_" + "".join(f"x{s}" for s in scales))
    trainer = Trainer(
        config,
        recipe,
        H5Pairs(args.train_data_path, scales),
        [find_test_set(path, s) for path in args.valid_data_path for s in scales],
        files,
        device,
        workers=args.workers if args.workers is not None else (4 if device.type == "cuda" else 0),
        shave=args.shave,
        info={
            "model": args.model,
            "train_data": args.train_data_path.name,
            "valid_data": [path.name for path in args.valid_data_path],
            "versions": {"hrn": __version__, "torch": str(torch.__version__)},
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        },
    )
    if args.resume is not None:
        trainer.resume(files.state if args.resume is True else args.resume)
    elif files.state.exists():
        raise HRNError(
            f"{files.state} holds an earlier run: go on with --resume, choose another --ckpt_name, or delete it"
        )
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HRNError(f"--ckpt_dir {files.folder}: {error.strerror}") from None
    parameters = sum(p.numel() for p in trainer.model.parameters())
    logging.info(
        "%s %s: %s parameters, %d training images, %s",
        args.model,
        files.name,
        f"{parameters:,}",
        len(trainer.pairs),
        device,
    )
    logging.info("from step %d to %d; writing to %s", trainer.step, recipe.max_steps, files.folder)
    with tqdm(total=recipe.max_steps, initial=trainer.step, unit="step", disable=None) as bar, logging_redirect_tqdm():
        trainer.fit(progress=lambda step: bar.update(step - bar.n))


if __name__ == "__main__":
    sys.exit(fail_in_words(main))
