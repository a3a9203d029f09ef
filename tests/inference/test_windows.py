from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hrn.errors import HRNError
from hrn.inference.upscale import Mode, enlarge
from hrn.inference.windows import spans, strips
from hrn.model import HRNConfig, build_model

SMALL = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=1, scales=(2,), reduction=4, upsampler="direct")


class Repeat(nn.Module):
    """Enlarges by repeating pixels, adds what is asked for, and remembers the shapes that it got."""

    def __init__(self, border=0.0):
        super().__init__()
        self.config = SMALL
        self.unused = nn.Parameter(torch.zeros(1))
        self.border, self.shapes = border, []

    def forward(self, x, scale):
        self.shapes.append(tuple(x.shape))
        y = x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        y[:, :, [0, -1]] += self.border
        y[:, :, :, [0, -1]] += self.border
        return y


@pytest.mark.parametrize(("window", "overlap"), [(16, 0), (16, 4), (16, 8), (16, 12), (48, 16)])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 47, 100, 1000])
def test_spans_cover_with_their_overlap(length, window, overlap):
    found = spans(length, window, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(b - a == min(window, length) for a, b in found)
    assert all(end - start >= overlap for (_, end), (start, _) in pairwise(found))
    if length > window:  # none too many
        assert len(found) == 1 + -(-(length - window) // (window - overlap))


@pytest.mark.parametrize("overlap", [0, 5, 9, 12])
@pytest.mark.parametrize("size", [(1, 1), (5, 60), (60, 5), (16, 16), (17, 50), (90, 70)])
def test_windows_of_a_local_network_are_the_whole_image(rng, size, overlap):
    lr = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    network = Repeat()
    sr = enlarge(network, lr, mode=Mode("windows", 16, overlap))
    assert (sr == lr.repeat(2, 0).repeat(2, 1)).all()
    assert all(max(shape[2:]) <= 16 for shape in network.shapes)


def test_borders_of_windows_do_not_show():
    """What a network does wrong at a window's border has the smallest weight there."""
    lr = np.full((96, 96, 3), 100, np.uint8)
    feathered, cut = (
        abs(enlarge(Repeat(border=0.2), lr, mode=Mode("windows", 48, overlap)).astype(int) - 100)[4:-4, 4:-4].max()
        for overlap in (16, 0)
    )
    assert feathered <= 5 < 40 < cut


def test_strips_come_as_soon_as_they_are_done(rng):
    """Memory is bounded: while the strips are taken one after the other, none is much higher than a window."""
    lr = rng.integers(0, 256, (500, 40, 3), dtype=np.uint8)
    heights = [len(strip) for strip in strips(Repeat(), lr, 2, window=32, overlap=8)]
    assert sum(heights) == 1000
    assert max(heights) <= 64


def test_with_a_real_network_it_is_near_the_whole_image(rng, image):
    network = build_model(SMALL).eval()
    whole, parts = (enlarge(network, image, mode=mode).astype(int) for mode in (Mode(), Mode("windows", 24, 8)))
    assert whole.shape == parts.shape
    assert abs(whole - parts).max() <= 2  # a new network is local, but for the zeros that pad each window


@pytest.mark.parametrize("values", [("window",), ("windows", 16, 16), ("windows", 16, -1)])
def test_bad_modes(values):
    with pytest.raises(HRNError, match=r"the mode must be one of|cannot overlap"):
        Mode(*values)
