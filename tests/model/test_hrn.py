from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from hrn.model import PRESETS, SCALES, build_model, preset
from hrn.model.config import HRNConfig, config_from_dict, config_to_dict, preset_of
from tests.conftest import randomise

TINY = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=2)
"""Only the tail depends on the scale, so a small body is enough for the other scales."""


@pytest.mark.parametrize(
    "config",
    [
        *(preset(name, [4]) for name in PRESETS),
        *(replace(TINY, scales=(s,), upsampler=kind) for s in SCALES for kind in ("subpixel", "direct")),
    ],
)
@torch.no_grad()
def test_any_size_at_any_scale(config):
    (scale,), network = config.scales, build_model(config).eval()
    for h, w in [(1, 1), (2, 9), (17, 12)]:
        sr = network(torch.rand(1, 3, h, w))
        assert sr.shape == (1, 3, h * scale, w * scale)
        assert torch.isfinite(sr).all()


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_light_starts_as_bilinear_interpolation(scale):
    network = build_model(preset("hrn_light", [scale])).eval()
    lr = torch.rand(1, 3, 9, 11)
    expected = F.interpolate(lr, scale_factor=scale, mode="bilinear")
    inside = (..., slice(scale, -scale), slice(scale, -scale))
    torch.testing.assert_close(network(lr)[inside], expected[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
@torch.no_grad()
def test_a_subpixel_tail_starts_as_one_interpolation_after_another(scale):
    network = build_model(replace(TINY, scales=(scale,), upsampler="subpixel")).eval()
    lr = expected = torch.rand(1, 3, 9, 11)
    for factor in {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[scale]:
        expected = F.interpolate(expected, scale_factor=factor, mode="bilinear")
    inside = (..., slice(3 * scale, -3 * scale), slice(3 * scale, -3 * scale))
    torch.testing.assert_close(network(lr)[inside], expected[inside], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["hrn", "hrn_light"])
def test_every_parameter_learns(name, parameters_without_gradient):
    assert parameters_without_gradient(build_model(preset(name, [2]))) == []


@torch.no_grad()
def test_one_body_with_several_tails():
    network = build_model(HRNConfig(channels=8, n_dem=1, n_wrab=1, scales=(2, 3, 4))).eval()
    for s in (2, 3, 4):
        assert network(torch.rand(1, 3, 5, 6), s).shape == (1, 3, 5 * s, 6 * s)
    with pytest.raises(KeyError):
        network(torch.rand(1, 3, 5, 6), 8)


@torch.no_grad()
def test_every_pixel_depends_on_the_whole_image():
    """The DCT and the pools are global: a far corner changes the opposite one."""
    network = randomise(build_model(HRNConfig(channels=8, n_dem=1, n_wrab=1, scales=(2,))))
    a = torch.rand(1, 3, 64, 64)
    b = a.clone()
    b[..., -1, -1] = 0
    assert (network(a) - network(b))[..., 0, 0].abs().max() > 0


def test_bf16_autocast_stays_close():
    network = randomise(build_model(preset("hrn_light", [2])), 0.02)
    lr = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        exact = network(lr)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(lr)
    assert 0 < (exact - rough).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("name", PRESETS)
def test_config_round_trips_through_a_dict(name):
    config = preset(name, [3])
    assert config_from_dict(config_to_dict(config)) == config
    assert preset_of(config) == name


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"network": "edsr"}, "edsr"),
        ({"network": "hrn", "width": 3}, "width"),
        ({"network": "hrn", "channels": "64"}, "channels"),
        ({"network": "hrn", "channels": 0}, "channels"),
        ({"network": "hrn", "scales": [5]}, "scales"),
        ({"network": "hrn", "gates": "max"}, "gates"),
        ({"network": "hrn_released", "scales": [2, 4]}, "scale"),
    ],
)
def test_bad_config(values, named):
    with pytest.raises(ValueError, match=named):
        config_from_dict(values)


def test_unknown_preset():
    with pytest.raises(ValueError, match="hrm"):
        preset("hrm", [2])
