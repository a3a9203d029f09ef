"""Train HRN.

    python hrn/train.py --model hrn --ckpt_name hrn --ckpt_dir checkpoint/hrn --scale 4 --train_data_path dataset/DIV2K_train.h5
    python hrn/train.py ... --resume             go on after a stop of any kind
    python hrn/train.py ... --dry_run            what it will take; writes nothing
    python hrn/train.py ... --num_gpu 4          four processes; the same as torchrun --nproc_per_node=4 hrn/train.py ...

Writes to --ckpt_dir: NAME_x4.pth (weights for use), NAME_x4.STEP.train.pth (for --resume), NAME_x4.jsonl (log).
"""

import argparse
import logging
import shlex
import signal
import sys
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hrn import __version__
from hrn.checkpoint import Checkpoint, load_checkpoint
from hrn.cli import run_cli
from hrn.data.benchmark import TestSet, find_test_set
from hrn.data.h5 import H5Pairs
from hrn.distributed import Processes, exit_process, is_restarted, is_worker, join_processes, launch
from hrn.errors import HRNError
from hrn.model import PRESETS, preset
from hrn.model.config import Config
from hrn.pretrained import find_checkpoint
from hrn.runtime import keep_memory, tune_convolutions, warm_up_kernels
from hrn.training.dry_run import measure_plan
from hrn.training.monitor import TensorBoard
from hrn.training.recipe import RECIPE_CHOICES, Execution, Recipe, share_of
from hrn.training.run_files import RunFiles, load_state, step_of
from hrn.training.trainer import Trainer

MULTI_SCALE = (2, 3, 4)
HELP = {
    "patch_size": "side of an LR patch",
    "batch_size": "patches a step, over all processes",
    "norm_batch": "patches that attention's BatchNorm takes its statistics over; 0: as many as a process computes at once",
    "lr": "learning rate",
    "decay": "schedule step: halve the rate every so many steps",
    "warmup": "steps over which the rate grows first",
    "clip": "largest norm of the gradient",
    "ema": "decay of the running mean of the weights, 0 for none",
    "precision": "of convolutions; the DCT stays float32",
    "print_interval": "steps between log lines",
    "valid_interval": "steps between validations",
    "save_interval": "steps between training states",
    "accumulate": "take a process's share of the batch in so many parts, to save memory",
    "compile": "use torch.compile: minutes to start, then faster",
    "channels_last": "memory layout of the features",
    "tf32": "let GPUs round float32 convolutions to TF32",
    "deterministic": "on a GPU, only convolutions and compiled kernels that always give the same bits",
    "workers": "loading processes for each training process; -1: 4 with a GPU, else 0",
    "keep": "training states that are kept",
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
    add(
        "--resume",
        type=Path,
        nargs="?",
        const=True,
        metavar="FILE",
        help="go on from the newest training state, or FILE",
    )
    add(
        "--init_from",
        type=Path,
        metavar="FILE",
        help="start from the weights of a checkpoint, as far as they fit; a file, or a name such as hrn_light_x4",
    )
    add(
        "--grow_from",
        type=Path,
        metavar="FILE",
        help="start from a smaller trained HRN of the same scales, computing exactly what it computes; a file or a name",
    )
    add("--dry_run", action="store_true", help="measure a few steps, print the plan, write nothing")
    for f in (*fields(Recipe), *fields(Execution)):
        text = f"{HELP.get(f.name, '')} (default: %(default)s)".strip()
        if isinstance(f.default, bool):
            add(f"--{f.name}", action=argparse.BooleanOptionalAction, default=f.default, help=text)
        else:
            add(f"--{f.name}", type=type(f.default), default=f.default, choices=RECIPE_CHOICES.get(f.name), help=text)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    add(
        "--num_gpu",
        type=int,
        default=1,
        help="processes on this machine, a GPU each; 0 uses the CPU (default: %(default)s)",
    )
    add("--tensorboard", action="store_true", help="curves and validation pictures too (pip install tensorboard)")
    add("--verbose", action="store_true", help="log more")
    add("--group", type=int, default=1, choices=(1,), help="no effect: kept for command lines of the released code")
    add("--sample_dir", help="no effect: kept for command lines of the released code")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Run:
    """What the flags say, checked as far as it can be before any process is started."""

    config: Config
    recipe: Recipe
    execution: Execution
    pairs: H5Pairs
    valid: list[TestSet]
    files: RunFiles


def prepare(args: argparse.Namespace, processes: int) -> Run:
    """Check the flags. Raises HRNError."""
    recipe, execution = (cls(**{f.name: getattr(args, f.name) for f in fields(cls)}) for cls in (Recipe, Execution))
    share_of(recipe, processes, execution.accumulate)
    if args.init_from and args.grow_from:
        raise HRNError("--init_from and --grow_from exclude each other")
    if Path(args.ckpt_name).name != args.ckpt_name:
        raise HRNError(f"--ckpt_name {args.ckpt_name!r} must be a plain name; the folder is --ckpt_dir")
    scales = (args.scale,) if args.scale else MULTI_SCALE
    try:
        config = preset(args.model, scales)
    except ValueError as error:
        raise HRNError(f"--model {args.model} --scale {args.scale}: {error}") from None
    files = RunFiles(args.ckpt_dir, args.ckpt_name + "_" + "".join(f"x{s}" for s in scales))
    if args.resume is None and not is_restarted() and not args.dry_run:
        refuse_to_overwrite(files)
    pairs = H5Pairs(args.train_data_path, scales)
    valid = [find_test_set(path, s) for path in args.valid_data_path for s in scales]
    return Run(config, recipe, execution, pairs, valid, files)


def refuse_to_overwrite(files: RunFiles) -> None:
    """Raises HRNError where an earlier run left a state, weights or a log under the names of this one."""
    if states := files.states():
        raise HRNError(
            f"{states[0]} holds an earlier run: go on with --resume, choose another --ckpt_name, or delete it"
        )
    for path in (files.best, files.log):
        if path.exists():
            raise HRNError(
                f"{path} is of an earlier run, and would be overwritten: choose another --ckpt_name or --ckpt_dir, or move it away"
            )


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.num_gpu < 0:
        raise HRNError(f"--num_gpu must be at least 0, not {args.num_gpu}")
    if args.num_gpu > 1 and not is_worker():
        if args.device == "auto" and args.num_gpu > torch.cuda.device_count():
            raise HRNError(
                f"--num_gpu {args.num_gpu}, but this machine has {torch.cuda.device_count()} (--device cpu starts as many processes on the CPU)"
            )
        prepare(args, args.num_gpu)
        return launch(__file__, sys.argv[1:] if argv is None else argv, args.num_gpu)
    with join_processes(args.device if args.num_gpu else "cpu") as processes:
        if processes.device.type == "mps":
            raise HRNError("--device mps: training needs float64, which it has not; use cuda or cpu")
        return train(args, processes, prepare(args, processes.count))


def train(args: argparse.Namespace, processes: Processes, run: Run) -> int:
    """Train in this process; the exit code."""
    logging.basicConfig(
        level=(logging.DEBUG if args.verbose else logging.INFO) if processes.is_main else logging.CRITICAL,
        format="%(asctime)s  %(message)s",
        datefmt="%H:%M:%S",
    )
    keep_memory()
    warm_up_kernels()
    tune_convolutions(tf32=args.tf32, deterministic=args.deterministic)
    state = processes.run_on_main(partial(earlier_state, args, run.files))
    recipe = run.recipe
    if state and not recipe.norm_batch:
        recipe = replace(recipe, norm_batch=state.training["recipe"]["norm_batch"])
    device = processes.device
    trainer = Trainer(
        run.config,
        recipe,
        run.pairs,
        run.valid,
        run.files,
        run.execution,
        processes,
        shave=args.shave,
        info={
            "model": args.model,
            "train_data": args.train_data_path.name,
            "valid_data": [path.name for path in args.valid_data_path],
            "versions": {"hrn": __version__, "torch": str(torch.__version__)},
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        },
    )
    if state:
        trainer.resume(state)
        del state
    elif args.init_from:
        trainer.initialise_from(processes.run_on_main(lambda: load_checkpoint(find_checkpoint(args.init_from))))
    elif args.grow_from:
        trainer.grow_from(processes.run_on_main(lambda: load_checkpoint(find_checkpoint(args.grow_from))))
    if args.dry_run:
        plan = measure_plan(trainer)
        if processes.is_main:
            print(plan)
        return 0
    processes.run_on_main(partial(open_files, trainer, args.tensorboard))
    processes.run_on_all(partial(run.pairs.verify, processes.rank, processes.count))
    logging.info(
        "%s %s: %s parameters, %d training images, %d process(es) on %s, %d patches at once of %d a step, BatchNorm over %d",
        args.model, run.files.name, f"{sum(p.numel() for p in trainer.learner.parameters):,}", len(run.pairs),
        processes.count, device.type, trainer.share, recipe.batch_size, trainer.recipe.norm_batch,
    )  # fmt: skip
    logging.info("from step %d to %d; writing to %s", trainer.step, recipe.max_steps, run.files.folder)
    bar = tqdm(total=recipe.max_steps, initial=trainer.step, unit="step", disable=None if processes.is_main else True)
    with bar, logging_redirect_tqdm():
        stopped = trainer.fit(progress=lambda step: bar.update(step - bar.n))
    if trainer.tensorboard:
        trainer.tensorboard.close()
    if not stopped:
        return 0
    if processes.is_main:
        name = signal.Signals(stopped).name
        print(
            f"stopped by {name} at step {trainer.step}, and saved. To go on: python {command_to_go_on()}",
            file=sys.stderr,
        )
    return 128 + stopped


def earlier_state(args: argparse.Namespace, files: RunFiles) -> Checkpoint | None:
    """What to go on from: the state that was asked for, or the newest one after torchrun's restart. Raises HRNError."""
    if args.resume is True or (is_restarted() and files.states()):
        return files.newest_state()
    if args.resume is None:
        return None
    state = load_state(args.resume)
    newest = files.states()[:1]
    if newest and step_of(newest[0]) > state.training["step"]:
        raise HRNError(
            f"{args.resume} is of step {state.training['step']}, but {newest[0]} is there: go on from that with --resume alone, "
            "or delete what is newer, or choose another --ckpt_name"
        )
    return state


def open_files(trainer: Trainer, tensorboard: bool) -> None:
    """Make the folder of a run, and what is written there besides checkpoints. Raises HRNError."""
    try:
        trainer.files.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HRNError(f"--ckpt_dir {trainer.files.folder}: {error.strerror}") from None
    if tensorboard:
        trainer.tensorboard = TensorBoard(trainer.files.pictures, trainer.step)


def command_to_go_on() -> str:
    """This command line, resuming from the newest state."""
    words = list(sys.argv)
    if "--resume" in words:
        at = words.index("--resume")
        named = at + 1 < len(words) and not words[at + 1].startswith("--")
        del words[at : at + 1 + named]
    return shlex.join([*words, "--resume"])


def cli() -> int:
    """Entry point of the console script hrn-train."""
    return run_cli(main)


if __name__ == "__main__":
    exit_process(cli())
