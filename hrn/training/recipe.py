"""The settings of a run: `Recipe` (what is computed) and `Execution` (how it is computed). Their fields are flags of
`hrn/train.py`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
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
DECAY = 200_000
"""Default of `--decay`, from the released code."""
TRAINING_PRECISIONS = ("fp32", "bf16", "fp16")
"""Names in :data:`hrn.runtime.PRECISIONS` that training accepts. TF32 has a separate flag, `--tf32`."""


def setting(default: Any, help: str, choices: Iterable[str] | None = None) -> Any:
    """Return a dataclass field with its help text and its choices."""
    return field(default=default, metadata={"help": help, "choices": tuple(choices) if choices else None})


@dataclass(frozen=True)
class Recipe:
    """The settings that determine the result, besides the network and the data. A resumed run may change only those in `FREE`.

    Raises:
        HRNError: a value out of range.
    """

    patch_size: int = setting(48, "side of an LR patch in pixels")
    batch_size: int = setting(10, "patches per step, over all processes")
    permute_channels: bool = setting(False, "put the colour channels of each patch in a random order")
    norm_batch: int = setting(
        0, "patches per group of attention's BatchNorm; 0: the micro-batch, all patches that a process computes at once"
    )
    freeze_norm: bool = setting(
        False, "train with the running statistics of --init_from in attention's BatchNorm, as inference does"
    )
    max_steps: int = setting(500_000, "number of updates")
    optimizer: str = setting("adam", "adam, adamw, or muon (Muon for weight matrices, Adam for the rest)", OPTIMIZERS)
    lr: float = setting(1e-4, "peak learning rate")
    adam_lr_ratio: float = setting(1.0, "with muon: Adam's learning rate divided by --lr")
    weight_decay: float = setting(
        0.0, "weight decay, decoupled with muon (its matrices only) and adamw; an L2 penalty with adam"
    )
    schedule: str = setting("step", "learning rate schedule", SCHEDULES)
    decay: int = setting(DECAY, "with --schedule step: steps between two halvings of the learning rate")
    warmup: int = setting(0, "steps of linear warm-up of the learning rate")
    clip: float = setting(10.0, "maximum norm of the gradient")
    loss_fn: str = setting("L1", "training loss", LOSSES)
    ema: float = setting(
        0.0, "decay of the exponential moving average (EMA) of the weights, which is validated and saved; 0 disables it"
    )
    precision: str = setting("fp32", "precision of convolutions; the DCT stays in float32", TRAINING_PRECISIONS)
    seed: int = setting(0, "seed of the initialisation and of the patches")
    print_interval: int = setting(1000, "steps between log lines")
    valid_interval: int = setting(5000, "steps between validations")
    save_interval: int = setting(1000, "steps between training states")

    FREE = ("max_steps", "print_interval", "valid_interval", "save_interval")
    """Names of the fields that a resumed run may change."""

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "patch_size", "batch_size", "decay", *self.FREE)
        _check_at_least(self, 0, "norm_batch", "warmup", "seed", "weight_decay")
        if self.seed >= 2**63:
            raise HRNError(f"--seed must be below 2^63, not {self.seed}")
        for name in ("lr", "adam_lr_ratio", "clip"):
            value = getattr(self, name)
            if not value > 0 or (name != "clip" and value == math.inf):
                raise HRNError(f"--{name} must be positive, not {value}")
        if not 0 <= self.ema < 1:
            raise HRNError(f"--ema must be at least 0 and below 1, not {self.ema}")
        for f in fields(self):
            if (choices := f.metadata["choices"]) and getattr(self, f.name) not in choices:
                raise HRNError(f"--{f.name} must be one of {', '.join(choices)}, not {getattr(self, f.name)}")
        if self.freeze_norm and self.norm_batch:
            raise HRNError(f"--norm_batch {self.norm_batch} has no effect with --freeze_norm; use one of them")
        if self.adam_lr_ratio != 1 and self.optimizer != "muon":
            raise HRNError(f"--adam_lr_ratio {self.adam_lr_ratio} needs --optimizer muon, not {self.optimizer}")
        if self.decay != DECAY and self.schedule != "step":
            raise HRNError(f"--decay {self.decay} needs --schedule step, not {self.schedule}")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of update `step`, counted from 0."""
        return lr_at(
            step, base=self.lr, max_steps=self.max_steps, schedule=self.schedule, decay=self.decay, warmup=self.warmup
        )

    def with_norm_batch(self, patches: int) -> "Recipe":
        """Return a copy with `norm_batch` set to `patches`; this recipe if it is set already or the statistics are frozen."""
        return self if self.norm_batch or self.freeze_norm else replace(self, norm_batch=patches)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Build the optimizer. A group's `lr_ratio`, if present, is its learning rate divided by the schedule's."""
        extra = {"adam_lr_ratio": self.adam_lr_ratio} if self.optimizer == "muon" else {}
        return OPTIMIZERS[self.optimizer](parameters, lr=self.lr, weight_decay=self.weight_decay, **extra)

    def differences(self, earlier: Mapping[str, Any]) -> str:
        """List the flags of an earlier run that differ from this one's. Fields that the earlier run lacks have their defaults."""
        was = {f.name: earlier.get(f.name, f.default) for f in fields(self)}
        return ", ".join(_flag(k, was[k]) for k, v in asdict(self).items() if k not in self.FREE and was[k] != v)


@dataclass(frozen=True)
class Execution:
    """How the machine is used. It may change when a run is resumed; the result then differs by rounding only.

    A resumed run keeps its groups of BatchNorm, so they must divide the new micro-batch (:func:`micro_batch_size`).

    Raises:
        HRNError: a value out of range.
    """

    accumulate: int = setting(1, "gradient accumulation: micro-batches per process and step")
    compile: bool | None = setting(
        None,
        "use torch.compile: minutes to start, then faster; by default on CUDA if what it needs is installed (docs/gpu.md)",
    )
    channels_last: bool | None = setting(
        None, "memory layout of the features; by default channels_last, except on a GPU in fp32 without TF32"
    )
    tf32: bool = setting(True, "let GPUs round float32 convolutions to TF32")
    deterministic: bool = setting(False, "on a GPU, use only algorithms that always return the same bits")
    workers: int = setting(-1, "DataLoader workers for each training process; -1: 4 with a GPU, otherwise 0")
    data_on_gpu: bool | None = setting(
        None,
        "keep the training images on the GPU and cut the patches there; by default if they fit in a fifth of its free memory",
    )
    keep: int = setting(3, "number of training states to keep")

    def __post_init__(self) -> None:
        _check_at_least(self, 1, "accumulate", "keep")
        _check_at_least(self, -1, "workers")


def _flag(name: str, value: Any) -> str:
    """Write a setting as on the command line."""
    return f"--{name} {value}" if not isinstance(value, bool) else f"--{name}" if value else f"--no-{name}"


def _check_at_least(values: Any, least: int, *names: str) -> None:
    for name in names:
        if not least <= getattr(values, name) < math.inf:
            raise HRNError(f"--{name} must be a number of at least {least}, not {getattr(values, name)}")


def micro_batch_size(recipe: Recipe, processes: int, accumulate: int) -> int:
    """Return the number of patches that a process computes at once.

    Raises:
        HRNError: the batch does not divide evenly, or not into whole groups of `norm_batch`.
    """
    size, rest = divmod(recipe.batch_size, processes * accumulate)
    if rest:
        raise HRNError(
            f"--batch_size {recipe.batch_size} is not divisible by {processes} process(es) x --accumulate {accumulate}"
        )
    if recipe.norm_batch and size % recipe.norm_batch:
        raise HRNError(
            f"--norm_batch {recipe.norm_batch} must divide the micro-batch of {size} patches (--batch_size {recipe.batch_size} / "
            f"{processes} process(es) / --accumulate {accumulate}). A resumed run keeps its --norm_batch, by default the "
            "micro-batch that it started with. Use fewer processes or a smaller --accumulate, or start a new run."
        )
    return size
