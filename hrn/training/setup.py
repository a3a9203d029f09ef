"""Preparation of a training run from its flags: checks, input data, output files, the state to resume."""

import argparse
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryFile

import torch

from hrn import __version__
from hrn.checkpoint import Checkpoint
from hrn.data.benchmark import TestSet, find_test_set
from hrn.data.h5 import H5Pairs
from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.evaluation.metrics import SSIM_WINDOW
from hrn.model import preset
from hrn.model.config import Config, with_settings
from hrn.training.monitor import TensorBoard
from hrn.training.recipe import Execution, Recipe, micro_batch_size
from hrn.training.run_files import RunFiles, load_state, step_of
from hrn.training.trainer import Trainer

MULTI_SCALE = (2, 3, 4)
"""The scales of `--scale 0`."""


@dataclass(frozen=True)
class Setup:
    """A run's settings and inputs, checked as far as possible before any process is started."""

    config: Config
    recipe: Recipe
    execution: Execution
    pairs: H5Pairs
    valid_sets: list[TestSet]
    files: RunFiles
    restarted: bool
    """Whether torchrun restarted the processes after a failure."""


def prepare(args: argparse.Namespace, processes: int, *, restarted: bool = False) -> Setup:
    """Check the flags and open the data. Raises HRNError."""
    recipe, execution = (cls(**{f.name: getattr(args, f.name) for f in fields(cls)}) for cls in (Recipe, Execution))
    micro_batch_size(recipe, processes, execution.accumulate)
    if args.init_from and args.grow_from:
        raise HRNError("--init_from and --grow_from are mutually exclusive")
    if recipe.freeze_norm and not args.init_from and args.resume is None:
        raise HRNError("--freeze_norm needs --init_from: new weights have no running statistics yet")
    if args.shave is not None and args.shave < 0:
        raise HRNError(f"--shave must be at least 0, not {args.shave}")
    if not args.ckpt_name or Path(args.ckpt_name).name != args.ckpt_name:
        raise HRNError(
            f"--ckpt_name {args.ckpt_name!r} must be a file name without folders, and not empty; use --ckpt_dir for the folder"
        )
    scales = (args.scale,) if args.scale else MULTI_SCALE
    try:
        config = preset(args.model, scales)
    except ValueError as error:
        raise HRNError(f"--model {args.model} --scale {args.scale}: {error}") from None
    try:
        config = with_settings(config, args.set)
    except ValueError as error:
        raise HRNError(f"--set {' '.join(args.set)}: {error}") from None
    if (recipe.norm_batch or recipe.freeze_norm) and not config.has_batch_norm:
        flag = "--freeze_norm" if recipe.freeze_norm else "--norm_batch"
        raise HRNError(f"{flag} has no effect: this network has no BatchNorm")
    files = RunFiles(args.ckpt_dir, args.ckpt_name + "_" + "".join(f"x{s}" for s in scales))
    pairs = H5Pairs(args.train_data_path, scales)
    valid_sets = [find_test_set(path, s) for path in args.valid_data_path for s in scales]
    return Setup(config, recipe, execution, pairs, valid_sets, files, restarted)


def check_outputs(args: argparse.Namespace, setup: Setup) -> None:
    """Check that the output files are new, or those of the run to continue, and that no other process writes them.

    Raises:
        HRNError: files of another run exist, or another process writes this run.
    """
    files = setup.files
    files.check_unclaimed()
    if not setup.restarted and not args.auto_resume:  # a marker would be that of an earlier run
        with suppress(OSError):
            files.marker.unlink()
    if args.resume is True or (args.resume is not None and files.owns(args.resume)):
        return
    if args.auto_resume and files.states():
        return
    if files.marker.exists() and (setup.restarted or not files.weights.exists()):
        return
    with suppress(OSError):
        files.marker.unlink()  # otherwise a restart would mistake older files for those of this run
    try:
        files.check_unused()
    except HRNError:
        if args.resume is None:
            raise
        raise HRNError(
            f"--resume {args.resume}: {files.folder} already contains files of the run {files.name}, and this is not one of its "
            "training states. Use another --ckpt_name or --ckpt_dir. If it is a state of that run, move it to "
            f"{files.folder}/{files.name}.STEP.train.pth."
        ) from None


def verify_images(setup: Setup, shave: int | None, processes: Processes) -> None:
    """Read this process's share of the training and validation images once. Raises HRNError if one cannot be used."""
    setup.pairs.verify(processes.rank, processes.count)
    for test_set in setup.valid_sets:
        border = test_set.scale if shave is None else shave
        test_set.verify(2 * border + SSIM_WINDOW, processes.rank, processes.count)


def find_state(args: argparse.Namespace, setup: Setup) -> Checkpoint | None:
    """Load the training state to resume: the requested one, or after a restart the newest one.

    Raises:
        HRNError: the state cannot be read, or a newer one exists.
    """
    files = setup.files
    restarted = setup.restarted and files.marker.exists()
    if args.resume is True or ((restarted or args.auto_resume) and files.states()):
        return files.load_newest_state()
    if args.resume is None:
        return None
    state = load_state(args.resume)
    newest = files.states()[:1]
    if newest and step_of(newest[0]) > state.training["step"]:
        raise HRNError(
            f"--resume {args.resume} is at step {state.training['step']}, but {newest[0]} exists. Use --resume without a file "
            "to continue from that, delete the newer states, or use another --ckpt_name."
        )
    return state


def build_trainer(
    args: argparse.Namespace, setup: Setup, processes: Processes, state: Checkpoint | None = None
) -> Trainer:
    """Build the trainer, and resume `state` if given. Raises HRNError."""
    recipe, device = setup.recipe, processes.device
    if state and setup.config.has_batch_norm:
        recipe = recipe.with_norm_batch(state.training["recipe"].get("norm_batch", 0))
    info = {
        "model": " ".join([args.model, *args.set]),
        "train_data": args.train_data_path.name,
        "train_fingerprint": processes.run_on_main(setup.pairs.fingerprint),
        "valid_data": [path.name for path in args.valid_data_path],
        "valid_fingerprints": processes.run_on_main(lambda: [test_set.fingerprint() for test_set in setup.valid_sets]),
        "versions": {"hrn": __version__, "torch": str(torch.__version__)},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }
    trainer = Trainer(
        setup.config, recipe, setup.pairs, setup.valid_sets, setup.files, setup.execution, processes, args.shave, info
    )
    if state:
        trainer.resume(state)
    return trainer


@contextmanager
def claim_outputs(files: RunFiles) -> Iterator[None]:
    """Create the output folder, check that it is writable, and keep other processes from writing the run. Raises HRNError."""
    try:
        files.folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=files.folder).close()
    except OSError as error:
        raise HRNError(f"--ckpt_dir {files.folder}: {error.strerror}") from None
    with files.claim():
        yield


def open_outputs(trainer: Trainer, *, tensorboard: bool, restartable: bool) -> None:
    """Write the marker file if the run may be restarted automatically, and open TensorBoard's files if requested. Raises HRNError."""
    if restartable:
        try:
            trainer.files.marker.touch()
        except OSError as error:
            raise HRNError(f"--ckpt_dir {trainer.files.folder}: {error.strerror}") from None
    if tensorboard:
        trainer.tensorboard = TensorBoard(trainer.files.tensorboard, trainer.step)


def join_words(words: list[str]) -> str:
    """Quote the words of a command line for the shell of this system."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def resume_command(argv: list[str]) -> list[str]:
    """Return the words of a command line, changed to resume from the newest state."""
    words = list(argv)
    if "--resume" in words:
        at = words.index("--resume")
        has_file = at + 1 < len(words) and not words[at + 1].startswith("--")
        del words[at : at + 1 + has_file]
    return [*words, "--resume"]
