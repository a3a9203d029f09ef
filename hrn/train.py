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


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    default = Recipe()
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
    add("--patch_size", type=int, default=default.patch_size, help="side of an LR patch (default: %(default)s)")
    add("--batch_size", type=int, default=default.batch_size, help="patches a step (default: %(default)s)")
    add("--max_steps", type=int, default=default.max_steps, help="(default: %(default)s)")
    add("--lr", type=float, default=default.lr, help="learning rate of Adam (default: %(default)s)")
    add("--schedule", choices=SCHEDULES, default=default.schedule, help="(default: %(default)s)")
    add(
        "--decay",
        type=int,
        default=default.decay,
        help="schedule step: halve the rate every so many steps (default: %(default)s)",
    )
    add(
        "--warmup",
        type=int,
        default=default.warmup,
        help="steps over which the rate grows first (default: %(default)s)",
    )
    add("--clip", type=float, default=default.clip, help="largest norm of the gradient (default: %(default)s)")
    add("--loss_fn", choices=LOSSES, default=default.loss_fn, help="(default: %(default)s)")
    add(
        "--ema",
        type=float,
        default=default.ema,
        help="decay of the running mean of the weights, 0 for none (default: %(default)s)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default=default.precision,
        help="of convolutions; the DCT stays float32 (default: %(default)s)",
    )
    add("--seed", type=int, default=default.seed, help="(default: %(default)s)")
    add(
        "--print_interval",
        type=int,
        default=default.print_interval,
        help="steps between log lines (default: %(default)s)",
    )
    add(
        "--valid_interval",
        type=int,
        default=default.valid_interval,
        help="steps between validations (default: %(default)s)",
    )
    add(
        "--save_interval",
        type=int,
        default=default.save_interval,
        help="steps between training states (default: %(default)s)",
    )
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
