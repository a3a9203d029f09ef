"""Train HRN.

    python hrn/train.py --model hrn --ckpt_name mine --ckpt_dir checkpoint/mine --scale 4 --train_data_path dataset/DIV2K_train.h5
    python hrn/train.py --config recipe.toml     flags from a file; the command line wins
    python hrn/train.py ... --set frequency=none channels=29    a variant of the preset; the fields are those of HRNConfig
    python hrn/train.py ... --resume             continue after an interruption
    python hrn/train.py ... --dry_run            print the time and memory that a run needs; writes nothing
    python hrn/train.py ... --num_gpu 4          four processes; the same as torchrun --nproc_per_node=4 hrn/train.py ...

Writes to --ckpt_dir: NAME_x4.pth (weights for inference), NAME_x4.STEP.train.pth (for --resume), NAME_x4.jsonl (log).
"""

import argparse
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hrn.checkpoint import load_checkpoint
from hrn.cli import run_cli
from hrn.distributed import (
    Processes,
    check_gpu_count,
    check_process_count,
    exit_process,
    is_restarted,
    join_processes,
    launch,
    started_by_torchrun,
)
from hrn.errors import HRNError
from hrn.memory import is_out_of_memory, keep_memory
from hrn.pretrained import find_checkpoint
from hrn.runtime import tune_convolutions, warm_up_kernels
from hrn.training.dry_run import measure_cost
from hrn.training.flags import parse_args
from hrn.training.initial_weights import grow_from, init_from
from hrn.training.setup import (
    Setup,
    build_trainer,
    check_outputs,
    claim_outputs,
    find_state,
    join_words,
    open_outputs,
    prepare,
    resume_command,
    verify_images,
)
from hrn.training.trainer import Trainer


def main(argv: list[str] | None = None) -> int:
    """Parse the flags, start the processes and train. Returns the exit code."""
    args = parse_args(argv, __doc__)
    if args.num_gpu < 0:
        raise HRNError(f"--num_gpu must be at least 0, not {args.num_gpu}")
    if args.num_gpu == 0 and args.device not in ("auto", "cpu"):
        raise HRNError(f"--num_gpu 0 uses the CPU and cannot be combined with --device {args.device}")
    check_process_count(args.num_gpu)
    if args.num_gpu > 1 and not started_by_torchrun():
        check_gpu_count(args.num_gpu, args.device)
        setup = prepare(args, args.num_gpu)
        if not args.dry_run:
            check_outputs(args, setup)
        return launch(__file__, sys.argv[1:] if argv is None else argv, args.num_gpu)
    with join_processes(args.device if args.num_gpu else "cpu") as processes:
        if processes.device.type == "mps":
            raise HRNError("--device mps: MPS lacks float64, which training needs; train on cuda or cpu")
        restarted = processes.max(is_restarted()) > 0  # torchrun does not count every restart on every machine
        setup = prepare(args, processes.count, restarted=restarted)
        with memory_errors(processes):
            return train(args, processes, setup)


def train(args: argparse.Namespace, processes: Processes, setup: Setup) -> int:
    """Train in this process. Returns the exit code."""
    logging.basicConfig(
        level=logging.INFO if processes.is_main else logging.CRITICAL,
        format="%(asctime)s  %(message)s",
        datefmt="%H:%M:%S",
    )
    keep_memory()
    warm_up_kernels()
    tune_convolutions(tf32=args.tf32, deterministic=args.deterministic)
    with ExitStack() as claimed:
        return run(args, processes, setup, claimed)


def run(args: argparse.Namespace, processes: Processes, setup: Setup, claimed: ExitStack) -> int:
    """Build the trainer and train, or measure the cost. Returns the exit code. `claimed` holds the claim on the output files."""

    def claim() -> None:
        processes.run_on_main(lambda: claimed.enter_context(claim_outputs(setup.files)))

    if not args.dry_run:
        processes.run_on_main(partial(check_outputs, args, setup))
    existed = processes.run_on_main(setup.files.folder.is_dir)
    if existed and not args.dry_run:  # before a state is chosen, so that no other process writes a newer one
        claim()
    state = processes.run_on_main(partial(find_state, args, setup))
    trainer = build_trainer(args, setup, processes, state)
    for source, start in ((args.init_from, init_from), (args.grow_from, grow_from)):
        if source and not state:
            start(trainer, processes.run_on_main(lambda name=source: load_checkpoint(find_checkpoint(name))))
    del state
    if args.dry_run:
        cost = measure_cost(trainer)
        if processes.is_main:
            print(cost)
        return 0
    if not existed:  # errors until here leave no folder
        claim()
    restartable = started_by_torchrun() or args.auto_resume
    processes.run_on_main(partial(open_outputs, trainer, tensorboard=args.tensorboard, restartable=restartable))
    processes.run_on_all(partial(verify_images, setup, args.shave, processes))
    log_start(args.model, trainer)
    total = trainer.recipe.max_steps
    bar = tqdm(total=total, initial=trainer.step, unit="step", disable=None if processes.is_main else True)
    with bar, logging_redirect_tqdm():
        stopped = trainer.fit(progress=lambda step: bar.update(step - bar.n))
    if trainer.tensorboard:
        trainer.tensorboard.close()
    if not stopped:
        if processes.is_main:
            setup.files.marker.unlink(missing_ok=True)
        return 0
    if processes.is_main:
        name = signal.Signals(stopped).name
        by_torchrun = started_by_torchrun() and args.num_gpu <= 1
        command = (
            "the same torchrun command with --resume"
            if by_torchrun
            else join_words([sys.executable, *resume_command(sys.argv)])
        )
        with suppress(OSError):  # the terminal may be closed
            print(
                f"stopped by {name} at step {trainer.step}; the training state is saved.\nTo continue: {command}",
                file=sys.stderr,
            )
    return 128 + stopped


@contextmanager
def memory_errors(processes: Processes) -> Iterator[None]:
    """Raise an HRNError that names the flags that help if memory runs out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise HRNError(
            f"not enough memory on {processes.device}. Start a new run with a larger --accumulate, or with a smaller "
            "--batch_size or --patch_size. To keep the trained weights, pass a checkpoint of this run to --init_from. "
            "With --norm_batch or --freeze_norm, --resume also accepts a larger --accumulate."
        ) from None


def log_start(model: str, trainer: Trainer) -> None:
    """Log the size of the run and how it is distributed."""
    processes, recipe, learner = trainer.processes, trainer.recipe, trainer.learner
    where = f" in {processes.device.type} memory" if trainer.data.on_gpu else ""
    logging.info(
        "%s %s: %s parameters, %d training images%s, %d process(es) on %s%s, %d of %d patches at a time, %s",
        model, trainer.files.name, f"{sum(p.numel() for p in learner.parameters):,}", len(trainer.pairs), where,
        processes.count, processes.device.type, ", compiled" if learner.compiled else "", trainer.data.micro_batch_size, recipe.batch_size, learner.describe_norm(),
    )  # fmt: skip
    logging.info("training from step %d to %d; writing to %s", trainer.step, recipe.max_steps, trainer.files.folder)


def cli() -> int:
    """Entry point of the console script hrn-train."""
    return run_cli(main)


if __name__ == "__main__":
    exit_process(cli())
