from dataclasses import replace

import pytest
import torch

from hrn.checkpoint import load_checkpoint, save_checkpoint
from hrn.errors import HRNError
from hrn.inference.bare import config_from_shapes, export_state_dict, is_bare_state_dict
from hrn.inference.export import main
from hrn.model import PRESETS, HRNConfig, build_model, preset


def shapes(config):
    with torch.device("meta"):
        return build_model(config).state_dict()


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "hrn_released"])
@pytest.mark.parametrize("scales", [[2], [3], [4], [8], [2, 3, 4]])
def test_presets_follow_from_their_shapes(name, scales):
    config = preset(name, scales)
    assert config_from_shapes(shapes(config)) == config


@pytest.mark.parametrize("upsampler", ["direct", "subpixel"])
@pytest.mark.parametrize(("channels", "reduction"), [(7, 2), (8, 16), (10, 3), (24, 1)])
def test_other_configurations_give_the_same_shapes(channels, reduction, upsampler):
    """Different reductions can give the same number of channels, so that only the shapes are equal."""
    config = HRNConfig((4,), channels, n_dem=3, n_wrab=2, expansion=3, reduction=reduction, upsampler=upsampler)
    inferred = config_from_shapes(shapes(config))
    assert replace(inferred, reduction=reduction) == config
    assert {k: v.shape for k, v in shapes(inferred).items()} == {k: v.shape for k, v in shapes(config).items()}


def test_other_state_dicts_are_not_detected():
    assert is_bare_state_dict(shapes(preset("hrn_light", [2])))
    assert not is_bare_state_dict(shapes(preset("hrn_released", [2])))
    assert not is_bare_state_dict({"head.weight": torch.zeros(1)})
    assert not is_bare_state_dict({})


@pytest.mark.parametrize("scale", [2, 3])
def test_the_file_has_one_scale(two_scales, tmp_path, scale):
    out = tmp_path / "bare.pth"
    assert main(["--ckpt_path", str(two_scales), "--format", "spandrel", "--scale", str(scale), "--out", str(out)]) == 0
    contents, checkpoint = torch.load(out, weights_only=True), load_checkpoint(two_scales)
    assert list(contents) == ["params"]
    assert config_from_shapes(contents["params"]).scales == (scale,)
    assert all(torch.equal(checkpoint.weights[name], value) for name, value in contents["params"].items())


@pytest.mark.parametrize(
    "config",
    [
        HRNConfig(gates="add"),
        HRNConfig(dct_axes="w"),
        HRNConfig(frequency="none"),
        HRNConfig(dense=False),
        HRNConfig(skip=False),
        preset("hrn_released", [4]),
    ],
)
def test_configurations_that_shapes_do_not_show_are_refused(tmp_path, config):
    path = tmp_path / "a.pth"
    save_checkpoint(path, config, {}, info={})
    with pytest.raises(HRNError):
        export_state_dict(tmp_path / "b.pth", load_checkpoint(path), 4)
    assert not (tmp_path / "b.pth").exists()
