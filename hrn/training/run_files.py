"""Output files of a run, all in one folder: weights for inference, the latest training states, a log."""

import glob
import json
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hrn.checkpoint import Checkpoint, load_checkpoint
from hrn.errors import HRNError, UnreadableError
from hrn.files import is_disk_full, write_text
from hrn.locks import check_unlocked, lock_or_refuse
from hrn.model import config_to_dict
from hrn.model.config import Config
from hrn.training.recipe import Recipe

logger = logging.getLogger(__name__)

STATE_KEYS = {"step", "pending_validation", "best", "recipe", "learner"}
"""Keys that a training state must have to be resumed."""


@dataclass(frozen=True)
class RunFiles:
    """Paths of a run's files.

    Args:
        folder: the output folder.
        name: name of the run, which starts all file names.
    """

    folder: Path
    name: str

    @property
    def weights(self) -> Path:
        """Weights for inference: the best validated ones, or the last ones if there is no validation."""
        return self.folder / f"{self.name}.pth"

    @property
    def log(self) -> Path:
        """Log with one JSON object per line."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.folder / f"{self.name}.tensorboard"

    @property
    def marker(self) -> Path:
        """Empty marker file, present while the run may be restarted automatically. A restart then treats the run's files as its own."""
        return self.folder / f".{self.name}.running"

    @property
    def lock(self) -> Path:
        """Empty file that the process which writes the run has locked."""
        return self.folder / f".{self.name}.lock"

    def state_path(self, step: int) -> Path:
        """Return the path of the training state after `step` updates, for `--resume`."""
        return self.folder / f"{self.name}.{step:08d}.train.pth"

    def states(self) -> list[Path]:
        """Return the existing training states, newest first."""
        name = re.compile(re.escape(self.name) + r"\.\d{8,}\.train\.pth")
        found = [p for p in self.folder.glob("*.train.pth") if name.fullmatch(p.name)]
        return sorted(found, key=step_of, reverse=True)

    def check_unused(self) -> None:
        """Check that no earlier run has written files of this name.

        Raises:
            HRNError: a training state, weights or a log exists.
        """
        if states := self.states():
            raise HRNError(
                f"{states[0]} is from an earlier run: use --resume to continue it, use another --ckpt_name, or delete it"
            )
        aside = (p for p in self.folder.glob(f"{glob.escape(self.name)}.*.pth") if p.name.split(".")[-2].isdigit())
        for path in (self.weights, self.log, *aside):
            if path.exists():
                raise HRNError(
                    f"{path} is from an earlier run and would be overwritten: use another --ckpt_name or --ckpt_dir, or move it"
                )

    def claim(self) -> AbstractContextManager[None]:
        """Keep other processes from writing a run of this name. Without file locks (Windows), this has no effect.

        Raises:
            HRNError: another process is writing a run of this name.
        """
        return lock_or_refuse(self.lock, self._refusal)

    def check_unclaimed(self) -> None:
        """Check that no other process is writing a run of this name. Raises HRNError."""
        check_unlocked(self.lock, self._refusal)

    @property
    def _refusal(self) -> str:
        return (
            f"another process is writing the run {self.name} in {self.folder}: wait until it ends, or use another "
            "--ckpt_name or --ckpt_dir. For several GPUs, start one process with --num_gpu."
        )

    def owns(self, state: Path) -> bool:
        """Return whether a file is in the run's folder and has the name of one of its states."""
        return state.name.startswith(f"{self.name}.") and state.parent.resolve() == self.folder.resolve()

    def clear_after(self, step: int) -> None:
        """Delete states after `step`, which could not be read, and half-written files of a killed process."""
        later = [p for p in self.states() if step_of(p) > step]
        for path in (*later, *self.folder.glob(f".{glob.escape(self.name)}.*.part")):
            with suppress(OSError):
                path.unlink()

    def set_aside(self, step: int) -> Path | None:
        """Rename the best weights, of `step`, so that new ones do not overwrite them.

        Returns:
            The new path, or None if there are no such weights.

        Raises:
            HRNError: they cannot be renamed.
        """
        aside = self.folder / f"{self.name}.{step:08d}.pth"
        try:
            if self.weights.exists() and not aside.exists():  # otherwise an interrupted attempt has renamed it
                self.weights.replace(aside)
        except OSError as error:
            raise HRNError(f"cannot rename {self.weights} to {aside}: {error.strerror}") from None
        return aside if aside.exists() else None

    def delete_old_states(self, keep: int) -> None:
        """Delete all training states but the `keep` newest."""
        for path in self.states()[keep:]:
            with suppress(OSError):
                path.unlink()

    def save_state(self, step: int, keep: int, save: Callable[[Path], None]) -> None:
        """Write a training state with `save` and keep the newest ones. If the disk is full, older ones are deleted first.

        Raises:
            HRNError: the state cannot be written even then. The newest earlier state is intact.
        """
        try:
            save(self.state_path(step))
        except HRNError as error:
            full = is_disk_full(error)
            if not full or len(self.states()) < 2:
                raise
            self.delete_old_states(1)
            save(self.state_path(step))
        self.delete_old_states(keep)

    def load_newest_state(self) -> Checkpoint:
        """Read the newest training state that is not damaged. Raises HRNError if there is none, or if one cannot be read now."""
        damaged = []
        for path in self.states():
            try:
                return load_state(path)
            except UnreadableError:
                raise  # continuing from an older state would delete this one
            except HRNError as error:
                logger.warning("%s", error)
                damaged.append(path.name)
        unreadable = f"; {', '.join(damaged)} cannot be read" if damaged else ""
        raise HRNError(
            f"nothing to resume: no training state {self.name}.*.train.pth in {self.folder}{unreadable}. If the run ended before "
            f"its first state (--save_interval), move {self.log.name} away and start again without --resume."
        )


class Background:
    """Runs one action at a time in a thread, such as writing a file while training continues."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def start(self, action: Callable[[], None]) -> None:
        """Start an action after the previous one has ended."""
        self.wait()
        self._running = self._pool.submit(action)

    def wait(self) -> None:
        """Wait for the action that is running, and raise its exception if it failed."""
        running, self._running = self._running, None
        if running:
            running.result()

    close = wait


def copy_to_cpu(value: Any) -> Any:
    """Copy nested dicts and lists, with all tensors copied to the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: copy_to_cpu(item) for name, item in value.items()}
    return [copy_to_cpu(item) for item in value] if isinstance(value, list) else value


def step_of(path: Path) -> int:
    """Return the step in the name of a training state."""
    return int(path.name.split(".")[-3])


def load_state(path: Path) -> Checkpoint:
    """Read a training state.

    Raises:
        UnreadableError: the state is of a version that cannot be read.
        HRNError: `path` is not a training state, or is damaged.
    """
    state = load_checkpoint(path)
    if state.training is None:
        raise HRNError(f"{path} contains weights only and cannot be resumed; start a new run from it with --init_from")
    if missing := STATE_KEYS - state.training.keys():
        raise UnreadableError(
            f"{path}: training state of another version, without {', '.join(sorted(missing))}; it cannot be resumed"
        )
    if not all(isinstance(state.training[key], dict) for key in ("recipe", "learner")):
        raise HRNError(f"{path}: damaged training state: its recipe or its optimizer state is not a dict")
    return state


def check_same_run(state: Checkpoint, config: Config, recipe: Recipe, info: Mapping[str, Any]) -> None:
    """Check that a run may continue from a training state.

    Args:
        state: a state of :func:`load_state`.
        config: the run's network.
        recipe: the run's recipe.
        info: facts about the run, with the name, number and fingerprint of the training images.

    Raises:
        HRNError: the network, the recipe or the training images differ from the state's.
    """
    if state.config != config:
        raise HRNError(
            f"{state.path}: the network differs: {config_to_dict(state.config)}, not {config_to_dict(config)}"
        )
    different = []
    if flags := recipe.differences(state.training["recipe"]):
        different.append(flags)
    if different_info(state.info, info, "train_images"):
        different.append(f"--train_data_path {state.info.get('train_data', '')} of {state.info['train_images']} images")
    elif different_info(state.info, info, "train_fingerprint"):
        different.append(f"another --train_data_path {state.info.get('train_data', '')}, with other images")
    if different:
        raise HRNError(
            f"{state.path} was trained with {', '.join(different)}. Use the same flags, or start a new run under another "
            f"--ckpt_name. To start it from these weights, with a new optimizer and schedule, use --init_from {state.path}."
        )


def validation_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Describe how the validation of a run differs from that of a training state. Empty if their scores are comparable.

    Renamed test sets, and the same ones in another order, do not count if both sides have fingerprints.
    """
    names = ["valid_data", "valid_images", "valid_fingerprints", "shave"]
    fingerprints = [info.get("valid_fingerprints") for info in (before, after)]
    if None not in fingerprints and sorted(fingerprints[0]) == sorted(fingerprints[1]):
        names = ["shave"]
    return ", ".join(f"{name} from {before[name]} to {after[name]}" for name in different_info(before, after, *names))


def different_info(before: Mapping[str, Any], after: Mapping[str, Any], *names: str) -> list[str]:
    """Return the names whose values differ. A value that either side lacks counts as equal."""
    return [name for name in names if name in before and name in after and before[name] != after[name]]


@dataclass
class JsonLines:
    """A JSON Lines log. A resumed run truncates it at the step where it continues."""

    path: Path
    _unwritten: list[str] = field(default_factory=list)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line. If it cannot be written (full disk), it is kept and written with the next one."""
        self._unwritten.append(json.dumps(line) + "\n")
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(self._unwritten))
            except OSError:
                with suppress(OSError), self.path.open("r+b") as file:
                    file.truncate(size)  # removes a partial line
                raise
        except OSError as error:
            logger.error("cannot write %s now: %s", self.path, error.strerror)
        else:
            self._unwritten.clear()

    def cut(self, step: int) -> None:
        """Remove the lines after `step`, which a resumed run writes again."""
        if self.path.is_file():
            lines = [line for line in read_log(self.path) if line["step"] <= step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log. An incomplete last line is left out.

    Raises:
        HRNError: no such file, or not a training log.
    """
    if not path.is_file():
        raise HRNError(f"no such log: {path}")
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True), 1):
        if not text.endswith("\n"):
            break
        try:
            line = json.loads(text)
            lines.append({**line, "step": int(line["step"])})
        except (ValueError, TypeError, KeyError):
            raise HRNError(f"{path}: line {number} is not a line of a training log") from None
    return lines
