"""Variants of the network: they are built, learn, enlarge in mode local, and are stored in checkpoints."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hrn.checkpoint import load_checkpoint, load_network, save_checkpoint
from hrn.errors import HRNError
from hrn.evaluation.frequency import branch_spectra
from hrn.inference.bare import is_bare_state_dict
from hrn.inference.local import make_local
from hrn.model import HRNConfig, build_model, config_from_dict, config_to_dict, preset
from hrn.model.attention import SqueezeExcitation
from hrn.model.blocks import WRDB
from hrn.model.config import OMITTED_IF_DEFAULT, with_settings
from tests.conftest import randomise

SMALL = HRNConfig(channels=8, n_dem=2, n_wrab=2, expansion=1, scales=(2,), reduction=4, upsampler="direct")
VARIANTS = [
    *({"frequency": "none"}, {"frequency": "fft"}, {"frequency": "fft", "dct_axes": "w"}, {"dct_axes": "w"}),
    *({"dense": False}, {"attention": "none"}, {"attention": "se"}, {"norm": False}, {"gates": "add"}, {"skip": False}),
    *({"expansion": 1.4}, {"frequency": "none", "dense": False, "attention": "none", "skip": False}),
]


def small(changes):
    return build_model(replace(SMALL, **changes))


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_every_parameter_learns_at_any_size(changes, parameters_without_gradient):
    network = small(changes)
    # a convolution before BatchNorm and a gate's ELU may have tiny gradients, but every tensor has one
    assert parameters_without_gradient(network) == []
    with torch.no_grad():
        for h, w in [(1, 1), (2, 9), (7, 4)]:
            sr = network.eval()(torch.rand(1, 3, h, w))
            assert sr.shape == (1, 3, 2 * h, 2 * w)
            assert torch.isfinite(sr).all()


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@torch.no_grad()
def test_mode_local_equals_training_on_a_patch_and_keeps_distant_pixels_apart(changes):
    network = randomise(small(changes).double(), 0.1)
    x = torch.rand(2, 3, 16, 16).double()
    torch.testing.assert_close(make_local(network, 16)(x), network(x))
    near = torch.rand(1, 3, 16, 400).double()
    far = near.clone()
    far[..., 300:] = 0
    whole, local = ((net(near) - net(far)).abs()[..., :200].max() for net in (network, make_local(network, 16)))
    assert (whole > 0) == (network.config.frequency != "none" or network.config.attention != "none")
    assert local <= whole / 100


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_a_checkpoint_rebuilds_its_variant(changes, tmp_path):
    network = randomise(small(changes), 0.1)
    save_checkpoint(tmp_path / "a.pth", network.config, network.state_dict(), info={})
    checkpoint = load_checkpoint(tmp_path / "a.pth")
    assert checkpoint.config == network.config
    x = torch.rand(1, 3, 6, 7)
    with torch.no_grad():
        torch.testing.assert_close(load_network(checkpoint)(x), network(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changes", [c for c in VARIANTS if c != {"skip": False} and "dense" not in c], ids=str)
@torch.no_grad()
def test_with_the_skip_a_new_variant_interpolates_bilinearly(changes):
    lr = torch.rand(1, 3, 9, 11)
    inside = (..., slice(2, -2), slice(2, -2))
    expected = F.interpolate(lr, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(small(changes).eval()(lr)[inside], expected[inside], atol=1e-5, rtol=0)


def test_default_values_are_not_stored():
    """Earlier versions do not know these fields."""
    assert not set(OMITTED_IF_DEFAULT) & config_to_dict(SMALL).keys()
    for changes in VARIANTS:
        config = replace(SMALL, **changes)
        assert config_from_dict(config_to_dict(config)) == config
    assert config_from_dict({"network": "hrn"}) == HRNConfig()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dense", 1),
        ("skip", "yes"),
        ("expansion", True),
        ("channels", True),
        ("attention", "cbam"),
        ("scales", [4.9]),
        ("scales", [float("inf")]),
    ],
)
def test_values_of_the_wrong_type_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        config_from_dict({"network": "hrn", field: value})


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (["width=3"], "width"),
        (["scales=2"], "scales"),
        (["channels"], "channels"),
        (["channels=2.5"], "channels"),
        (["channels=2"], "channels"),
        (["expansion=nan"], "expansion"),
        (["expansion=inf"], "expansion"),
        (["dense=1"], "dense"),
        (["frequency=dft"], "frequency"),
        (["frequency=none", "dct_axes=w"], "dct_axes"),
        (["attention=se", "gates=add"], "gates"),
        (["attention=none", "norm=false"], "norm"),
    ],
)
def test_bad_settings(settings, field):
    with pytest.raises(ValueError, match=field):
        with_settings(preset("hrn_light", [4]), settings)


def test_settings():
    config = with_settings(preset("hrn_light", [4]), ["channels=30", "dense=false", "expansion=2.5", "channels=28"])
    assert config == replace(preset("hrn_light", [4]), channels=28, dense=False, expansion=2.5)
    assert type(with_settings(config, ["expansion=4"]).expansion) is int
    with pytest.raises(ValueError, match="channels"):
        with_settings(preset("hrn_released", [4]), ["channels=28"])


# modules against their equations


@torch.no_grad()
def test_squeeze_excitation():
    se = randomise(SqueezeExcitation(8, reduction=4))
    x = torch.randn(2, 8, 5, 7)
    y = F.elu(x.mean((2, 3)) @ se.squeeze.weight[:, :, 0, 0].T + se.squeeze.bias)
    gates = torch.sigmoid(y @ se.excite.weight[:, :, 0, 0].T + se.excite.bias)
    torch.testing.assert_close(se(x), x * gates[:, :, None, None])


@torch.no_grad()
def test_wrdb_without_dense_links_is_a_chain():
    block = randomise(WRDB(4, HRNConfig(n_wrab=3, expansion=2, reduction=2, dense=False)))
    x = torch.randn(1, 4, 6, 5)
    y = x
    for wrab, fuse in zip(block.blocks, block.fuse, strict=True):
        y = F.conv2d(wrab(y), fuse.weight, fuse.bias)
    torch.testing.assert_close(block(x), x + y)


def test_programs_that_need_the_frequency_branch_refuse():
    network = small({"frequency": "none"})
    assert not is_bare_state_dict(network.state_dict())
    assert not is_bare_state_dict(small({"attention": "none"}).state_dict())
    with pytest.raises(HRNError):
        branch_spectra(network, [np.zeros((8, 8, 3), np.uint8)], 2)
