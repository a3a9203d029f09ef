"""Series of training runs by `hrn/train.py`. They resume where they stopped, and finished runs are not repeated."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from hrn.checkpoint import load_checkpoint
from hrn.cpus import cpu_count
from hrn.data.benchmark import TestSet
from hrn.errors import HRNError
from hrn.evaluation.evaluate import evaluate
from hrn.evaluation.metrics import mean_scores
from hrn.files import write_text
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model
from hrn.training.run_files import read_log

ROOT = Path(__file__).resolve().parents[1]
SCALE = 4
NAME = "run"
"""Name of a run's files."""
LINES = 12
"""Number of entries in a log, and of training states that are saved."""

Key = tuple[str, int, int]
"""Flags, seed and steps of a run."""


@dataclass(frozen=True)
class Run:
    """A training run at x4.

    Args:
        label: its name in tables and error messages.
        flags: flags of `hrn/train.py`, without those of `add_flags` and the output files.
        seed: seed of the initialisation and of the patches.
        steps: number of steps.
    """

    label: str
    flags: str
    seed: int
    steps: int

    @property
    def key(self) -> Key:
        """Identifies the run in a results file."""
        return self.flags, self.seed, self.steps

    def folder(self, work: Path) -> Path:
        """Return the run's output folder. Its name holds the settings, so that runs with other settings use other folders."""
        return work / f"steps{self.steps}" / re.sub(r"\W*--|\s", "_", self.flags).strip("_") / f"seed{self.seed}"

    def weights(self, work: Path) -> Path:
        """Best validated weights."""
        return self.folder(work) / f"{NAME}_x{SCALE}.pth"

    def log(self, work: Path) -> list[dict[str, Any]]:
        """Return the entries of the log, empty before the first one."""
        path = self.folder(work) / f"{NAME}_x{SCALE}.jsonl"
        return read_log(path) if path.is_file() else []

    def train(self, args: argparse.Namespace, validations: int, gpus: SimpleQueue[str]) -> None:
        """Train to the end unless that is done.

        Args:
            args: values of the flags of `add_flags`.
            validations: number of validations.
            gpus: the free places for jobs, see :func:`gpu_places`. The run takes one and returns it at its end.

        Raises:
            HRNError: `hrn/train.py` failed, or the run used other data.
        """
        log, folder = self.log(args.work), self.folder(args.work)
        if log and log[-1]["step"] >= self.steps:
            info = load_checkpoint(self.weights(args.work)).info
            check_data(info.get("train_data"), *info.get("valid_data", [None]), args, folder)
            return
        interval = max(1, self.steps // LINES)
        command = [
            *(sys.executable, str(ROOT / "hrn/train.py"), *self.flags.split(), "--scale", str(SCALE)),
            *("--ckpt_name", NAME, "--ckpt_dir", str(folder), "--seed", str(self.seed)),
            *("--train_data_path", str(args.train_data_path), "--valid_data_path", str(args.valid_data_path)),
            *("--max_steps", str(self.steps), "--print_interval", str(interval), "--save_interval", str(interval)),
            *("--valid_interval", str(max(1, self.steps // validations))),
            "--auto_resume",
        ]
        threads = {"OMP_NUM_THREADS": str(max(1, cpu_count() // args.jobs))} if args.jobs > 1 else {}
        gpu = gpus.get()
        try:
            environment = threads | os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
            if subprocess.run(command, check=False, env=environment).returncode:
                raise HRNError(f"{self.label}, seed {self.seed}: training failed; its output is above")
        finally:
            gpus.put(gpu)


def gpu_places(jobs: int) -> SimpleQueue[str]:
    """Return a place for each job: the GPU that it uses, in turn, or an empty text if there is no GPU."""
    visible = [str(index) for index in range(torch.cuda.device_count())]
    if visible and os.environ.get("CUDA_VISIBLE_DEVICES"):
        visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[: len(visible)]
    places: SimpleQueue[str] = SimpleQueue()
    for job in range(jobs):
        places.put(visible[job % len(visible)] if visible else "")
    return places


@dataclass(frozen=True)
class Outcome:
    """Results of a finished run, as stored in the results file."""

    flags: str
    seed: int
    steps: int
    torch: str
    """Version of PyTorch."""
    images_per_second: float
    """Median over all log entries except the first, which includes the start."""
    validations: list[dict[str, float]]
    """`step`, `psnr_y` and `ssim_y` of each validation."""
    psnr: dict[str, float]
    """PSNR-Y by test set, of the best validated weights."""
    train_data: str | None = None
    """Name of the training file; None in results of earlier versions."""
    valid_data: str | None = None
    """Name of the validation set; None in results of earlier versions."""

    @property
    def key(self) -> Key:
        """Identifies the run."""
        return self.flags, self.seed, self.steps


def check_data(train: str | None, valid: str | None, args: argparse.Namespace, where: Path) -> None:
    """Raise HRNError if earlier runs used another training file or validation set. None is unknown and accepted."""
    used = ((train, args.train_data_path.name, "trained"), (valid, args.valid_data_path.name, "validated"))
    for before, now, verb in used:
        if before not in (None, now):
            raise HRNError(f"{where}: {verb} on {before}, not on {now}; use another --work and --results")


def finish(
    runs: Sequence[Run], args: argparse.Namespace, *, validations: int, test_sets: Sequence[TestSet] = ()
) -> list[Outcome]:
    """Train and score the runs that are not in the results file yet, add them to it, and return the outcomes of all.

    Args:
        runs: the runs.
        args: values of the flags of `add_flags`.
        validations: number of validations of each run.
        test_sets: test sets to score the weights on.

    Raises:
        HRNError: fewer than one job, or a run failed or was trained on other data, or the results file is not one.
    """
    if args.jobs < 1:
        raise HRNError(f"--jobs {args.jobs} must be 1 or more")
    results = args.results or args.work / "results.jsonl"
    outcomes = {outcome.key: outcome for outcome in read_outcomes(results)}
    for run in runs:
        if run.key in outcomes:
            check_data(outcomes[run.key].train_data, outcomes[run.key].valid_data, args, results)
    names = {test_set.name for test_set in test_sets}
    missing = [run for run in runs if run.key not in outcomes or not names <= set(outcomes[run.key].psnr)]
    gpus = gpu_places(args.jobs)
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda run: run.train(args, validations, gpus), missing))
    for run in missing:
        outcome, known = score(run, args, test_sets), outcomes.get(run.key)
        if known and known.validations == outcome.validations:  # the same weights: keep scores on other test sets
            outcome = replace(outcome, psnr=known.psnr | outcome.psnr)
        outcomes[run.key] = outcome
        write_text(results, "".join(json.dumps(asdict(outcome)) + "\n" for outcome in outcomes.values()))
    return [outcomes[run.key] for run in runs]


def score(run: Run, args: argparse.Namespace, test_sets: Sequence[TestSet]) -> Outcome:
    """Score a run that has been trained."""
    log = run.log(args.work)
    speed = statistics.median(line["images_per_second"] for line in log[1:] or log if "images_per_second" in line)
    validations = [{key: line[key] for key in ("step", "psnr_y", "ssim_y")} for line in log if "psnr_y" in line]
    enlarger = Enlarger(load_model(run.weights(args.work)), SCALE)
    psnr = {s.name: mean_scores([image.scores for image in evaluate(enlarger, s)])["psnr_y"] for s in test_sets}
    data = args.train_data_path.name, args.valid_data_path.name
    return Outcome(run.flags, run.seed, run.steps, torch.__version__, speed, validations, psnr, *data)


def read_outcomes(path: Path) -> list[Outcome]:
    """Read a results file; an absent one is empty.

    Raises:
        HRNError: not a results file.
    """
    if not path.is_file():
        return []
    try:
        return [Outcome(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise HRNError(f"{path}: not a file of results: {error}") from error


def write_results(args: argparse.Namespace, table: str, draw: Callable[[Path], None]) -> None:
    """Print the table, and write the files that the flags of `add_flags` ask for.

    Args:
        args: values of the flags of `add_flags`.
        table: the table in Markdown.
        draw: writes the figure to a path.
    """
    print(table)
    if args.table:
        write_text(args.table, table)
    if args.figure:
        draw(args.figure)


def add_flags(parser: argparse.ArgumentParser, *, steps: int, seeds: Sequence[int], work: Path) -> None:
    """Add the flags of a series of runs with their defaults."""
    default = " (default: %(default)s)"
    parser.add_argument("--train_data_path", type=Path, required=True, metavar="H5", help="training pairs")
    parser.add_argument("--valid_data_path", type=Path, required=True, metavar="PATH", help="validation images")
    parser.add_argument("--steps", type=int, default=steps, help="steps of every run" + default)
    text = f"seeds; every variant is trained once with each (default: {' '.join(map(str, seeds))})"
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help=text)
    text = "runs at a time, which share the CPU threads and are distributed over the GPUs" + default
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=text)
    parser.add_argument("--work", type=Path, default=work, help="folder of the runs" + default)
    text = "file of finished runs, which are not repeated (default: results.jsonl in --work)"
    parser.add_argument("--results", type=Path, metavar="JSONL", help=text)
    parser.add_argument("--table", type=Path, help="Markdown file for the table")
    parser.add_argument("--figure", type=Path, help="PNG, PDF or SVG for the figure")
