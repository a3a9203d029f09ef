"""Embedding a network in a larger one: the same function, or a ValueError."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from hrn.model import HRN, HRNConfig, preset
from hrn.model.growth import check_growth, grow
from tests.conftest import randomise

LIGHT = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=2, reduction=4, upsampler="direct")
BASE = replace(LIGHT, channels=12, n_dem=2, n_wrab=2)
LARGE = replace(BASE, channels=48, n_dem=3, n_wrab=3, expansion=3, reduction=8, upsampler="subpixel")


def randomised(config):
    """A network in float64 with random weights and BatchNorm statistics."""
    return randomise(HRN(config).double(), 0.1)


def grown(small, config):
    large = HRN(config).double().eval()
    grow(small, large)
    return large


@torch.no_grad()
def assert_equal(small, large, size=(7, 10)):
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    for scale in small.config.scales:
        torch.testing.assert_close(large(image, scale), small(image, scale), atol=1e-10, rtol=0)


@pytest.mark.parametrize("scales", [(2,), (3,), (4,), (8,), (2, 3, 4)])
def test_growing_twice_keeps_the_function(scales):
    small, middle, large = (replace(config, scales=scales) for config in (LIGHT, BASE, LARGE))
    light = randomised(small)
    base = grown(light, middle)
    assert_equal(light, base)
    assert_equal(light, grown(base, large), size=(1, 13))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (17, 12)])
def test_any_image_size(size):
    light = randomised(LIGHT)
    assert_equal(light, grown(light, LARGE), size)


def test_presets_grow_into_each_other():
    light = randomised(preset("hrn_light", [4]))
    base = grown(light, preset("hrn_base", [4]))
    assert_equal(light, base)
    assert_equal(light, grown(base, preset("hrn", [4])))


def test_growing_one_dimension_at_a_time():
    small = randomised(replace(LIGHT, scales=(2,)))
    for change in ({"channels": 9}, {"n_wrab": 3}, {"expansion": 3}, {"channels": 9, "n_dem": 3}, {"reduction": 2}):
        assert_equal(small, grown(small, replace(small.config, **change)))


def test_training_mode_gives_the_same_result():
    small = randomised(replace(LIGHT, scales=(2,)))
    assert_equal(small.train(), grown(small, replace(LARGE, scales=(2,))).train())


def test_new_channels_and_modules_get_gradients():
    """New channels and modules get gradients as soon as the weights that read them have moved."""
    small = randomised(replace(LIGHT, scales=(2,)))
    large = grown(small, replace(LARGE, scales=(2,))).train()
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.l1_loss(large(torch.rand(2, 3, 8, 8).double()), torch.rand(2, 3, 16, 16).double()).backward()
        optimizer.step()
    without = [n for n, p in large.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(
    ("name", "small", "large"),
    [
        ("scales", {"scales": (2,)}, {"scales": (3,)}),
        ("gates", {}, {"gates": "add"}),
        ("dct_axes", {}, {"dct_axes": "w"}),
        ("frequency", {}, {"frequency": "none"}),
        ("skip", {}, {"skip": False}),
        ("dense", {"dense": False}, {"dense": False}),
        ("attention", {"attention": "se"}, {"attention": "se"}),
        ("norm", {"norm": False}, {"norm": False}),
        ("channels", {"channels": 8}, {"channels": 7}),
        ("n_dem", {"n_dem": 2}, {"n_dem": 1, "channels": 12}),
        ("n_wrab", {"n_wrab": 2}, {"n_wrab": 1}),
        ("channels * expansion", {"expansion": 3}, {"expansion": 2}),
        ("channels // reduction", {"reduction": 2}, {"reduction": 4}),
        ("channels", {}, {"n_dem": 2}),
        ("upsampler", {"upsampler": "subpixel"}, {"upsampler": "direct"}),
        ("upsampler", {"scales": (8,)}, {"scales": (8,), "channels": 47, "upsampler": "subpixel"}),
    ],
)
def test_networks_that_cannot_grow_into_each_other(name, small, large):
    with torch.device("meta"):
        small, large = HRN(replace(LIGHT, **small)), HRN(replace(LIGHT, **large))
    with pytest.raises(ValueError, match=name.replace("*", r"\*")):
        check_growth(small, large)
    with pytest.raises(ValueError, match=name.replace("*", r"\*")):
        grow(small, large)
