"""Series of training runs by `hrn/train.py`. They resume where they stopped, and finished runs are not repeated."""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hrn.errors import HRNError
from hrn.files import write_text
from hrn.training.run_files import read_log

ROOT = Path(__file__).resolve().parents[1]
NAME = "run"
"""Name of a run's files."""

Line = dict[str, float]
"""An entry of a training log."""


@dataclass(frozen=True)
class Run:
    """A training run at x4.

    Args:
        label: its name in error messages.
        flags: flags of `hrn/train.py`, without those of `add_flags` and the output files.
        seed: seed of the initialisation and of the patches.
        folder: output folder, for this run only.
    """

    label: str
    flags: Sequence[str]
    seed: int
    folder: Path

    @property
    def weights(self) -> Path:
        """Best validated weights."""
        return self.folder / f"{NAME}_x4.pth"

    def finish(self, args: argparse.Namespace, *, lines: int, validations: int) -> list[Line]:
        """Train to the end unless that is done, and return the log.

        Args:
            args: values of the flags of `add_flags`.
            lines: number of entries in the log.
            validations: number of validations.

        Raises:
            HRNError: `hrn/train.py` failed.
        """
        log = self.folder / f"{NAME}_x4.jsonl"
        if not log.is_file() or not (entries := read_log(log)) or entries[-1]["step"] < args.steps:
            interval = max(1, args.steps // lines)
            command = [
                *(sys.executable, str(ROOT / "hrn/train.py"), *self.flags, "--scale", "4"),
                *("--ckpt_name", NAME, "--ckpt_dir", str(self.folder), "--seed", str(self.seed)),
                *("--train_data_path", str(args.train_data_path), "--valid_data_path", str(args.valid_data_path)),
                *("--max_steps", str(args.steps), "--print_interval", str(interval), "--save_interval", str(interval)),
                *("--valid_interval", str(max(1, args.steps // validations))),
                *(["--resume"] if list(self.folder.glob("*.train.pth")) else []),
            ]
            if subprocess.run(command, check=False).returncode:
                raise HRNError(f"{self.label}, seed {self.seed}: training failed; its output is above")
        return read_log(log)


def seconds_per_step(logs: Iterable[Sequence[Line]], batch_size: int) -> float:
    """Median over the entries of all logs but their first ones, which include the start."""
    return statistics.median(
        batch_size / line["images_per_second"] for log in logs for line in log[1:] if "images_per_second" in line
    )


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
    text = f"(default: {' '.join(map(str, seeds))})"
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds), help=text)
    parser.add_argument("--work", type=Path, default=work, help="folder of the runs" + default)
    parser.add_argument("--table", type=Path, help="Markdown file for the table")
    parser.add_argument("--figure", type=Path, help="PNG, PDF or SVG for the figure")
