"""The network while it learns: weights, their running mean, optimizer, and one update.

Nothing here waits for the GPU: whether a step was finite is decided and acted on there, and read when it is logged.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from hrn.distributed import Processes
from hrn.model import ReleasedConfig, build_model
from hrn.model.config import Config
from hrn.model.norm import BatchNorm, set_norm_group
from hrn.runtime import check_gpu_generation
from hrn.training.recipe import LOSSES, OPTIMIZERS, PRECISIONS, Execution, Recipe

Patches = tuple[Tensor, Tensor]
"""(B, 3, p, p) and (B, 3, s*p, s*p) uint8: what a process computes at once."""


class Learner:
    """Learns by `recipe` on the processes' devices; all processes hold the same weights.

    Args:
        config: of the network.
        recipe: with `norm_batch` set.
        execution: how the machine is used.
        processes: that share each batch.

    Raises:
        HRNError: the device has not the precision.
    """

    def __init__(self, config: Config, recipe: Recipe, execution: Execution, processes: Processes) -> None:
        self.recipe, self.execution, self.processes = recipe, execution, processes
        device = processes.device
        check_gpu_generation(recipe.precision, device)
        torch.manual_seed(recipe.seed)
        self.model = build_model(config).to(device, memory_format=self._layout).train()
        set_norm_group(self.model, recipe.norm_batch)
        self.ema = AveragedModel(self.model) if recipe.ema else None
        norms = [m for m in self.model.modules() if isinstance(m, BatchNorm)]
        self._running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = OPTIMIZERS[recipe.optimizer](self.parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.scales = config.scales
        self.network = self._network(config)
        self.sums = torch.zeros(len(self.scales), 3, dtype=torch.float64, device=device)
        """For each scale: loss, norm of the gradient and number, summed over the finite steps since the last `tally`."""
        self.skipped = torch.zeros(2, dtype=torch.int64, device=device)
        """Steps that were not finite: all of them, and the latest in a row."""

    @property
    def shipped(self) -> nn.Module:
        """The network that is validated and saved for use."""
        return self.ema.module if self.ema else self.model

    def step(self, parts: Sequence[Patches], lr: float) -> None:
        """One update by this process's share of the batch, in `accumulate` parts. A step that is not finite changes nothing."""
        self.optimizer.zero_grad(set_to_none=True)
        before = self._statistics()
        losses, statistics = [], []
        for i, (lr_patch, hr_patch) in enumerate(parts):
            if i:
                self._set_statistics(before)
            with self._syncing(last=i == len(parts) - 1):
                loss = self._loss(lr_patch, hr_patch)
                self.scaler.scale(loss / len(parts)).backward()
            losses.append(loss.detach())
            statistics.append(self._statistics())
        scale = hr_patch.shape[-1] // lr_patch.shape[-1]
        # each part's loss and statistics weigh the same: the batch is shared out evenly
        means = torch.cat([torch.stack(losses).float().mean()[None], torch.stack(statistics).mean(0)])
        means = self.processes.mean(means)
        self._update(means[0], before, means[1:], lr, self.scales.index(scale))

    def _update(self, loss: Tensor, before: Tensor, after: Tensor, lr: float, scale_index: int) -> None:
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip, foreach=True)
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        self._set_statistics(torch.where(finite, after, before))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.found_inf = (~finite).float()  # the fused kernels then leave weights and moments as they are
        self.optimizer.step()
        if self.scaler.is_enabled():
            self.scaler.update()
        if self.ema:
            # a shorter mean at first: the start is forgotten within a tenth of the steps so far
            self._average(finite * max(1 - self.recipe.ema, 9 / (10 + int(self.ema.n_averaged))))
        seen = torch.stack([loss.double(), norm.double(), torch.ones_like(loss, dtype=torch.float64)])
        self.sums[scale_index] += torch.where(finite, seen, 0.0)
        self.skipped[0] += ~finite
        self.skipped[1] = torch.where(finite, 0, self.skipped[1] + 1)

    @torch.no_grad()
    def _average(self, weight: Tensor) -> None:
        """Let the present weights count for `weight` in their running mean; AveragedModel's own way waits for the GPU.

        BatchNorm's running statistics are averaged alike: those of the present weights do not fit the mean ones.
        """
        mean, present = (self._averaged(model) for model in (self.ema.module, self.model))
        if self.ema.n_averaged:  # on the CPU
            difference = torch._foreach_sub(present, mean)
            torch._foreach_mul_(difference, weight)
            torch._foreach_add_(mean, difference)
        else:
            torch._foreach_copy_(mean, present)
        self.ema.n_averaged += 1

    @staticmethod
    def _averaged(model: nn.Module) -> list[Tensor]:
        """Parameters and statistics; counters are left out."""
        return [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]

    def tally(self) -> dict[str, Any]:
        """Mean loss and norm of the gradient since the last call, and all steps skipped so far."""
        sums = self.sums.to("cpu", copy=True)
        self.sums.zero_()
        loss, norm, count = sums.sum(0).tolist()
        line: dict[str, Any] = {"loss": loss / count if count else None}
        if len(self.scales) > 1:
            line |= {f"loss_x{s}": float(row[0] / row[2]) for s, row in zip(self.scales, sums, strict=True) if row[2]}
        return line | {"grad_norm": norm / count if count else None, "skipped": int(self.skipped[0])}

    def skipped_in_a_row(self) -> int:
        """How many of the latest steps were not finite."""
        return int(self.skipped[1])

    def state_dict(self) -> dict[str, Any]:
        """All but the weights themselves."""
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
        """Go on from what `state_dict` gave, perhaps on another kind of device."""
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = True
            for p in group["params"]:  # the fused kernels want moments in the layout of their weights
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

    # how it is computed

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.execution.channels_last else torch.contiguous_format

    def _network(self, config: Config) -> nn.Module:
        """The model as it is called in training; it shares the model's weights."""
        network, device = self.model, self.processes.device
        if self.execution.compile:
            if self.execution.deterministic:
                from torch._inductor import config as inductor  # slow to import

                if hasattr(inductor, "deterministic"):
                    inductor.deterministic = True  # it chooses by rule then, not by timing
            graphs = device.type == "cuda" and self.processes.count == self.execution.accumulate == 1
            mode = "reduce-overhead" if graphs else None  # CUDA graphs: patches have one size
            network = torch.compile(network, fullgraph=True, dynamic=False, mode=mode)
        if self.processes.count > 1:
            some_unused = len(config.scales) > 1 or isinstance(config, ReleasedConfig)
            ids = [device] if device.type == "cuda" else None
            network = DistributedDataParallel(network, device_ids=ids, find_unused_parameters=some_unused)
        return network

    def _loss(self, lr_patch: Tensor, hr_patch: Tensor) -> Tensor:
        precision, device = self.recipe.precision, self.processes.device
        lr_patch, hr_patch = (
            x.to(device, non_blocking=True).to(torch.float32, memory_format=self._layout).div_(255)
            for x in (lr_patch, hr_patch)
        )
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32"):
            sr = self.network(lr_patch, hr_patch.shape[-1] // lr_patch.shape[-1])
            return LOSSES[self.recipe.loss_fn](sr, hr_patch)

    def _syncing(self, *, last: bool) -> AbstractContextManager:
        return nullcontext() if last or self.processes.count == 1 else self.network.no_sync()

    def _statistics(self) -> Tensor:
        """A copy of all running statistics of BatchNorm, one after the other."""
        return torch.cat(self._running) if self._running else torch.zeros(0, device=self.processes.device)

    def _set_statistics(self, values: Tensor) -> None:
        if self._running:
            torch._foreach_copy_(self._running, values.split([len(r) for r in self._running]))
