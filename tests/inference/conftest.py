"""Small networks, and networks whose output is known."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from hrn.checkpoint import save_checkpoint
from hrn.model import build_model
from tests.conftest import SMALL, randomise


class Repeat(nn.Module):
    """Enlarges by repeating pixels, adds `border` at the edges, and records the shapes of its inputs.

    Inputs of more than `room` pixels raise `error`.
    """

    def __init__(self, border=0.0, room=None, error=None):
        super().__init__()
        self.config = SMALL
        self.unused = nn.Parameter(torch.zeros(1))
        self.border, self.room, self.error, self.shapes = border, room, error, []
        self.eval()

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
    """An HRN with random weights, none of which are zero; its output at a pixel depends on distant pixels."""
    torch.manual_seed(0)
    return randomise(build_model(SMALL)).requires_grad_(False)


@pytest.fixture
def new_checkpoint(tmp_path):
    """A freshly initialised network at x2, which enlarges bilinearly."""
    path = tmp_path / "small_x2.pth"
    save_checkpoint(path, SMALL, build_model(SMALL).state_dict(), info={})
    return path


@pytest.fixture
def two_scales(tmp_path, small):
    """The body of `small` at x2 and x3."""
    config = replace(SMALL, scales=(2, 3))
    weights = build_model(config).state_dict() | {k: v for k, v in small.state_dict().items() if "tails" not in k}
    save_checkpoint(tmp_path / "small.pth", config, weights, info={"steps": 7})
    return tmp_path / "small.pth"
