"""One training update: network, EMA of the weights, optimizer and gradient scaling.

A step does not wait for the GPU. Non-finite steps are detected and skipped on the device; the host reads their number only
for the log and for periodic checks.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hrn.distributed import Processes
from hrn.errors import HRNError
from hrn.model import build_model
from hrn.model.config import Config
from hrn.model.norm import BatchNorm, set_norm
from hrn.runtime import PRECISIONS, check_precision, has_tf32, missing_for_compile
from hrn.training.recipe import LOSSES, Execution, Recipe

logger = logging.getLogger(__name__)

Patches = tuple[Tensor, Tensor]
"""LR and HR patches that a process computes at once, (B, 3, p, p) and (B, 3, s*p, s*p) uint8."""


class Learner:
    """A network in training. All processes hold the same weights.

    Args:
        config: configuration of the network.
        recipe: training settings, with `norm_batch` set unless `freeze_norm` is.
        execution: how the machine is used.
        processes: the processes that share each batch.

    Raises:
        HRNError: the device does not support the precision, or `--compile` finds no compiler.
    """

    def __init__(self, config: Config, recipe: Recipe, execution: Execution, processes: Processes) -> None:
        self.recipe, self.execution, self.processes = recipe, execution, processes
        device = processes.device
        check_precision(recipe.precision, device, training=True)
        self.compiled = decide_compile(execution.compile, device)
        channels_last = decide_channels_last(execution, recipe.precision, device)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        torch.manual_seed(recipe.seed)
        self.network = build_model(config).to(device, memory_format=self._layout).train()
        set_norm(self.network, group_size=recipe.norm_batch, frozen=recipe.freeze_norm)
        self.ema = AveragedModel(self.network) if recipe.ema else None
        self._ema_tensors = [averaged_tensors(m) for m in (self.ema.module, self.network)] if self.ema else []
        norms = [m for m in self.network.modules() if isinstance(m, BatchNorm) and not m.frozen]
        self._running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = recipe.make_optimizer(self.parameters)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.scales = config.scales
        self.training_network = self._compile() if self.compiled else self.network
        """The network that training calls; it shares the weights of `network`."""
        self.sums = torch.zeros(len(self.scales), 3, dtype=torch.float64, device=device)
        """Loss, gradient norm and count for each scale, (scales, 3): sums over the finite steps since the last `pop_metrics`."""
        self.skipped = torch.zeros(2, dtype=torch.int64, device=device)
        """Counts of non-finite steps: in total, and consecutive up to now."""

    def describe_norm(self) -> str:
        """Return a short description of BatchNorm's statistics in training."""
        if not any(isinstance(m, BatchNorm) for m in self.network.modules()):
            return "no BatchNorm"
        if self.recipe.freeze_norm:
            return "BatchNorm frozen"
        return f"BatchNorm over groups of {self.recipe.norm_batch}"

    @property
    def eval_network(self) -> nn.Module:
        """The network that is validated and saved for inference."""
        return self.ema.module if self.ema else self.network

    # one update

    def step(self, micro_batches: Sequence[Patches], rate: float) -> None:
        """Make one update. A step whose loss or gradient is not finite changes no weights; the EMA counts it as a step.

        Args:
            micro_batches: this process's share of the batch, in `accumulate` micro-batches, all of the same scale.
            rate: learning rate.
        """
        self.optimizer.zero_grad(set_to_none=True)
        statistics_before = self._statistics()
        losses, statistics = [], []
        for i, (lr_patch, hr_patch) in enumerate(micro_batches):
            if i:
                self._set_statistics(statistics_before)
            loss = self._loss(lr_patch, hr_patch)
            self.scaler.scale(loss / len(micro_batches)).backward()
            losses.append(loss.detach())
            statistics.append(self._statistics())
        # every micro-batch has the same number of patches, so a plain mean is the mean over the batch
        means = torch.cat([torch.stack(losses).float().mean()[None], torch.stack(statistics).mean(0)])
        self.processes.average_([means])
        loss, statistics_after = means[0], means[1:]
        self.processes.average_([p.grad for p in self.parameters if p.grad is not None])

        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip, foreach=True)
        finite = torch.isfinite(loss) & torch.isfinite(norm)

        self._set_statistics(torch.where(finite, statistics_after, statistics_before))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_ratio", 1.0)
        self.optimizer.found_inf = (~finite).float()  # if 1, the fused kernels keep weights and moments unchanged
        self.optimizer.step()
        if self.scaler.is_enabled():
            self.scaler.update()
        if self.ema:
            # The decay is smaller in the first steps, so that the EMA forgets the initial weights.
            weight = max(1 - self.recipe.ema, 9 / (10 + int(self.ema.n_averaged)))
            self._update_ema(finite * weight)

        scale_index = self.scales.index(hr_patch.shape[-1] // lr_patch.shape[-1])
        values = torch.stack([loss.double(), norm.double(), torch.ones_like(loss, dtype=torch.float64)])
        self.sums[scale_index] += torch.where(finite, values, 0.0)
        self.skipped[0] += ~finite
        self.skipped[1] = torch.where(finite, 0, self.skipped[1] + 1)

    def _loss(self, lr_patch: Tensor, hr_patch: Tensor) -> Tensor:
        device, autocast_type = self.processes.device, PRECISIONS[self.recipe.precision]
        lr_patch, hr_patch = (
            x.to(device, non_blocking=True).to(torch.float32, memory_format=self._layout).div_(255)
            for x in (lr_patch, hr_patch)
        )
        with torch.autocast(device.type, autocast_type, enabled=autocast_type is not None):
            sr = self.training_network(lr_patch, hr_patch.shape[-1] // lr_patch.shape[-1])
            return LOSSES[self.recipe.loss_fn](sr, hr_patch)

    @torch.no_grad()
    def _update_ema(self, weight: Tensor) -> None:
        """Move the EMA towards the current weights by `weight`. AveragedModel's own update waits for the GPU.

        BatchNorm's running statistics are averaged too, because those of the current weights do not fit the averaged ones.
        """
        mean, present = self._ema_tensors
        if self.ema.n_averaged:  # a tensor on the CPU
            difference = torch._foreach_sub(present, mean)
            torch._foreach_mul_(difference, weight)
            torch._foreach_add_(mean, difference)
        else:
            torch._foreach_copy_(mean, present)
        self.ema.n_averaged += 1

    # reports and state

    def pop_metrics(self) -> dict[str, Any]:
        """Return the mean loss and gradient norm since the last call, and the number of steps skipped so far. Resets the means."""
        sums = self.sums.to("cpu", copy=True)
        self.sums.zero_()
        loss, norm, count = sums.sum(0).tolist()
        entry: dict[str, Any] = {"loss": loss / count if count else None}
        if len(self.scales) > 1:
            entry |= {f"loss_x{s}": float(row[0] / row[2]) for s, row in zip(self.scales, sums, strict=True) if row[2]}
        return entry | {"grad_norm": norm / count if count else None, "skipped": int(self.skipped[0])}

    def skipped_in_a_row(self) -> int:
        """Return how many of the latest steps were not finite."""
        return int(self.skipped[1])

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the weights."""
        cuda = self.processes.device.type == "cuda"
        return {
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "scaler": self.scaler.state_dict(),
            "sums": self.sums,
            "skipped": self.skipped,
            "rng": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if cuda else None},
        }

    def load_state_dict(self, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restore the weights and a result of `state_dict`, which may come from another kind of device."""
        self.network.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            if "fused" in group:
                group["fused"] = True
            for p in group["params"]:  # fused kernels need moments in the memory layout of their weights
                moments = self.optimizer.state.get(p, {})
                moments |= {k: torch.empty_like(p).copy_(v) for k, v in moments.items() if v.shape == p.shape}
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        self.scaler.load_state_dict(state["scaler"])
        self.sums.copy_(state["sums"])
        self.skipped.copy_(state["skipped"])
        torch.set_rng_state(state["rng"]["cpu"].cpu())
        if self.processes.device.type == "cuda" and state["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["rng"]["cuda"].cpu())

    # execution

    def _compile(self) -> nn.Module:
        if self.execution.deterministic:
            from torch._inductor import config as inductor  # slow to import

            inductor.deterministic = True  # choose kernels by rule instead of by timing
        mode = compile_mode(self.processes.device, self.execution)
        return torch.compile(self.network, fullgraph=True, dynamic=False, mode=mode)

    def _statistics(self) -> Tensor:
        """Copy BatchNorm's running statistics into one vector."""
        return torch.cat(self._running) if self._running else torch.zeros(0, device=self.processes.device)

    def _set_statistics(self, values: Tensor) -> None:
        if self._running:
            torch._foreach_copy_(self._running, values.split([len(r) for r in self._running]))


def averaged_tensors(model: nn.Module) -> list[Tensor]:
    """Return the parameters and the floating-point buffers, of which the EMA keeps averages."""
    return [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]


def decide_channels_last(execution: Execution, precision: str, device: torch.device) -> bool:
    """Return whether features are in channels_last memory. By default they are, unless cuDNN computes in IEEE float32.

    cuDNN's float32 convolutions without TF32 are faster in NCHW: https://github.com/pytorch/pytorch/issues/44943
    """
    if execution.channels_last is not None or device.type != "cuda" or precision != "fp32":
        return execution.channels_last is not False
    return execution.tf32 and has_tf32(device)


def compile_mode(device: torch.device, execution: Execution) -> str | None:
    """Return the mode of `torch.compile`: CUDA graphs on CUDA, except with gradient accumulation, which they do not support."""
    return "reduce-overhead" if device.type == "cuda" and execution.accumulate == 1 else None


def decide_compile(requested: bool | None, device: torch.device) -> bool:
    """Return whether to use `torch.compile`. None means on CUDA only, if the machine has what it needs.

    Raises:
        HRNError: it is requested, but a compiler or Python's headers are missing.
    """
    if requested is False or (requested is None and device.type != "cuda"):
        return False
    missing = missing_for_compile(device)
    if missing and requested:
        raise HRNError(f"--compile needs {missing}. Install it, or use --no-compile.")
    if missing:
        logger.warning("training without torch.compile, which is several times slower: it needs %s", missing)
    return not missing
