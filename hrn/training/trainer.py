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
from torch.utils.data import DataLoader

from hrn.checkpoint import Checkpoint, file_hash, initialise_from, load_checkpoint, save_checkpoint
from hrn.data.benchmark import TestSet
from hrn.data.h5 import H5Pairs, PatchDataset
from hrn.errors import HRNError
from hrn.evaluation.evaluate import evaluate, mean_scores
from hrn.inference.upscale import enlarge
from hrn.model import config_to_dict
from hrn.model.config import Config
from hrn.training.distributed import Processes, is_worker
from hrn.training.files import JsonLines, RunFiles
from hrn.training.learner import Learner, Patches
from hrn.training.recipe import Execution, Recipe, share_of
from hrn.training.stop import StopRequest, be_deaf
from hrn.training.watch import TensorBoard, screen_line

logger = logging.getLogger(__name__)

MOST_SKIPPED_IN_A_ROW = 100
LOOK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps between looks at what other processes and the GPU have to say; each look waits for them."""
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
        self.seconds = 0.0
        self.best: dict[str, float] | None = None

    # the loop

    def fit(self, progress: Callable[[int], None] = lambda step: None) -> int:
        """Train up to `recipe.max_steps`, logging, validating and saving on the way. `progress` is told each step.

        Returns:
            0, or the signal that the run was stopped by; it is then saved, and can be resumed.

        Raises:
            HRNError: too many steps in a row without a finite gradient, or the last state cannot be written.
        """
        recipe = self.recipe
        if self.step >= recipe.max_steps:
            logger.info("nothing to do: step %d of %d is reached", self.step, recipe.max_steps)
            return 0
        if self.processes.first:
            self.log.cut(self.step)
        logged_step, logged_at = self.step, time.perf_counter()
        with StopRequest(patient=is_worker()) as request:
            for parts in self.batches():
                started = time.perf_counter()
                self.learner.step(parts, recipe.lr_at(self.step))
                self.step += 1
                self.seconds += time.perf_counter() - started
                progress(self.step)
                last = self.step == recipe.max_steps
                stopped = self._look(request) if last or self.step % self._look_every == 0 else 0
                line: dict[str, Any] = {}
                if self.step % recipe.print_interval == 0 or last:
                    rate = (self.step - logged_step) / (time.perf_counter() - logged_at)
                    line = {
                        "step": self.step,
                        **self.learner.tally(),
                        "lr": recipe.lr_at(self.step - 1),
                        "images_per_second": rate * recipe.batch_size,
                        "seconds_left": (recipe.max_steps - self.step) / rate,
                    }
                    logged_step = self.step
                if self.valid and (self.step % recipe.valid_interval == 0 or last):
                    line |= {"step": self.step, **self.validate()}
                if line:
                    self._tell(line)
                    logged_at = time.perf_counter()
                if self.step % recipe.save_interval == 0 or last or stopped:
                    self.save_state(must=bool(last or stopped))
                if stopped and not last:
                    return stopped
        if not self.valid:
            self.save_weights({})
        return 0

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
            worker_init_fn=be_deaf,
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

    @property
    def _look_every(self) -> int:
        return LOOK_EVERY.get(self.processes.device.type, 1)

    def _look(self, request: StopRequest) -> int:
        """The signal that any process was stopped by, or 0. Raises HRNError if the run does not get anywhere."""
        skipped = self.learner.skipped_in_a_row()
        if skipped >= MOST_SKIPPED_IN_A_ROW:
            raise HRNError(
                f"{skipped} steps in a row without a finite loss and gradient, up to step {self.step}; "
                f"lower --lr, or use --precision fp32. The last good states are kept in {self.files.folder}"
            )
        return self.processes.most(request.signal)

    # validation

    def validate(self) -> dict[str, float]:
        """Score the validation sets by the evaluation protocol, and keep the weights if they are the best so far.

        The images are dealt out to the processes.
        """
        network = self.learner.shipped.eval()
        me, count = self.processes.rank, self.processes.count
        rows = []
        for test_set in self.valid:
            mine = []
            share = replace(test_set, images=test_set.images[me::count])
            for result in evaluate(lambda lr, s=test_set.scale: enlarge(network, lr, s), share, shave=self.shave):
                if self.tensorboard and len(mine) < SHOWN_PICTURES:
                    self.tensorboard.picture(f"{test_set.name} x{test_set.scale}/{result.name}", result.sr, self.step)
                mine.append(result.scores)
            rows.append(mean_scores(self.processes.gather(mine)))
        self.learner.model.train()
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

    # files

    def save_weights(self, scores: dict[str, float]) -> None:
        """Write the weights for use."""
        if self.processes.first:
            info = {**self.info, "steps": self.step, "recipe": asdict(self.recipe), "validation": scores}
            save_checkpoint(self.files.best, self.config, self.learner.shipped.state_dict(), info=info)

    def save_state(self, *, must: bool = True) -> None:
        """Write all that a resume needs. Where that fails, the run goes on, unless it `must` succeed."""
        if not self.processes.first:
            return
        training = {
            "step": self.step,
            "seconds": self.seconds,
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
        """Go on from a training state, as :func:`hrn.training.files.load_state` reads it.

        Raises:
            HRNError: it is of another network or recipe.
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
        self.learner.load_state_dict(state.weights, state.training["learner"])
        self.step, self.seconds, self.best = (state.training[k] for k in ("step", "seconds", "best"))
        self.info = {**state.info, **self.info}

    def initialise_from(self, path: Path) -> None:
        """Start from the weights of another run, as far as they fit."""
        missing, unused = initialise_from(self.learner.model, load_checkpoint(path))
        if self.learner.ema:
            self.learner.ema.module.load_state_dict(self.learner.model.state_dict())
        logger.info(
            "%s: took over all but %s; left %s", path, ", ".join(missing) or "nothing", ", ".join(unused) or "nothing"
        )
        self.info["init_from"] = {"file": path.name, "sha256": file_hash(path)}

    def _tell(self, line: dict[str, Any]) -> None:
        if self.processes.first:
            logger.info(screen_line(line, self.recipe.max_steps))
            self.log.add(line)
            if self.tensorboard:
                self.tensorboard.line(line)
