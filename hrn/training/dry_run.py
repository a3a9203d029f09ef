"""What a run will take, measured on a few steps before it starts."""

import time
from dataclasses import dataclass

import torch

from hrn.errors import HRNError
from hrn.model.summary import OUTPUT_SIZE, summarise
from hrn.runtime import peak_memory
from hrn.training.monitor import duration
from hrn.training.signals import kill_loaders_on_error
from hrn.training.trainer import Trainer


@dataclass(frozen=True)
class Plan:
    """A few steps of a run, measured in one process."""

    trainer: Trainer
    step_seconds: float
    load_seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        t = self.trainer
        r, share = t.recipe, t.recipe.batch_size // t.processes.count
        scale = t.config.scales[-1]
        total = summarise(t.config, scale)[-1]
        steps = r.max_steps - t.step
        seconds = max(self.step_seconds, self.load_seconds)
        binds = "loading" if self.load_seconds > self.step_seconds else "computing"
        rates = ", ".join(
            f"{r.lr_at(s):.2e} at step {s:,}" for s in sorted({0, r.warmup, r.max_steps // 2, r.max_steps - 1})
        )
        width, height = OUTPUT_SIZE[::-1]
        return "\n".join(
            [
                f"network      {total.parameters:,} parameters, {total.multi_adds / 1e9:.2f} G Multi-Adds for {width}x{height} at x{scale}",
                f"data         {len(t.pairs):,} images, x{', x'.join(map(str, t.config.scales))}",
                f"batch        {r.batch_size} patches of {r.patch_size}x{r.patch_size}: {t.processes.count} process(es), "
                f"{share} each, {t.share} at once; BatchNorm over {r.norm_batch}",
                f"steps        {steps:,} ({steps * r.batch_size / len(t.pairs):,.1f} passes over the images)",
                f"rate         {rates}",
                f"a step       {self.step_seconds:.3f} s computing, {self.load_seconds:.3f} s loading in this process: {binds} binds",
                f"memory       {self.peak_bytes / 2**20:,.0f} MiB at most ({'GPU' if t.processes.device.type == 'cuda' else 'resident'})",
                f"in all       {duration(steps * seconds)} (days d, hours:minutes:seconds) without validation",
            ]
        )


def measure_plan(trainer: Trainer, warmup: int = 3, steps: int = 5) -> Plan:
    """Compute and load a few steps. The trainer is not fit for a run any more; nothing is written.

    Raises:
        HRNError: no step is left.
    """
    if trainer.step >= trainer.recipe.max_steps:
        raise HRNError(f"nothing to plan: step {trainer.step} of {trainer.recipe.max_steps} is reached")
    device = trainer.processes.device
    loading, computing = [], []
    with kill_loaders_on_error():
        batches = iter(trainer.batches())
        for _ in range(min(warmup + steps, trainer.recipe.max_steps - trainer.step)):
            start = time.perf_counter()
            parts = next(batches)
            loaded = time.perf_counter()
            trainer.learner.step(parts, trainer.recipe.lr_at(trainer.step))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            loading.append(loaded - start)
            computing.append(time.perf_counter() - loaded)
    kept = slice(-steps, None)
    return Plan(
        trainer,
        sum(computing[kept]) / len(computing[kept]),
        sum(loading[kept]) / len(loading[kept]),
        peak_memory(device),
    )
