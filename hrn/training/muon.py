"""The Muon optimizer for convolutions, with Adam for all other parameters.

Muon replaces the Nesterov momentum of a weight matrix by an approximation of the nearest semi-orthogonal matrix, from
Newton-Schulz iterations: K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/. The update is scaled as in
"Muon is scalable for LLM training" (arXiv 2502.16982), so that learning rates are comparable to Adam's.

`torch.optim.Muon` computes the same update, but only for 2-D parameters and one matrix at a time. Here a convolution's
weight is treated as the matrix (out, in * kh * kw), and matrices of equal shape are processed in one batched product.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz polynomial, tuned by K. Jordan for a steep slope at 0."""
MIN_SIDE = 8
"""Matrices with a shorter side are optimised by Adam. Orthogonalising them has little effect."""


class Muon(torch.optim.Optimizer):
    """Muon for weight matrices and fused Adam for all other parameters.

    As in PyTorch's fused optimizers, a step during which the attribute `found_inf` is 1 changes neither weights nor state.

    Args:
        parameters: parameters of the network. Those with two or more dimensions, whose matrix has no side shorter than
            `MIN_SIDE`, are optimised by Muon.
        lr: learning rate of Muon.
        weight_decay: decoupled weight decay (as in AdamW) of Muon's matrices. Adam's parameters are not decayed.
        adam_lr_ratio: Adam's learning rate divided by Muon's.
        momentum: decay of the moving average of gradients, used with Nesterov's look-ahead.
        iterations: number of Newton-Schulz iterations.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        *,
        adam_lr_ratio: float = 1.0,
        momentum: float = 0.95,
        iterations: int = 5,
    ) -> None:
        parameters = list(parameters)
        matrices = [p for p in parameters if p.ndim >= 2 and min(matrix_shape(p)) >= MIN_SIDE]
        chosen = set(map(id, matrices))
        others = [p for p in parameters if id(p) not in chosen] or [torch.zeros(0)]  # Adam accepts no empty list
        self._adam = torch.optim.Adam(others, lr * adam_lr_ratio, fused=True)
        (adam,) = self._adam.param_groups
        adam["lr_ratio"] = adam_lr_ratio
        muon = {"params": matrices, "weight_decay": weight_decay, "momentum": momentum, "iterations": iterations}
        super().__init__([muon, adam], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update all parameters from their gradients."""
        muon, adam = self.param_groups
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for p in muon["params"]:
            if p.grad is not None:
                by_shape[matrix_shape(p)].append(p)
        for parameters in by_shape.values():
            self._update(parameters, muon)
        self._adam.param_groups, self._adam.state = [adam], self.state  # load_state_dict replaces both
        if self.found_inf is not None:
            self._adam.found_inf = self.found_inf
        self._adam.step()

    def _update(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Update parameters whose matrices have the same shape."""
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        momentum = torch.stack([b.flatten(1) for b in buffers])  # (parameters, rows, columns)
        gradient = torch.stack([p.grad.flatten(1) for p in parameters])
        rate = group["lr"]
        if self.found_inf is not None:  # without waiting for the GPU
            gradient = torch.where(self.found_inf > 0, momentum, gradient)  # keeps the momentum unchanged
            rate = rate * (1 - self.found_inf)
        momentum.lerp_(gradient, 1 - group["momentum"])
        # a CPU without bf16 instructions computes this 14 to 34 times as fast in float32 (benchmarks/muon.py)
        precision = torch.float32 if gradient.device.type == "cpu" else torch.bfloat16
        update = orthogonalise(gradient.lerp_(momentum, group["momentum"]).to(precision), group["iterations"])
        update = update.to(gradient.dtype) * (-rate * 0.2 * math.sqrt(max(update.shape[1:])))
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
        torch._foreach_copy_(buffers, [m.view(p.shape) for m, p in zip(momentum, parameters, strict=True)])
        torch._foreach_add_(parameters, [u.view(p.shape) for u, p in zip(update, parameters, strict=True)])


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """Return the rows and columns of a parameter as a matrix: (out, in * kh * kw) for a convolution."""
    return len(parameter), parameter.numel() // len(parameter)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring the singular values of a batch of matrices close to 1 (0.7 to 1.2) by Newton-Schulz iterations.

    Args:
        matrices: (N, rows, columns), float32 or bfloat16.
        iterations: number of iterations. Five are enough.

    Returns:
        Matrices of the same shape and type, with the singular vectors of `matrices`.
    """
    a, b, c = COEFFICIENTS
    x = matrices
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
