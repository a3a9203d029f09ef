from itertools import pairwise

import numpy as np
import pytest
import torch

from hrn.inference.enlarger import BATCH_PIXELS, Enlarger
from hrn.inference.mode import Mode
from hrn.inference.tiling import Blender, Layout, spans


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("window", "overlap"), [(16, 0), (16, 4), (16, 8), (16, 12), (48, 16)])
@pytest.mark.parametrize("length", [1, 15, 16, 17, 47, 100, 1000])
def test_spans_cover_with_their_overlap(length, window, overlap, aligned):
    found = spans(length, window, overlap, aligned)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(end - start >= overlap for (_, end), (start, _) in pairwise(found))
    if length > window:  # no more than necessary
        assert len(found) == 1 + -(-(length - window) // (window - overlap))
    if aligned:
        assert all(b - a == min(window, length) and a % (window - overlap) == 0 for a, b in found[:-1])
        assert 0 < found[-1][1] - found[-1][0] <= window
    else:
        assert all(b - a == min(window, length) for a, b in found)


@pytest.mark.parametrize("overlap", [0, 5, 9, 12])
@pytest.mark.parametrize("size", [(1, 1), (5, 60), (60, 5), (16, 16), (17, 50), (90, 70)])
def test_windows_of_a_local_network_are_the_whole_image(rng, repeat, size, overlap):
    lr = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    network = repeat()
    sr = Enlarger(network, mode=Mode("windows", 16, overlap))(lr)
    assert (sr == lr.repeat(2, 0).repeat(2, 1)).all()
    assert all(max(shape[2:]) <= 16 for shape in network.shapes)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("window", "overlap", "batch_size"), [((16, 24), 8, 1), ((16, 16), 0, 3), ((20, 20), 16, 100)])
def test_any_layout_of_a_local_network_is_the_whole_image(rng, window, overlap, batch_size, aligned):
    lr = rng.integers(0, 256, (50, 61, 3), dtype=np.uint8)
    blender = Blender(lr.shape[:2], 3, Layout(window, overlap, aligned, batch_size), torch.device("cpu"))
    strips, counts = [], []
    for group in blender.groups():
        blender.start(group)
        for windows in blender.batches(group):
            batch = blender.cut(torch.from_numpy(lr), windows)
            counts.append(len(batch))
            blender.add(windows, batch.float().repeat_interleave(3, 1).repeat_interleave(3, 2))
        strips.append(blender.finish(group))
    np.testing.assert_allclose(torch.cat(strips).numpy(), lr.repeat(3, 0).repeat(3, 1), atol=1e-3)
    assert max(counts) <= batch_size
    assert sum(counts) == len(blender.rows) * len(blender.columns)


def test_batches_cross_rows_of_windows(rng, repeat, monkeypatch):
    """As on a GPU, where a batch holds more windows than a row has."""
    monkeypatch.setitem(BATCH_PIXELS, "cpu", 10 * 16 * 16)
    lr = rng.integers(0, 256, (60, 40, 3), dtype=np.uint8)
    network = repeat()
    assert (Enlarger(network, mode=Mode("windows", 16, 4))(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert [shape[0] for shape in network.shapes] == [9, 6]  # five rows of three windows


def test_borders_of_windows_are_hidden(repeat):
    """Errors at the border of a window have a small weight."""
    lr = np.full((96, 96, 3), 100, np.uint8)
    feathered, cut = (
        abs(Enlarger(repeat(border=0.2), mode=Mode("windows", 48, overlap))(lr).astype(int) - 100)[4:-4, 4:-4].max()
        for overlap in (16, 0)
    )
    assert feathered <= 5 < 40 < cut


def test_strips_are_yielded_early(rng, repeat):
    """Memory is bounded: no strip is much higher than a window."""
    lr = rng.integers(0, 256, (500, 300, 3), dtype=np.uint8)
    enlarger = Enlarger(repeat(), mode=Mode("windows", 32, 8))
    heights = [len(strip) for strip in enlarger.strips(lr)]
    assert sum(heights) == 1000
    assert max(heights) <= 64
