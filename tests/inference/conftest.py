"""Networks that are quick, or whose output is known."""

import pytest
import torch
from torch import nn

from hrn.model import HRNConfig, build_model

SMALL = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=1, scales=(2,), reduction=4, upsampler="direct")


class Repeat(nn.Module):
    """Enlarges by repeating pixels, adds `border` at the edges, and remembers the shapes that it got.

    More than `room` pixels at once raise `error`.
    """

    def __init__(self, border=0.0, room=None, error=None):
        super().__init__()
        self.config = SMALL
        self.unused = nn.Parameter(torch.zeros(1))
        self.border, self.room, self.error, self.shapes = border, room, error, []

    def forward(self, x, scale):
        if self.room and x.shape[0] * x.shape[2] * x.shape[3] > self.room:
            raise self.error
        self.shapes.append(tuple(x.shape))
        y = x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        y[:, :, [0, -1]] += self.border
        y[:, :, :, [0, -1]] += self.border
        return y


@pytest.fixture
def repeat():
    return Repeat


@pytest.fixture
def small():
    """A network of the paper's kind with weights that matter; on whole images its far reach shows."""
    torch.manual_seed(0)
    network = build_model(SMALL).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    return network
