import numpy as np
import pytest
import torch
from PIL import Image

from hrn.inference.ensemble import self_ensemble

TURNS = [None, *Image.Transpose]


def as_pillow(x):
    return Image.fromarray(x[0].permute(1, 2, 0).byte().numpy())


def test_all_eight_views_are_seen_once(rng):
    x = torch.from_numpy(rng.integers(0, 256, (1, 3, 4, 6))).float()
    seen = []

    def enlarge(view):
        seen.append(as_pillow(view).tobytes() + bytes(view.shape))
        return view

    assert torch.equal(self_ensemble(enlarge, x), x)
    views = [as_pillow(x) if turn is None else as_pillow(x).transpose(turn) for turn in TURNS]
    assert sorted(seen) == sorted(v.tobytes() + bytes((1, 3, v.height, v.width)) for v in views)


def test_what_depends_on_the_direction_is_averaged():
    x = torch.zeros(1, 3, 4, 4)

    def adds_a_ramp(view):
        return view + torch.arange(4.0)  # 0 to 3 from left to right

    assert self_ensemble(adds_a_ramp, x).flatten().tolist() == pytest.approx([1.5] * 48)


def test_an_equivariant_enlarger_is_unchanged(rng):
    x = torch.from_numpy(rng.random((1, 3, 5, 7), np.float32))
    np.testing.assert_allclose(
        self_ensemble(lambda v: v.repeat_interleave(2, 2).repeat_interleave(2, 3), x).numpy(),
        x.numpy().repeat(2, 2).repeat(2, 3),
        rtol=1e-6,
    )
