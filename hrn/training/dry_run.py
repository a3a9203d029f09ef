"""The cost of a run, measured on a few steps: `--dry_run`."""

import time
from dataclasses import dataclass
from itertools import islice

import torch

from hrn.errors import HRNError
from hrn.memory import peak_memory
from hrn.model.summary import OUTPUT_SIZE, summarise
from hrn.training.monitor import WARMUP_STEPS, format_duration
from hrn.training.signals import kill_workers_on_error
from hrn.training.trainer import Trainer


@dataclass(frozen=True)
class RunCost:
    """Estimated cost of a run, measured in one process. `str()` formats it as a text table."""

    trainer: Trainer
    step_seconds: float
    """Mean seconds of a step, including the wait for its batch."""
    load_seconds: float
    """Mean seconds spent waiting for a batch."""
    peak_bytes: int
    """Peak memory in bytes: allocated on a GPU, resident on a CPU."""

    def __str__(self) -> str:
        t = self.trainer
        r, per_process = t.recipe, t.recipe.batch_size // t.processes.count
        scale = t.config.scales[-1]
        total = summarise(t.config, scale)[-1]
        steps = r.max_steps - t.step
        rates = ", ".join(
            f"{r.lr_at(s):.2e} at step {s:,}"
            for s in sorted({0, min(r.warmup, r.max_steps - 1), r.max_steps // 2, r.max_steps - 1})
        )
        width, height = OUTPUT_SIZE[::-1]
        compiled = "compiled" if t.learner.compiled else "not compiled"
        return "\n".join(
            [
                f"network        {total.parameters:,} parameters, {total.multi_adds / 1e9:.2f} G Multi-Adds for {width}x{height} at x{scale}",
                f"data           {len(t.pairs):,} images, x{', x'.join(map(str, t.config.scales))}",
                f"batch          {r.batch_size} patches of {r.patch_size}x{r.patch_size}: {t.processes.count} process(es), "
                f"{per_process} each, {t.data.micro_batch_size} at once; {t.learner.describe_norm()}",
                f"steps          {steps:,} ({steps * r.batch_size / len(t.pairs):,.1f} epochs)",
                f"learning rate  {rates}",
                f"step time      {self.step_seconds:.3f} s ({compiled}), {self.load_seconds:.3f} s of it waiting for data",
                f"memory         {self.peak_bytes / 2**20:,.0f} MiB peak ({'GPU' if t.processes.device.type == 'cuda' else 'resident'})",
                f"total time     {format_duration(steps * self.step_seconds)} without validation",
            ]
        )


def measure_cost(trainer: Trainer, steps: int = 5) -> RunCost:
    """Load and compute a few steps after a warm-up at every scale. Nothing is written.

    The trainer's weights change, so it cannot be used for a run afterwards.

    Raises:
        HRNError: no step is left.
    """
    if trainer.finished:
        raise HRNError(f"nothing to measure: step {trainer.step} of {trainer.recipe.max_steps} is reached")
    device, rate = trainer.processes.device, trainer.recipe.lr_at(trainer.step)
    left = trainer.recipe.max_steps - trainer.step
    steps, waited = min(steps, left), 0.0
    with kill_workers_on_error():
        warm_up(trainer, rate)
        batches = iter(trainer.data.batches(trainer.step))
        # not timed: workers are still starting, and some batches are already loaded
        for micro_batches in islice(batches, min(WARMUP_STEPS, left - steps)):
            trainer.learner.step(micro_batches, rate)
        start = _time_when_done(device)
        for _ in range(steps):
            asked = time.perf_counter()
            micro_batches = next(batches)
            waited += time.perf_counter() - asked
            trainer.learner.step(micro_batches, rate)
        seconds = _time_when_done(device) - start
    return RunCost(trainer, seconds / steps, waited / steps, peak_memory(device))


def _time_when_done(device: torch.device) -> float:
    """Wait for all work of the device, then return the time in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def warm_up(trainer: Trainer, rate: float) -> None:
    """Take steps on random patches at every scale, so that compiling and recording CUDA graphs end before the measurement."""
    p = trainer.recipe.patch_size
    for scale in trainer.config.scales:
        lr, hr = (
            torch.randint(0, 256, (trainer.data.micro_batch_size, 3, side, side), dtype=torch.uint8)
            for side in (p, p * scale)
        )
        for _ in range(WARMUP_STEPS):
            trainer.learner.step([(lr, hr)] * trainer.execution.accumulate, rate)
