"""What a run is (`Recipe`) and how it is computed (`Execution`); the flags of `hrn/train.py` are their fields."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hrn.errors import HRNError
from hrn.training.muon import Muon
from hrn.training.schedule import SCHEDULES, lr_at

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "L1": F.l1_loss,
    "MSE": F.mse_loss,
    "SmoothL1": F.smooth_l1_loss,
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "muon": Muon,
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _at_least(values: Any, least: int, *names: str) -> None:
    for name in names:
        if getattr(values, name) < least:
            raise HRNError(f"--{name} must be at least {least}, not {getattr(values, name)}")


@dataclass(frozen=True)
class Recipe:
    """All that the result depends on. A resumed run may change only how long it is and how often it reports."""

    patch_size: int = 48
    batch_size: int = 10
    """Patches a step, over all processes."""
    norm_batch: int = 0
    """Patches that attention's BatchNorm takes its statistics over; 0: as many as a process computes at once."""
    max_steps: int = 500_000
    optimizer: str = "adam"
    lr: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "step"
    decay: int = 200_000
    warmup: int = 0
    clip: float = 10.0
    loss_fn: str = "L1"
    ema: float = 0.0
    """Decay of the running mean of the weights, which is validated and shipped; 0 is without."""
    precision: str = "fp32"
    seed: int = 0
    print_interval: int = 1000
    valid_interval: int = 5000
    save_interval: int = 1000

    FREE = ("max_steps", "print_interval", "valid_interval", "save_interval")

    def __post_init__(self) -> None:
        _at_least(self, 1, "patch_size", "batch_size", "decay", *self.FREE)
        _at_least(self, 0, "norm_batch", "warmup", "seed", "weight_decay")
        if not 0 < self.lr < math.inf or not self.clip > 0 or not 0 <= self.ema < 1:
            raise HRNError("--lr and --clip must be positive, --ema from 0 to below 1")
        for name, allowed in RECIPE_CHOICES.items():
            if getattr(self, name) not in allowed:
                raise HRNError(f"--{name} must be one of {', '.join(allowed)}, not {getattr(self, name)}")

    def lr_at(self, step: int) -> float:
        """The learning rate of update number `step`, counted from 0."""
        return lr_at(
            step, base=self.lr, max_steps=self.max_steps, schedule=self.schedule, decay=self.decay, warmup=self.warmup
        )

    def differences(self, earlier: Mapping[str, Any]) -> str:
        """The flags of an earlier run that this one does not share, in words; what it did not know yet had its default."""
        was = {f.name: earlier.get(f.name, f.default) for f in fields(self)}
        return ", ".join(f"--{k} {was[k]}" for k, v in asdict(self).items() if k not in self.FREE and was[k] != v)


RECIPE_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "loss_fn": LOSSES, "precision": PRECISIONS}


@dataclass(frozen=True)
class Execution:
    """How the machine is used. It may change when a run is resumed; the result then differs by rounding only."""

    accumulate: int = 1
    """Parts that a process takes its share of the batch in."""
    compile: bool = False
    channels_last: bool = True
    tf32: bool = True
    deterministic: bool = False
    workers: int = -1
    """Loading processes for each training process; -1: 4 with a GPU, else none."""
    keep: int = 3
    """Training states that are kept."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "accumulate", "keep")
        _at_least(self, -1, "workers")


def share_of(recipe: Recipe, processes: int, accumulate: int) -> int:
    """How many patches a process computes at once.

    Raises:
        HRNError: the batch cannot be shared out evenly, or not in whole groups of `norm_batch`.
    """
    share, rest = divmod(recipe.batch_size, processes * accumulate)
    if rest:
        raise HRNError(
            f"--batch_size {recipe.batch_size} cannot be shared out over {processes} process(es) in {accumulate} part(s) each"
        )
    if recipe.norm_batch and share % recipe.norm_batch:
        raise HRNError(
            f"--norm_batch {recipe.norm_batch}: a process computes {share} patches at once, which are not whole groups of that size"
        )
    return share
