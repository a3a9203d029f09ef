"""The training loop.

Every random choice is a function of (seed, index), so a resumed run sees the patches that it would have seen. Nothing
else is drawn: the same recipe gives the same run, stopped or not.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from hrn.checkpoint import Checkpoint, load_matching_weights, load_network, save_checkpoint
from hrn.data.benchmark import TestSet
from hrn.data.h5 import H5Pairs
from hrn.data.patches import PatchDataset
from hrn.distributed import Processes, is_worker
from hrn.errors import HRNError
from hrn.evaluation.evaluate import evaluate, mean_scores
from hrn.files import file_hash
from hrn.inference.enlarger import Enlarger
from hrn.model import HRN, config_to_dict
from hrn.model.config import Config
from hrn.model.growth import grow
from hrn.training.learner import Learner, Patches
from hrn.training.monitor import TensorBoard, log_line
from hrn.training.recipe import Execution, Recipe, share_of
from hrn.training.run_files import JsonLines, RunFiles
from hrn.training.signals import StopSignal, ignore_signals, kill_loaders_on_error

logger = logging.getLogger(__name__)

MOST_SKIPPED_IN_A_ROW = 100
LOOK_EVERY = {"cuda": 10}
"""Steps between looks at what other processes and the GPU have to say, which wait for them; elsewhere every step."""
SHOWN_PICTURES = 4


@dataclass
class Trainer:
    """A run, or one process's part of it. `fit` does it all; the rest is there to be read and tested.

    Args:
        config: of the network.
        recipe: how to train.
        pairs: training images at `config.scales`.
        valid: test sets to choose the best weights by, perhaps none.
        files: what to write.
        execution: how the machine is used.
        processes: this process among those of the run.
        shave: border left out of validation scores; the scale by default.
        info: goes into the checkpoints.

    Raises:
        HRNError: the batch cannot be shared out, or an image is smaller than a patch.
    """

    config: Config
    recipe: Recipe
    pairs: H5Pairs
    valid: list[TestSet]
    files: RunFiles
    execution: Execution = field(default_factory=Execution)
    processes: Processes = field(default_factory=Processes)
    shave: int | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.share = share_of(self.recipe, self.processes.count, self.execution.accumulate)
        self.info = {**self.info, "shave": [s if self.shave is None else self.shave for s in self.config.scales]}
        self.recipe = recipe = replace(self.recipe, norm_batch=self.recipe.norm_batch or self.share)
        self.patches = PatchDataset(
            self.pairs,
            patch_size=recipe.patch_size,
            batch_size=recipe.batch_size,
            length=recipe.max_steps * recipe.batch_size,
            seed=recipe.seed,
        )
        self.learner = Learner(self.config, self.recipe, self.execution, self.processes)
        self.log = JsonLines(self.files.log)
        self.tensorboard: TensorBoard | None = None
        self.step = 0
        self.owed: dict[str, Any] | None = None
        """The log line of a step whose validation was cut short by a stop."""
        self.best: dict[str, float] | None = None

    # the loop

    def fit(self, progress: Callable[[int], None] = lambda step: None) -> int:
        """Train up to `recipe.max_steps`, logging, validating and saving on the way. `progress` is told each step.

        Returns:
            0, or the signal that the run was stopped by; it is then saved, and can be resumed.

        Raises:
            HRNError: too many steps in a row without a finite gradient, or the last state cannot be written.
        """
        if self.step >= self.recipe.max_steps and self.owed is None:
            logger.info("nothing to do: step %d of %d is reached", self.step, self.recipe.max_steps)
            return 0
        if self.processes.is_main:
            self.log.cut(self.step if self.owed is None else self.step - 1)
            self.files.clear_after(self.step)
        with kill_loaders_on_error(), StopSignal(patient=is_worker()) as request:
            stopped = self._report(self.owed, request, 0) if self.owed is not None else 0
            stopped = stopped or self._loop(request, progress)
        if not self.valid and not stopped:
            self.save_weights({})
        return stopped

    def _loop(self, request: StopSignal, progress: Callable[[int], None]) -> int:
        recipe = self.recipe
        logged_step, logged_at, resting = self.step, time.perf_counter(), 0.0
        for parts in self.batches():
            self.learner.step(parts, recipe.lr_at(self.step))
            self.step += 1
            progress(self.step)
            looking = self._last or self.step % LOOK_EVERY.get(self.processes.device.type, 1) == 0
            looking = looking or (self.processes.count == 1 and request.signal)
            stopped = self._look(request) if looking else 0
            line: dict[str, Any] = {}
            if self.step % recipe.print_interval == 0 or self._last:
                now = time.perf_counter()
                rate = (self.step - logged_step) / (now - logged_at - resting)
                line = {
                    "step": self.step,
                    **self.learner.tally(),
                    "lr": recipe.lr_at(self.step - 1),
                    "images_per_second": rate * recipe.batch_size,
                    "seconds_left": (recipe.max_steps - self.step) / rate,
                }
                logged_step, logged_at, resting = self.step, now, 0.0
            started = time.perf_counter()
            stopped = self._report(line, request, stopped)
            resting += time.perf_counter() - started
            if stopped:
                return stopped
        return 0

    @property
    def _last(self) -> bool:
        return self.step >= self.recipe.max_steps

    def _report(self, line: dict[str, Any], request: StopSignal, stopped: int) -> int:
        """What is due after a step: validation, log, training state. A stop leaves the validation and its log line owed."""
        recipe = self.recipe
        if self.valid and (self.step % recipe.valid_interval == 0 or self._last):
            scores = None if stopped else self.validate(request)
            if scores is None:
                self.owed = line
                self.save_state()
                return stopped or self.processes.max(request.signal)
            line = {"step": self.step, **line, **scores}
        self.owed = None
        if line:
            self._tell(line)
        if self.step % recipe.save_interval == 0 or self._last or stopped:
            self.save_state(must=bool(self._last or stopped))
        return 0 if self._last else stopped

    def batches(self) -> Iterator[list[Patches]]:
        """This process's share of each step's batch from the present step on, in `accumulate` parts."""
        execution, cuda = self.execution, self.processes.device.type == "cuda"
        workers = execution.workers if execution.workers >= 0 else (4 if cuda else 0)
        loader = DataLoader(  # one pass is the whole run, so the workers stay
            self.patches,
            self.share,
            sampler=self._indices(),
            num_workers=workers,
            pin_memory=cuda,
            worker_init_fn=ignore_signals,
            generator=torch.Generator(),  # the global one is left alone
            prefetch_factor=4 if workers else None,
        )
        parts: list[Patches] = []
        for part in loader:
            parts.append(tuple(part))
            if len(parts) == execution.accumulate:
                yield parts
                parts = []

    def _indices(self) -> Iterator[int]:
        mine = self.recipe.batch_size // self.processes.count
        for step in range(self.step, self.recipe.max_steps):
            first = step * self.recipe.batch_size + self.processes.rank * mine
            yield from range(first, first + mine)

    def _look(self, request: StopSignal) -> int:
        """The signal that any process was stopped by, or 0. Raises HRNError if the run does not get anywhere."""
        skipped = self.learner.skipped_in_a_row()
        if skipped >= MOST_SKIPPED_IN_A_ROW:
            raise HRNError(
                f"{skipped} steps in a row without a finite loss and gradient, up to step {self.step}; "
                f"lower --lr, or use --precision fp32. The last good states are kept in {self.files.folder}"
            )
        return self.processes.max(request.signal)

    # validation

    def validate(self, request: StopSignal | None = None) -> dict[str, float] | None:
        """Score the validation sets by the evaluation protocol, and keep the weights if they are the best so far.

        The images are dealt out to the processes. None where a stop was requested meanwhile.
        """
        network = self.learner.shipped.eval()
        rows = []
        for test_set in self.valid:
            mine = self._score(network, test_set, request)
            if mine is None:
                break
            rows.append(mean_scores(self.processes.gather(mine)))
        self.learner.model.train()
        if len(rows) < len(self.valid):
            return None
        scores = {name: sum(row[name] for row in rows) / len(rows) for name in ("psnr_y", "ssim_y")}
        if self.best is None or scores["psnr_y"] > self.best["psnr_y"]:
            best = {"step": self.step, **scores}
            try:
                self.save_weights(best)
            except HRNError as error:
                logger.error("%s; going on", error)
            else:
                self.best = best
        return scores

    def _score(self, network: nn.Module, test_set: TestSet, request: StopSignal | None) -> list[dict] | None:
        """The scores of this process's images of a set, or None where any process was asked to stop."""
        enlarger, count, mine = Enlarger(network, test_set.scale), self.processes.count, []
        for first in range(0, len(test_set.images), count):
            share = test_set.images[first : first + count][self.processes.rank :][:1]
            one = replace(test_set, images=share)
            for result in evaluate(enlarger, one, shave=self.shave):
                if self.tensorboard and len(mine) < SHOWN_PICTURES:
                    self.tensorboard.picture(f"{test_set.name} x{test_set.scale}/{result.name}", result.sr, self.step)
                mine.append(result.scores)
            if request and self.processes.max(request.signal):
                return None
        return mine

    # files

    def save_weights(self, scores: dict[str, float]) -> None:
        """Write the weights for use."""
        if self.processes.is_main:
            info = {**self.info, "steps": self.step, "recipe": asdict(self.recipe), "validation": scores}
            save_checkpoint(self.files.best, self.config, self.learner.shipped.state_dict(), info=info)

    def save_state(self, *, must: bool = True) -> None:
        """Write all that a resume needs. Where that fails, the run goes on, unless it `must` succeed."""
        if not self.processes.is_main:
            return
        training = {
            "step": self.step,
            "owed": self.owed,
            "best": self.best,
            "recipe": asdict(self.recipe),
            "execution": asdict(self.execution),
            "processes": self.processes.count,
            "learner": self.learner.state_dict(),
        }

        def save(path: Path) -> None:
            save_checkpoint(path, self.config, self.learner.model.state_dict(), info=self.info, training=training)

        try:
            self.files.save_state(self.step, self.execution.keep, save)
        except HRNError as error:
            if must:
                raise
            logger.error("%s; going on, the last state is of an earlier step", error)

    def resume(self, state: Checkpoint) -> None:
        """Go on from a training state, as :func:`hrn.training.run_files.load_state` reads it.

        Raises:
            HRNError: it is of another network, recipe or training file.
        """
        if state.config != self.config:
            raise HRNError(
                f"{state.path}: is of another network: {config_to_dict(state.config)}, not {config_to_dict(self.config)}"
            )
        earlier = state.training["recipe"]
        if different := self.recipe.differences(earlier):
            raise HRNError(
                f"{state.path}: was trained with {different}; resume with the same, or start anew under another --ckpt_name"
            )
        if self._differ(state, "train_data"):
            raise HRNError(
                f"{state.path}: was trained with --train_data_path {state.info['train_data']}, not {self.info['train_data']}; "
                "resume with the same, or start anew under another --ckpt_name"
            )
        self.learner.load_state_dict(state.weights, state.training["learner"])
        self.step, self.owed, self.best = (state.training[k] for k in ("step", "owed", "best"))
        if self.best and (different := self._differ(state, "valid_data", "shave")):
            told = "; ".join(f"{k} was {state.info[k]}, is {self.info[k]}" for k in different)
            logger.warning("the validation is another one (%s), so that the best weights are chosen anew", told)
            self.best = None
        self.info = {**state.info, **self.info}

    def _differ(self, state: Checkpoint, *names: str) -> list[str]:
        """Which facts of this run are others than the state's; one that either does not tell is taken for the same."""
        known = self.info.keys() & state.info.keys()
        return [k for k in names if k in known and self.info[k] != state.info[k]]

    def initialise_from(self, checkpoint: Checkpoint) -> None:
        """Start from the weights of another run, as far as they fit. Raises HRNError where none do."""
        missing, unused = load_matching_weights(self.learner.model, checkpoint)
        new = f"all but {', '.join(missing)}" if missing else "all weights"
        logger.info("%s: took over %s; left %s", checkpoint.path, new, ", ".join(unused) or "nothing")
        self._start_from(checkpoint, "init_from")

    def grow_from(self, checkpoint: Checkpoint) -> None:
        """Start as a smaller network, see :mod:`hrn.model.growth`. Raises HRNError if it does not fit into this one."""
        small = load_network(checkpoint)
        if not isinstance(small, HRN) or not isinstance(self.learner.model, HRN):
            raise HRNError(f"--grow_from {checkpoint.path}: only HRN networks can grow, not {checkpoint.model_name}")
        try:
            grow(small.to(self.processes.device), self.learner.model)
        except ValueError as error:
            raise HRNError(f"--grow_from {checkpoint.path}: {error}") from None
        logger.info("%s: grown to the new size", checkpoint.path)
        self._start_from(checkpoint, "grow_from")

    def _start_from(self, checkpoint: Checkpoint, how: str) -> None:
        if self.learner.ema:
            self.learner.ema.module.load_state_dict(self.learner.model.state_dict())
        if self.processes.is_main:  # which has the file
            self.info[how] = {"file": checkpoint.path.name, "sha256": file_hash(checkpoint.path)}

    def _tell(self, line: dict[str, Any]) -> None:
        if self.processes.is_main:
            logger.info(log_line(line, self.recipe.max_steps))
            self.log.add(line)
            if self.tensorboard:
                self.tensorboard.line(line)
