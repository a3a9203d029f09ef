"""The training loop, and the state that a run is resumed from.

Every random choice is a function of (seed, index), so a resumed run sees the patches that it would have seen.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from hrn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hrn.data.benchmark import TestSet
from hrn.data.h5 import H5Pairs, PatchDataset
from hrn.errors import HRNError
from hrn.evaluation.evaluate import evaluate, mean_scores
from hrn.files import write_text
from hrn.inference.upscale import enlarge
from hrn.model import build_model, config_to_dict
from hrn.model.config import Config
from hrn.training.schedule import SCHEDULES, lr_at

logger = logging.getLogger(__name__)

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "L1": F.l1_loss,
    "MSE": F.mse_loss,
    "SmoothL1": F.smooth_l1_loss,
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
MOST_SKIPPED_IN_A_ROW = 100


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: what a resumed run must not change, save `max_steps` and the intervals."""

    patch_size: int = 48
    batch_size: int = 10
    max_steps: int = 500_000
    lr: float = 1e-4
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

    def __post_init__(self) -> None:
        for name in (
            "patch_size",
            "batch_size",
            "max_steps",
            "decay",
            "print_interval",
            "valid_interval",
            "save_interval",
        ):
            if getattr(self, name) < 1:
                raise HRNError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf or not self.clip > 0 or self.warmup < 0 or not 0 <= self.ema < 1 or self.seed < 0:
            raise HRNError(
                "--lr and --clip must be positive, --warmup and --seed not negative, --ema from 0 to below 1"
            )
        for name, allowed in (("loss_fn", LOSSES), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise HRNError(f"--{name} must be one of {', '.join(allowed)}, not {getattr(self, name)}")


@dataclass(frozen=True)
class Files:
    """What a run writes, all in one folder."""

    folder: Path
    name: str

    @property
    def best(self) -> Path:
        """Weights for use: the best validated ones, or the last ones where there is no validation."""
        return self.folder / f"{self.name}.pth"

    @property
    def state(self) -> Path:
        """All that `--resume` needs."""
        return self.folder / f"{self.name}.train.pth"

    @property
    def log(self) -> Path:
        """A JSON object a line."""
        return self.folder / f"{self.name}.jsonl"


@dataclass
class Trainer:
    """A run. `fit` does it all; the rest is there to be read and tested.

    Args:
        config: of the network.
        recipe: how to train.
        pairs: training images at `config.scales`.
        valid: test sets to choose the best weights by, perhaps none.
        files: what to write.
        device: where to compute.
        workers: loading processes; 0 loads in this one.
        shave: border left out of validation scores; the scale by default.
    """

    config: Config
    recipe: Recipe
    pairs: H5Pairs
    valid: list[TestSet]
    files: Files
    device: torch.device
    workers: int = 0
    shave: int | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        r = self.recipe
        length = r.max_steps * r.batch_size
        self.patches = PatchDataset(
            self.pairs, patch_size=r.patch_size, batch_size=r.batch_size, length=length, seed=r.seed
        )
        torch.manual_seed(r.seed)
        self.model = build_model(self.config).to(self.device).train()
        self.ema = None
        if r.ema:
            self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(r.ema))
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=r.lr, fused=True)
        self.step = 0
        self.skipped = 0
        self.seconds = 0.0
        self.best: dict[str, float] | None = None

    # the loop

    def fit(self, progress: Callable[[int], None] = lambda step: None) -> None:
        """Train up to `recipe.max_steps`, logging, validating and saving on the way. `progress` is told each step.

        Raises:
            HRNError: too many steps in a row without a finite gradient, or a file cannot be written.
        """
        recipe = self.recipe
        if self.step >= recipe.max_steps:
            logger.info("nothing to do: step %d of %d is reached", self.step, recipe.max_steps)
            return
        losses, in_a_row = [], 0
        logged_step, logged_time = self.step, time.perf_counter()
        for lr_patch, hr_patch in self._batches():
            started = time.perf_counter()
            loss, applied = self.train_step(lr_patch, hr_patch)
            self.seconds += time.perf_counter() - started
            in_a_row = 0 if applied else in_a_row + 1
            if in_a_row >= MOST_SKIPPED_IN_A_ROW:
                raise HRNError(
                    f"{in_a_row} steps in a row without a finite gradient, up to step {self.step}; lower --lr. {self.files.state} is the last good state"
                )
            losses.append(loss)
            progress(self.step)
            last = self.step == recipe.max_steps
            line: dict[str, Any] = {}
            if self.step % recipe.print_interval == 0 or last:
                now = time.perf_counter()
                rate = (self.step - logged_step) / (now - logged_time)
                mean = float(torch.stack(losses).mean())
                line = {
                    "step": self.step,
                    "loss": mean,
                    "lr": self.lr(self.step - 1),
                    "images_per_second": rate * recipe.batch_size,
                    "seconds_left": (recipe.max_steps - self.step) / rate,
                    "skipped": self.skipped,
                }
                losses, logged_step = [], self.step
            if self.valid and (self.step % recipe.valid_interval == 0 or last):
                line |= {"step": self.step, **self.validate()}
            if line:
                self._log(line)
                logged_time = time.perf_counter()
            if self.step % recipe.save_interval == 0 or last:
                self.save_state()
        if not self.valid:
            self.save_weights({})

    def train_step(self, lr_patch: Tensor, hr_patch: Tensor) -> tuple[Tensor, bool]:
        """One update by (B, 3, p, p) and (B, 3, s*p, s*p) uint8 patches; the loss, and whether the update was made."""
        recipe, device = self.recipe, self.device
        lr_patch = lr_patch.to(device, non_blocking=True).float().div_(255)
        hr_patch = hr_patch.to(device, non_blocking=True).float().div_(255)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(self.step)
        with torch.autocast(device.type, PRECISIONS[recipe.precision], enabled=recipe.precision != "fp32"):
            sr = self.model(lr_patch, hr_patch.shape[-1] // lr_patch.shape[-1])
            loss = LOSSES[recipe.loss_fn](sr, hr_patch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], recipe.clip)
        applied = bool(torch.isfinite(norm) & torch.isfinite(loss))
        if applied:
            self.optimizer.step()
            if self.ema:
                self.ema.update_parameters(self.model)
        else:
            self.skipped += 1
            logger.warning("step %d: loss or gradient is not finite; step skipped", self.step + 1)
        self.step += 1
        return loss.detach(), applied

    def lr(self, step: int) -> float:
        r = self.recipe
        return lr_at(step, base=r.lr, max_steps=r.max_steps, schedule=r.schedule, decay=r.decay, warmup=r.warmup)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        batch_size = self.recipe.batch_size
        indices = range(self.step * batch_size, len(self.patches))
        pinned = self.device.type == "cuda"
        return iter(DataLoader(self.patches, batch_size, sampler=indices, num_workers=self.workers, pin_memory=pinned))

    # validation

    @property
    def shipped(self) -> nn.Module:
        """The network that is validated and saved for use."""
        return self.ema.module if self.ema else self.model

    def validate(self) -> dict[str, float]:
        """Score the validation sets by the evaluation protocol, and keep the weights if they are the best so far."""
        network = self.shipped.eval()
        rows = []
        for test_set in self.valid:
            results = evaluate(lambda lr, s=test_set.scale: enlarge(network, lr, s), test_set, shave=self.shave)
            rows.append(mean_scores([r.scores for r in results]))
        self.model.train()
        scores = {
            "psnr_y": sum(r["psnr_y"] for r in rows) / len(rows),
            "ssim_y": sum(r["ssim_y"] for r in rows) / len(rows),
        }
        if self.best is None or scores["psnr_y"] > self.best["psnr_y"]:
            self.best = {"step": self.step, **scores}
            self.save_weights(self.best)
        return scores

    # files

    def save_weights(self, scores: dict[str, float]) -> None:
        """Write the weights for use."""
        info = {**self.info, "steps": self.step, "recipe": asdict(self.recipe), "validation": scores}
        save_checkpoint(self.files.best, self.config, self.shipped.state_dict(), info=info)

    def save_state(self) -> None:
        """Write all that a resume needs."""
        training = {
            "step": self.step,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "best": self.best,
            "recipe": asdict(self.recipe),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
        }
        save_checkpoint(self.files.state, self.config, self.model.state_dict(), info=self.info, training=training)

    def resume(self, path: Path) -> None:
        """Go on from a training state.

        Raises:
            HRNError: not a training state, or of another network or recipe.
        """
        state: Checkpoint = load_checkpoint(path)
        if state.training is None:
            raise HRNError(f"{path}: holds weights only, and cannot be resumed from")
        if state.config != self.config:
            raise HRNError(
                f"{path}: is of another network: {config_to_dict(state.config)}, not {config_to_dict(self.config)}"
            )
        free = {"max_steps", "print_interval", "valid_interval", "save_interval"}
        changed = [k for k, v in asdict(self.recipe).items() if k not in free and state.training["recipe"].get(k) != v]
        if changed:
            told = ", ".join(f"--{k} {state.training['recipe'].get(k)}" for k in changed)
            raise HRNError(
                f"{path}: was trained with {told}; resume with the same, or start anew under another --ckpt_name"
            )
        self.model.load_state_dict(state.weights)
        self.optimizer.load_state_dict(state.training["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state.training["ema"])
        self.step, self.skipped, self.seconds = (state.training[k] for k in ("step", "skipped", "seconds"))
        self.best = state.training["best"]
        self._cut_log()

    def _log(self, line: dict[str, Any]) -> None:
        parts = [f"step {line['step']:,}/{self.recipe.max_steps:,}"]
        if "loss" in line:
            parts += [
                f"loss {line['loss']:.5f}",
                f"lr {line['lr']:.2e}",
                f"{line['images_per_second']:.1f} images/s",
                f"{duration(line['seconds_left'])} left",
            ]
        if "psnr_y" in line:
            parts += [f"PSNR-Y {line['psnr_y']:.3f} dB", f"SSIM-Y {line['ssim_y']:.4f}"]
        logger.info("  ".join(parts))
        try:
            with self.files.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise HRNError(f"cannot write {self.files.log}: {error.strerror}") from None

    def _cut_log(self) -> None:
        """Drop the lines that the resumed run writes again."""
        if self.files.log.is_file():
            lines = self.files.log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.step]
            write_text(self.files.log, "".join(kept))


def duration(seconds: float) -> str:
    """1:02:03, with days before it where there are any."""
    days, rest = divmod(round(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}d {clock}" if days else clock
