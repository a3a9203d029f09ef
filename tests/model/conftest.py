"""Checks that several tests of networks share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F


@pytest.fixture
def parameters_without_gradient() -> Callable[[nn.Module], list[str]]:
    """A function that trains an x2 network for three steps and names the parameters whose gradient is still zero.

    The first steps remove the zeros of the initialisation.
    """

    def train(network: nn.Module) -> list[str]:
        network.train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.l1_loss(network(torch.rand(2, 3, 12, 12)), torch.rand(2, 3, 24, 24)).backward()
            optimizer.step()
        return [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]

    return train
