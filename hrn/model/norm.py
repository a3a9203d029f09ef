"""Batch normalisation whose statistics depend neither on the number of processes nor on gradient accumulation.

Where a step's batch is shared out over processes, or taken in parts, ordinary batch normalisation takes statistics over
each part, and so gives another update than the whole batch does. Here they are taken over groups of a fixed number of
patches ("ghost batches", E. Hoffer et al., "Train longer, generalize better", NeurIPS 2017, arXiv 1705.08741): as long as
every part is made of whole groups, one process or many give the same update.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, with the same state dict, and statistics over groups of the batch while training.

    `group` is the number of neighbouring samples that share statistics; None takes the whole batch that comes.
    """

    group: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape. Raises ValueError if B is not a multiple of `group` while training."""
        if not self.training:
            return super().forward(x)
        group = self.group or len(x)
        if len(x) % group:
            raise ValueError(f"a batch of {len(x)} is not made of whole groups of {group}")
        groups = len(x) // group
        grouped = x.unflatten(0, (groups, group)).transpose(0, 1).reshape(group, groups * x.shape[1], *x.shape[2:])
        mean, var = self.running_mean.repeat(groups), self.running_var.repeat(groups)
        y = F.batch_norm(
            grouped, mean, var, self.weight.repeat(groups), self.bias.repeat(groups), True, self.momentum, self.eps
        )
        self.running_mean.copy_(mean.unflatten(0, (groups, -1)).mean(0))
        self.running_var.copy_(var.unflatten(0, (groups, -1)).mean(0))
        return y.unflatten(1, (groups, x.shape[1])).transpose(0, 1).reshape(x.shape)


def set_norm_group(network: nn.Module, group: int) -> None:
    """Let every :class:`BatchNorm` of `network` take its statistics over `group` patches."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.group = group
