import numpy as np
import pytest
import torch
from PIL import Image

from hrn.inference.ensemble import self_ensemble


def as_pillow(x):
    return Image.fromarray(x.permute(1, 2, 0).byte().numpy())


@pytest.mark.parametrize("batched", [False, True])
def test_each_of_the_eight_views_is_used_once(rng, batched):
    x = torch.from_numpy(rng.integers(0, 256, (1, 3, 4, 6))).float()
    seen, calls = [], []

    def enlarge(batch):
        calls.append(len(batch))
        seen.extend(as_pillow(view).tobytes() + bytes(view.shape) for view in batch)
        return batch

    assert torch.equal(self_ensemble(enlarge, x, batched), x)
    views = [as_pillow(x[0]), *(as_pillow(x[0]).transpose(turn) for turn in Image.Transpose)]
    assert sorted(seen) == sorted(v.tobytes() + bytes((3, v.height, v.width)) for v in views)
    assert calls == ([4, 4] if batched else [1] * 8)


@pytest.mark.parametrize("batched", [False, True])
def test_directional_differences_are_averaged(batched):
    x = torch.zeros(2, 3, 4, 4)

    def adds_a_ramp(view):
        return view + torch.arange(4.0)  # 0 to 3 from left to right

    assert self_ensemble(adds_a_ramp, x, batched).flatten().tolist() == pytest.approx([1.5] * 96)


@pytest.mark.parametrize("batched", [False, True])
def test_an_equivariant_enlarger_is_unchanged(rng, batched):
    x = torch.from_numpy(rng.random((2, 3, 5, 7), np.float32))
    np.testing.assert_allclose(
        self_ensemble(lambda v: v.repeat_interleave(2, 2).repeat_interleave(2, 3), x, batched).numpy(),
        x.numpy().repeat(2, 2).repeat(2, 3),
        rtol=1e-6,
    )
