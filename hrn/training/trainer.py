"""The training loop.

Every random choice is a function of (seed, index), so a resumed run sees the same patches as an uninterrupted one. On a CPU
both give the same weights, bit for bit; on GPUs, `--deterministic` is needed.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hrn.checkpoint import Checkpoint, save_checkpoint
from hrn.data.benchmark import TestSet
from hrn.data.h5 import H5Pairs
from hrn.distributed import Processes, started_by_torchrun
from hrn.errors import HRNError
from hrn.model.config import Config
from hrn.training.learner import Learner, Patches
from hrn.training.loader import TrainingData
from hrn.training.monitor import StepTimer, TensorBoard, log_line
from hrn.training.recipe import Execution, Recipe
from hrn.training.run_files import Background, JsonLines, RunFiles, check_same_run, copy_to_cpu, validation_changes
from hrn.training.signals import StopSignal, kill_workers_on_error
from hrn.training.validation import validate

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 100
POLL_INTERVAL = {"cuda": 10}
"""Steps between two checks for signals and skipped steps, by device type; 1 on other devices. A check waits for the GPU and
for the other processes."""
BACKGROUND_SAVES = ("cuda",)
"""Types of devices that compute while a thread writes training states. On a CPU it would take time from the training."""


@dataclass
class Trainer:
    """A training run, or one process's part of it. Call `fit`.

    Args:
        config: configuration of the network.
        recipe: training settings.
        pairs: training images at `config.scales`.
        valid_sets: validation sets, used to select the best weights; may be empty.
        files: paths of the output files.
        execution: how the machine is used.
        processes: this process and its place among the processes of the run.
        shave: border in HR pixels left out of validation scores; the scale by default.
        info: facts about the run, written to the checkpoints.

    Raises:
        HRNError: the batch does not divide evenly, an image is smaller than a patch, /dev/shm or the GPU's memory is too small,
            the device does not support the precision, or `--compile` finds no compiler.
    """

    config: Config
    recipe: Recipe
    pairs: H5Pairs
    valid_sets: list[TestSet]
    files: RunFiles
    execution: Execution = field(default_factory=Execution)
    processes: Processes = field(default_factory=Processes)
    shave: int | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data = TrainingData(self.pairs, self.recipe, self.execution, self.processes)
        shave = [s if self.shave is None else self.shave for s in self.config.scales]
        images = {
            "train_images": len(self.pairs),
            "valid_images": [len(test_set.images) for test_set in self.valid_sets],
        }
        self.info = {**self.info, **images, "shave": shave}
        if self.config.has_batch_norm:
            self.recipe = self.recipe.with_norm_batch(self.data.micro_batch_size)
        self.learner = Learner(self.config, self.recipe, self.execution, self.processes)
        self.log = JsonLines(self.files.log)
        self.background = Background()
        self.tensorboard: TensorBoard | None = None
        self.step = 0
        self.pending_validation: dict[str, Any] | None = None
        """The log entry of a step whose validation was interrupted."""
        self.best: dict[str, float] | None = None
        """Step and scores of the best weights so far."""
        self.outdated_best_step = 0
        """The step of the best weights of an earlier validation setup, or 0."""

    def fit(self, progress: Callable[[int], None] = lambda step: None) -> int:
        """Train up to `recipe.max_steps`. `progress` is called with the step number after each step.

        Returns:
            0, or the number of the signal that stopped the run. The run is then saved and can be resumed.

        Raises:
            HRNError: too many steps in a row without a finite gradient, an image cannot be read, or the last weights or the
                last state cannot be written.
        """
        self.processes.run_on_main(self._clear_files)
        if self.finished and self.pending_validation is None:
            logger.info("step %d of %d is already reached", self.step, self.recipe.max_steps)
            if self.best is None:  # the earlier attempt ended before it wrote the weights, or `resume` reset the score
                self.validate() if self.valid_sets else self.save_weights({})
                logger.info("wrote %s", self.files.weights)
                if self.valid_sets:
                    self.save_state()  # with the score
            return 0
        stopped = 0
        with kill_workers_on_error(), closing(self.background), StopSignal(repeated=started_by_torchrun()) as request:
            if self.pending_validation is not None:
                stopped = self._finish_step(self.pending_validation, request, 0)
            if not stopped:
                stopped = self._train(request, progress)
        if not self.valid_sets and not stopped:
            self.save_weights({})
        return stopped

    @property
    def finished(self) -> bool:
        """Whether the last step is reached."""
        return self.step >= self.recipe.max_steps

    def _clear_files(self) -> None:
        """Remove what an earlier attempt wrote after this step. Set the weights aside whose score no longer counts."""
        self.log.cut(self.step if self.pending_validation is None else self.step - 1)
        self.files.clear_after(self.step)
        if self.outdated_best_step and (kept := self.files.set_aside(self.outdated_best_step)):
            logger.warning("the weights of the earlier best score are now %s", kept)

    # the loop

    def _train(self, request: StopSignal, progress: Callable[[int], None]) -> int:
        """Take the remaining steps. Returns 0 or the signal that stopped the run."""
        timer = StepTimer(self.processes.device)
        for micro_batches in self._batches_or_save():
            self.learner.step(micro_batches, self.recipe.lr_at(self.step))
            self.step += 1
            progress(self.step)
            stopped = self._poll_signals(request)
            scale = micro_batches[0][1].shape[-1] // self.recipe.patch_size
            timer.step(scale)  # after the poll, which waits for the GPU
            entry = self._log_entry(timer) if self._is_due(self.recipe.print_interval) else {}
            stopped = self._finish_step(entry, request, stopped)
            if stopped:
                return stopped
            timer.skip()
        return 0

    def _batches_or_save(self) -> Iterator[list[Patches]]:
        """Yield the batches of the remaining steps. If an image cannot be read, a single process saves its state first."""
        try:
            yield from self.data.batches(self.step)
        except HRNError:
            if self.processes.count == 1:
                self._try_to_save_state()
            raise

    def _finish_step(self, entry: dict[str, Any], request: StopSignal, stopped: int) -> int:
        """Validate, log and save if due. Returns 0 or the signal that stops the run.

        If a stop or an error interrupts a validation, the training state holds the log entry, and the resumed run validates
        first.
        """
        first = False
        if self.valid_sets and self._is_due(self.recipe.valid_interval):
            self.pending_validation = entry
            try:
                scores = None if stopped else self.validate(request)
            except HRNError as error:  # an image cannot be read, or the last weights cannot be written
                self._try_to_save_state()
                raise HRNError(f"validation after step {self.step}: {error}") from None
            if scores is None:
                self.save_state()
                return stopped or self.processes.max(request.signal)
            entry = {"step": self.step, **entry, **scores}
            first = self._needs_first_state()
        self.pending_validation = None
        if entry:
            self._log(entry)
        if stopped or first or self._is_due(self.recipe.save_interval):
            self.save_state(required=bool(stopped or self.finished))
        return 0 if self.finished else stopped

    def _needs_first_state(self) -> bool:
        """Return whether a run that may be restarted has weights but no state. A restart would refuse these weights."""
        files = self.files
        return self.processes.is_main and files.marker.exists() and files.weights.exists() and not files.states()

    def _is_due(self, interval: int) -> bool:
        return self.finished or self.step % interval == 0

    def _poll_signals(self, request: StopSignal) -> int:
        """Return the signal that any process received, or 0. Raises HRNError if too many steps in a row were skipped."""
        alone_and_stopped = self.processes.count == 1 and request.signal
        intervals = (POLL_INTERVAL.get(self.processes.device.type, 1), self.recipe.print_interval)
        if not alone_and_stopped and not any(map(self._is_due, intervals)):
            return 0
        skipped = self.learner.skipped_in_a_row()
        if skipped >= MAX_SKIPPED_IN_A_ROW:
            states = self.files.states()
            source = f"; pass a training state such as {states[0]} to --init_from" if states else ""
            raise HRNError(
                f"no finite loss and gradient in {skipped} steps in a row, up to step {self.step}. "
                f"Start a new run with a lower --lr or with --precision fp32{source}."
            )
        return self.processes.max(request.signal)

    def _log_entry(self, timer: StepTimer) -> dict[str, Any]:
        """Return the log entry of this step."""
        seconds = max(timer.seconds_per_step(), 1e-9)
        return {
            "step": self.step,
            **self.learner.pop_metrics(),
            "lr": self.recipe.lr_at(self.step - 1),
            "images_per_second": self.recipe.batch_size / seconds,
            "seconds_left": (self.recipe.max_steps - self.step) * seconds,
        }

    def _log(self, entry: dict[str, Any]) -> None:
        if self.processes.is_main:
            logger.info(log_line(entry, self.recipe.max_steps))
            self.log.add(entry)
            if self.tensorboard:
                self.tensorboard.add_scalars(entry)

    # validation

    def validate(self, request: StopSignal | None = None) -> dict[str, float] | None:
        """Score the validation sets, and save the weights if they are the best so far.

        Returns:
            Mean `psnr_y` and `ssim_y`, or None if a stop was requested meanwhile.

        Raises:
            HRNError: an image cannot be read, or, after the last step, the weights cannot be written.
        """
        board, step = self.tensorboard, self.step
        scores = validate(
            self.learner.eval_network.eval(),
            self.valid_sets,
            self.processes,
            shave=self.shave,
            stop=lambda: request.signal if request else 0,
            show=(lambda name, image: board.add_image(name, image, step)) if board else None,
        )
        self.learner.network.train()
        if scores and (self.best is None or scores["psnr_y"] > self.best["psnr_y"]):
            best = {"step": self.step, **scores}
            try:
                self.save_weights(best)
            except HRNError as error:
                if self.finished:
                    raise
                logger.error("%s; training continues", error)
            else:
                self.best = best
        return scores

    # files

    def save_weights(self, scores: dict[str, float]) -> None:
        """Write the weights for inference. `scores` are those of the validation, or empty."""
        if self.processes.is_main:
            info = {**self.info, "steps": self.step, "recipe": asdict(self.recipe), "validation": scores}
            save_checkpoint(self.files.weights, self.config, self.learner.eval_network.state_dict(), info=info)

    def save_state(self, *, required: bool = True) -> None:
        """Write everything that a resume needs. Unless `required`, a failure is logged and training continues.

        With a GPU, a state that is not required is copied to the CPU and written while training continues.
        """
        if not self.processes.is_main:
            return
        self.background.wait()
        weights, info = self.learner.network.state_dict(), self.info
        training = {
            "step": self.step,
            "pending_validation": self.pending_validation,
            "best": self.best,
            "recipe": asdict(self.recipe),
            "execution": asdict(self.execution),
            "processes": self.processes.count,
            "learner": self.learner.state_dict(),
        }
        in_background = not required and self.processes.device.type in BACKGROUND_SAVES
        if in_background:
            weights, training = copy_to_cpu(weights), copy_to_cpu(training)

        def save(path: Path) -> None:
            save_checkpoint(path, self.config, weights, info=info, training=training)

        def write() -> None:
            try:
                self.files.save_state(training["step"], self.execution.keep, save)
            except HRNError as error:
                if required:
                    raise
                logger.error("%s; training continues. The newest state is from an earlier step.", error)

        self.background.start(write) if in_background else write()

    def _try_to_save_state(self) -> None:
        """Save the state before another error ends the run. A failure is logged."""
        try:
            self.save_state()
        except HRNError as failure:
            logger.error("%s", failure)

    def resume(self, state: Checkpoint) -> None:
        """Continue from a training state of :func:`hrn.training.run_files.load_state`.

        Raises:
            HRNError: the network, the recipe or the training images differ from the state's.
        """
        check_same_run(state, self.config, self.recipe, self.info)
        self.learner.load_state_dict(state.weights, state.training["learner"])
        self.step, self.pending_validation, self.best = (
            state.training[k] for k in ("step", "pending_validation", "best")
        )
        validates = self.valid_sets or not self.finished
        if self.best and validates and (changes := validation_changes(state.info, self.info)):
            logger.warning("the validation setup changed (%s); resetting the best score", changes)
            self.outdated_best_step, self.best = int(self.best["step"]), None
        elif self.best and not self.processes.run_on_main(self.files.weights.is_file):
            logger.warning("%s is missing; resetting the best score", self.files.weights)
            self.best = None
        self.info = {**state.info, **self.info}
