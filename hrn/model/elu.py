"""ELU, without the scalar `expm1` of PyTorch's CPU kernel, which took a quarter of a training step (`benchmarks/elu.py`)."""

import torch
from torch import Tensor
from torch.nn import functional as F


def elu(x: Tensor) -> Tensor:
    """x where x > 0, exp(x) - 1 elsewhere (D. Clevert et al., ICLR 2016, arXiv 1511.07289), for any shape."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.elu(x)
    return _VectorisedELU.apply(x)


class _VectorisedELU(torch.autograd.Function):
    """max(x, expm1(min(x, 0))): exp(x) - 1 is never below x, so the maximum takes the right branch."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        y = x.clamp(max=0).expm1_()
        torch.maximum(x, y, out=y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, y)
