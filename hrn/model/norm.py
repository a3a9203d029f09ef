"""Batch normalisation over groups of fixed size, independent of the number of processes and of gradient accumulation.

If a step's batch is divided over processes or computed in parts, ordinary batch normalisation uses the statistics of each
part, and the update differs from that of the whole batch. Here statistics are taken over groups of a fixed number of
patches ("ghost batches", E. Hoffer et al., "Train longer, generalize better", NeurIPS 2017, arXiv 1705.08741). If every
part consists of whole groups, the update does not depend on the division.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with statistics over groups of the batch, or frozen ones, in training mode.

    The state dict is the same.
    """

    group_size: int = 0
    """Number of consecutive samples that share statistics (the ghost batch size); 0 uses the whole batch."""
    frozen: bool = False
    """Whether training mode also normalises with the running statistics, and does not update them."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape. Raises ValueError if statistics are taken and B is not a multiple of `group_size`."""
        if self.frozen or not self.training:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        group = self.group_size or len(x)
        if len(x) % group:
            raise ValueError(f"a batch of {len(x)} cannot be divided into groups of {group}")
        groups = len(x) // group
        if groups == 1:
            mean, var = self.running_mean, self.running_var
            return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
        grouped = x.unflatten(0, (groups, group)).transpose(0, 1).reshape(group, groups * x.shape[1], *x.shape[2:])
        mean, var = self.running_mean.repeat(groups), self.running_var.repeat(groups)
        y = F.batch_norm(
            grouped, mean, var, self.weight.repeat(groups), self.bias.repeat(groups), True, self.momentum, self.eps
        )
        self.running_mean.copy_(mean.unflatten(0, (groups, -1)).mean(0))
        self.running_var.copy_(var.unflatten(0, (groups, -1)).mean(0))
        return y.unflatten(1, (groups, x.shape[1])).transpose(0, 1).reshape(x.shape)


def set_norm(network: nn.Module, *, group_size: int, frozen: bool) -> None:
    """Set `group_size` and `frozen` of every :class:`BatchNorm` in `network`."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.group_size, module.frozen = group_size, frozen
