import numpy as np
import pytest
import torch

spandrel = pytest.importorskip("spandrel", reason="needs spandrel: pip install spandrel")

from hrn.checkpoint import FORMAT, save_checkpoint  # noqa: E402
from hrn.errors import HRNError  # noqa: E402
from hrn.inference.export import main  # noqa: E402
from hrn.inference.spandrel import register  # noqa: E402
from hrn.inference.upscale import enlarge, load_model  # noqa: E402
from hrn.model import build_model, config_to_dict, preset  # noqa: E402
from tests.conftest import randomise  # noqa: E402


@pytest.fixture(autouse=True)
def _registered():
    register()
    register()  # repeated calls are allowed


@pytest.fixture
def lr():
    return torch.rand(1, 3, 70, 101)


def assert_equal(path, lr, model, scale):
    descriptor = spandrel.ModelLoader("cpu").load_from_file(path)
    assert descriptor.architecture.id == "HRN"
    assert (descriptor.scale, descriptor.purpose) == (scale, "SR")
    assert (descriptor.input_channels, descriptor.output_channels) == (3, 3)
    assert descriptor.tiling == spandrel.ModelTiling.SUPPORTED
    torch.testing.assert_close(descriptor(lr), enlarge(model, lr, scale), rtol=0, atol=1e-5)


def test_checkpoints(two_scales, small, lr):
    """A file with several scales runs at the first one."""
    assert_equal(two_scales, lr, load_model(two_scales, device="cpu"), 2)


@pytest.mark.parametrize("scale", [2, 3])
def test_bare_state_dicts(two_scales, tmp_path, lr, scale):
    out = tmp_path / "bare.pth"
    main(["--ckpt_path", str(two_scales), "--format", "spandrel", "--scale", str(scale), "--out", str(out)])
    assert_equal(out, lr, load_model(two_scales, device="cpu"), scale)


def test_safetensors(two_scales, tmp_path, lr):
    out = tmp_path / "small.safetensors"
    main(["--ckpt_path", str(two_scales), "--out", str(out)])
    assert_equal(out, lr, load_model(two_scales, device="cpu"), 2)


@pytest.mark.parametrize("name", ["hrn_light_x4", "hrn_light_x2x3x4"])
def test_included_checkpoints(root, name, lr):
    path = root / f"checkpoint/hrn_light/{name}.pth"
    model = load_model(path, device="cpu")
    assert_equal(path, lr, model, model.config.scales[0])


@pytest.mark.parametrize("name", ["hrn", "hrn_base"])
def test_presets(tmp_path, name):
    path = tmp_path / "a.pth"
    network = randomise(build_model(preset(name, [4])), 0.02)
    save_checkpoint(path, network.config, network.state_dict(), info={})
    assert_equal(path, torch.rand(1, 3, 20, 50), load_model(path, device="cpu"), 4)


def test_checkpoints_without_weights(tmp_path):
    config = config_to_dict(preset("hrn_light", [2]))
    torch.save({"format": FORMAT, "config": config, "info": {}}, tmp_path / "a.pth")
    with pytest.raises(HRNError, match="weights"):
        spandrel.ModelLoader("cpu").load_from_file(tmp_path / "a.pth")


def test_the_released_network_is_not_supported(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, preset("hrn_released", [2]), {}, info={})
    with pytest.raises(spandrel.UnsupportedModelError):
        spandrel.ModelLoader("cpu").load_from_file(path)


def test_tiles_of_512_are_nearly_the_whole_image(root):
    """Tiles of another program, which overlap by 16 pixels and are cut in the middle of the overlap."""
    model = spandrel.ModelLoader("cpu").load_from_file(root / "checkpoint/hrn_light/hrn_light_x4.pth")
    lr = torch.from_numpy(np.random.default_rng(0).random((1, 3, 48, 520), np.float32))
    lr = torch.nn.functional.avg_pool2d(lr, 5, 1, 2)
    whole = model(lr)
    left, right = model(lr[..., :512]), model(lr[..., 496:])
    tiled = torch.cat([left[..., : 504 * 4], right[..., 8 * 4 :]], -1)
    assert 10 * torch.log10(1 / (whole - tiled).square().mean()) > 50
