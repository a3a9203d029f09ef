import json

import numpy as np
import pytest

from hrn.checkpoint import load_checkpoint, save_checkpoint
from hrn.errors import HRNError
from hrn.inference import export
from hrn.inference.enlarger import Mode
from hrn.inference.export import main, onnx_enlarger
from hrn.inference.upscale import load_model, upscale
from hrn.model import HRNConfig

pytest.importorskip("onnxruntime", reason="needs the packages of hrn[export]")
SMALL = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=1, scales=(2, 3), reduction=4, upsampler="direct")


@pytest.fixture
def path(tmp_path, small):
    """`small` at two scales."""
    from hrn.model import build_model

    weights = build_model(SMALL).state_dict() | {k: v for k, v in small.state_dict().items() if "tails" not in k}
    save_checkpoint(tmp_path / "small.pth", SMALL, weights, info={"steps": 7})
    return tmp_path / "small.pth"


@pytest.mark.parametrize(("mode", "scale"), [("local", 2), ("full", 3)])
def test_onnx_runtime_gives_the_same_picture(path, tmp_path, image, mode, scale, capsys):
    out = tmp_path / "small.onnx"
    assert (
        main(["--ckpt_path", str(path), "--out", str(out), "--mode", mode, "--scale", str(scale), "--window", "16"])
        == 0
    )
    assert "differs from PyTorch by 0.0" in capsys.readouterr().out
    enlarge, model = onnx_enlarger(out), load_model(path, device="cpu")
    for picture in (image, image[:5, :9], image[:16, :16], np.tile(image, (2, 3, 1))):
        expected = upscale(model, picture, scale, Mode(mode, 16))
        assert abs(enlarge(picture).astype(int) - expected).max() <= 1
    import onnx

    told = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert told["scale"] == str(scale)
    assert told["mode"].startswith(mode)


def test_a_graph_that_differs_is_not_written(path, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MOST_DIFFERENCE", -1.0)
    with pytest.raises(HRNError, match="not written, because ONNX Runtime differs"):
        main(["--ckpt_path", str(path), "--out", str(tmp_path / "a.onnx")])
    assert not list(tmp_path.glob("*a.onnx*"))


def test_safetensors_is_the_same_checkpoint(path, tmp_path, image):
    out = tmp_path / "small.safetensors"
    assert main(["--ckpt_path", str(path), "--out", str(out)]) == 0
    before, after = load_checkpoint(path), load_checkpoint(out)
    assert after.config == before.config
    assert after.info == json.loads(json.dumps(before.info))
    assert all((after.weights[name] == value).all() for name, value in before.weights.items())
    assert (upscale(load_model(out, device="cpu"), image) == upscale(load_model(path, device="cpu"), image)).all()
    out.write_bytes(out.read_bytes()[:100])
    with pytest.raises(HRNError, match="damaged"):
        load_checkpoint(out)


def test_bad_requests(path, tmp_path):
    with pytest.raises(HRNError, match=r"must end in \.onnx or \.safetensors"):
        main(["--ckpt_path", str(path), "--out", str(tmp_path / "a.pb")])
    with pytest.raises(HRNError, match="is for x2, x3, not x8"):
        main(["--ckpt_path", str(path), "--out", str(tmp_path / "a.onnx"), "--scale", "8"])
    with pytest.raises(HRNError, match="mode windows is a way of calling"):
        export.export_onnx(tmp_path / "a.onnx", load_checkpoint(path), 2, Mode("windows"))


def test_a_missing_package_is_said(path, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(HRNError, match="exporting needs onnxruntime: pip install"):
        main(["--ckpt_path", str(path), "--out", str(tmp_path / "a.onnx")])
