import numpy as np
import pytest
import torch

from hrn import load_model, upscale
from hrn.errors import HRNError
from hrn.model import build_model, preset


def load(root, name, **arguments):
    return torch.hub.load(str(root), name, source="local", **arguments)


@pytest.mark.parametrize("scale", [2, 4])
def test_pretrained_gives_the_same_as_upscale(root, image, scale):
    model = load(root, "hrn_light", scale=scale)
    assert not model.training
    lr = torch.from_numpy(image[:, :63]).permute(2, 0, 1)[None] / 255
    sr = model(lr)
    assert sr.min() >= 0
    assert sr.max() <= 1
    expected = upscale(load_model(f"hrn_light_x{scale}", device="cpu"), image[:, :63])
    found = (sr[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_upscale_needs_a_network_of_load_model(root, image):
    with pytest.raises(HRNError, match=r"LocalHRN .* hrn.load_model"):
        upscale(load(root, "hrn_light"), image)


@pytest.mark.parametrize("name", ["hrn_light", "hrn_base", "hrn"])
def test_random_weights(root, name):
    """To be trained as `hrn/train.py` does it: without the changes of mode local and without clipping."""
    model = load(root, name, scale=3, pretrained=False)
    assert model.training
    network = build_model(preset(name, [3]))
    network.load_state_dict(model.network.state_dict())
    lr = 3 * torch.rand(2, 3, 5, 7)
    sr = model(lr)
    torch.testing.assert_close(sr, network(lr, 3))
    assert sr.max() > 1


def test_missing_weights_and_unknown_scales(root):
    with pytest.raises(HRNError, match="hrn_x8"):
        load(root, "hrn", scale=8)
    with pytest.raises(ValueError, match="5"):
        load(root, "hrn_light", scale=5)
