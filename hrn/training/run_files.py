"""What a run writes, all in one folder: weights for use, the latest training states, a log."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hrn.checkpoint import Checkpoint, load_checkpoint
from hrn.errors import HRNError
from hrn.files import write_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFiles:
    """The names of a run's files."""

    folder: Path
    name: str

    @property
    def best(self) -> Path:
        """Weights for use: the best validated ones, or the last ones where there is no validation."""
        return self.folder / f"{self.name}.pth"

    @property
    def log(self) -> Path:
        """A JSON object a line."""
        return self.folder / f"{self.name}.jsonl"

    @property
    def pictures(self) -> Path:
        """For TensorBoard."""
        return self.folder / f"{self.name}.tensorboard"

    def state(self, step: int) -> Path:
        """All that `--resume` needs, after `step` updates."""
        return self.folder / f"{self.name}.{step:08d}.train.pth"

    def states(self) -> list[Path]:
        """The training states that are there, newest first."""
        name = re.compile(re.escape(self.name) + r"\.\d{8,}\.train\.pth")
        found = [p for p in self.folder.glob("*.train.pth") if name.fullmatch(p.name)]
        return sorted(found, key=step_of, reverse=True)

    def clear_after(self, step: int) -> None:
        """Delete what a run that goes on from `step` has no use for: damaged later states, and files that a kill left half-written."""
        later = [p for p in self.states() if step_of(p) > step]
        for path in (*later, *self.folder.glob(f".{self.name}.*.part")):
            with suppress(OSError):
                path.unlink()

    def keep(self, count: int) -> None:
        """Delete all training states but the newest ones."""
        for path in self.states()[count:]:
            with suppress(OSError):
                path.unlink()

    def save_state(self, step: int, keep: int, save: Callable[[Path], None]) -> None:
        """Let `save` write a training state, and keep the newest ones; where the disk is full, older ones make room.

        Raises:
            HRNError: it cannot be written even so; the newest earlier one is intact.
        """
        try:
            save(self.state(step))
        except HRNError:
            if len(self.states()) < 2:
                raise
            self.keep(1)
            save(self.state(step))
        self.keep(keep)

    def newest_state(self) -> Checkpoint:
        """The newest training state that can be read.

        Raises:
            HRNError: there is none.
        """
        damaged = []
        for path in self.states():
            try:
                return load_state(path)
            except HRNError as error:
                logger.warning("%s", error)
                damaged.append(path.name)
        told = f"; {', '.join(damaged)} cannot be read" if damaged else ""
        raise HRNError(f"nothing to resume: no training state {self.name}.*.train.pth in {self.folder}{told}")


def step_of(path: Path) -> int:
    """The step in the name of a training state."""
    return int(path.name.split(".")[-3])


def load_state(path: Path) -> Checkpoint:
    """Read a training state. Raises HRNError if `path` is none."""
    state = load_checkpoint(path)
    if state.training is None:
        raise HRNError(f"{path}: holds weights only, and cannot be resumed from; --init_from starts a new run from it")
    if missing := {"step", "owed", "best", "recipe", "learner"} - state.training.keys():
        raise HRNError(
            f"{path}: a training state of another version, which this one cannot resume (without {', '.join(sorted(missing))})"
        )
    return state


@dataclass
class JsonLines:
    """A log that is added to line by line, and cut where a resumed run goes on."""

    path: Path
    _waiting: list[str] = field(default_factory=list)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line; one that cannot be written (full disk) waits for the next."""
        self._waiting.append(json.dumps(line) + "\n")
        try:
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("".join(self._waiting))
            except OSError:
                with suppress(OSError), self.path.open("r+b") as file:
                    file.truncate(size)  # no half line stays
                raise
        except OSError as error:
            logger.error("cannot write %s now: %s", self.path, error.strerror)
        else:
            self._waiting.clear()

    def cut(self, step: int) -> None:
        """Drop what comes after `step`: the resumed run writes it again."""
        if self.path.is_file():
            write_text(
                self.path, "".join(json.dumps(line) + "\n" for line in read_log(self.path) if line["step"] <= step)
            )


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one that is only half there is left out.

    Raises:
        HRNError: no such file, or not a log.
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
