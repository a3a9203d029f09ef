"""The authors' released network against its own outputs, and its DCT against scipy."""

import json

import numpy as np
import pytest
import scipy.fft
import torch

from hrn.model import SCALES, build_model, preset
from hrn.model.released import unnormalised_dct, unnormalised_idct


def test_dct_is_scipys_without_norm():
    x = torch.randn(2, 3, 5, 48)
    expected = scipy.fft.dct(x.double().numpy(), axis=-1, norm=None)
    np.testing.assert_allclose(unnormalised_dct(x).numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(unnormalised_idct(unnormalised_dct(x)).numpy(), x.numpy(), atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_equals_the_authors_network(shared, scale):
    facts = json.loads((shared / "golden/released_network.json").read_text())
    expected = np.load(shared / "golden/released_network.npz")[f"x{scale}"]
    network = build_model(preset("hrn_released", [scale])).eval()
    weights = network.state_dict()
    names_and_shapes = [[name, list(value.shape)] for name, value in weights.items()]
    if scale == 4:
        assert names_and_shapes == facts["state_dict_x4"]
    else:
        assert [x for x in names_and_shapes if x[0].startswith("tail")] == facts[f"state_dict_x{scale}_tail"]
    assert len(weights) == facts[f"x{scale}"]["n_entries"]
    assert sum(p.numel() for p in network.parameters()) == facts[f"x{scale}"]["parameters"]
    for i, (name, value) in enumerate(weights.items()):
        if "mean" not in name and "running" not in name and "num_batches" not in name:
            weights[name] = torch.randn(value.shape, generator=torch.Generator().manual_seed(1000 + i)) * 0.03
    network.load_state_dict(weights)
    with torch.inference_mode():
        sr = network(torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(7)))
    np.testing.assert_allclose(sr[:, :, ::scale, ::scale].numpy(), expected, atol=1e-4)
