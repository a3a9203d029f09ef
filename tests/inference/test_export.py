import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hrn.checkpoint import load_checkpoint, save_checkpoint
from hrn.errors import HRNError
from hrn.inference import export
from hrn.inference.export import export_safetensors, main, onnx_enlarger
from hrn.inference.mode import Mode
from hrn.inference.upscale import load_model, upscale
from hrn.model import build_model


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "scale"), [("local", 2), ("full", 3)])
def test_onnx_runtime_equals_pytorch(two_scales, tmp_path, image, mode, scale):
    onnx = pytest.importorskip("onnx", reason="needs the packages of hrn[export]")
    out = tmp_path / "small.onnx"
    flags = ["--ckpt_path", str(two_scales), "--out", str(out), "--mode", mode, "--scale", str(scale)]
    assert main([*flags, *(["--window", "16"] if mode == "local" else [])]) == 0
    enlarge, model = onnx_enlarger(out), load_model(two_scales, device="cpu")
    for picture in (image, image[:5, :9], image[:16, :16], np.tile(image, (2, 3, 1))):
        expected = upscale(model, picture, scale, Mode(mode, 16))
        assert abs(enlarge(picture).astype(int) - expected).max() <= 1
    metadata = {p.key: p.value for p in onnx.load(out).metadata_props}
    assert metadata["scale"] == str(scale)
    assert metadata["mode"] == str(Mode(mode, 16))
    assert metadata["checkpoint"] == two_scales.name


@pytest.mark.slow
def test_a_graph_that_differs_is_not_written(two_scales, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="needs the packages of hrn[export]")
    monkeypatch.setattr(export, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(HRNError):
        main(["--ckpt_path", str(two_scales), "--out", str(tmp_path / "a.onnx")])
    assert not list(tmp_path.glob("*a.onnx*"))


@pytest.mark.slow
def test_a_network_that_computes_nan_is_not_exported(two_scales, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the packages of hrn[export]")
    checkpoint = load_checkpoint(two_scales)
    checkpoint.weights["head.bias"][0] = float("nan")
    with pytest.raises(HRNError, match="nan"):
        export.export_onnx(tmp_path / "a.onnx", checkpoint, 2)
    assert not list(tmp_path.glob("*a.onnx*"))


def test_a_variant_as_safetensors_is_not_for_spandrel(tmp_path, small_config, capsys):
    pytest.importorskip("safetensors", reason="needs the packages of hrn[export]")
    config = replace(small_config, gates="add")
    save_checkpoint(tmp_path / "a.pth", config, build_model(config).state_dict(), info={})
    assert main(["--ckpt_path", str(tmp_path / "a.pth"), "--out", str(tmp_path / "a.safetensors")]) == 0
    assert "because of gates='add'" in capsys.readouterr().out


def test_default_names_hold_the_scale(two_scales, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for scale in (2, 3):
        assert main(["--ckpt_path", str(two_scales), "--format", "spandrel", "--scale", str(scale)]) == 0
        assert f", x{scale}" in capsys.readouterr().out
    names = [f"{two_scales.stem}_x{scale}_spandrel.pth" for scale in (2, 3)]
    assert sorted(p.name for p in tmp_path.glob("*_spandrel.pth")) == names


def test_safetensors_holds_the_same_checkpoint(two_scales, tmp_path, image):
    pytest.importorskip("safetensors", reason="needs the packages of hrn[export]")
    out = tmp_path / "small.safetensors"
    assert main(["--ckpt_path", str(two_scales), "--out", str(out)]) == 0
    before, after = load_checkpoint(two_scales), load_checkpoint(out)
    assert after.config == before.config
    assert after.info == json.loads(json.dumps(before.info))
    assert all((after.weights[name] == value).all() for name, value in before.weights.items())
    assert (upscale(load_model(out, device="cpu"), image) == upscale(load_model(two_scales, device="cpu"), image)).all()
    out.write_bytes(out.read_bytes()[:100])
    with pytest.raises(HRNError):
        load_checkpoint(out)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_that_do_not_fit_are_not_exported(tmp_path, small_config, suffix):
    pytest.importorskip("safetensors", reason="needs the packages of hrn[export]")
    weights = build_model(small_config).state_dict()
    del weights["head.bias"]
    save_checkpoint(tmp_path / "a.pth", small_config, weights, info={})
    flags = ["--ckpt_path", str(tmp_path / "a.pth"), "--out", str(tmp_path / f"out{suffix}")]
    with pytest.raises(HRNError, match=r"missing head\.bias"):
        main([*flags, "--format", {".pth": "spandrel"}.get(suffix, "safetensors")])
    assert not (tmp_path / f"out{suffix}").exists()


def test_information_that_json_does_not_support_becomes_text(tmp_path, small_config):
    pytest.importorskip("safetensors", reason="needs the packages of hrn[export]")
    save_checkpoint(tmp_path / "a.pth", small_config, build_model(small_config).state_dict(), info={"x": torch.ones(1)})
    export_safetensors(tmp_path / "a.safetensors", load_checkpoint(tmp_path / "a.pth"))
    assert load_checkpoint(tmp_path / "a.safetensors").info == {"x": "tensor([1.])"}


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--out", "a.pb"], "a.pb"),
        (["--out", "a.pth", "--format", "safetensors"], "a.pth.*[.]safetensors"),
        (["--out", "a.safetensors", "--format", "spandrel"], "a.safetensors.*[.]pth"),
        (["--out", "a.onnx", "--scale", "8"], "x8"),
        (["--out", "a.pth", "--format", "spandrel", "--scale", "8"], "x8"),
    ],
)
def test_invalid_requests(two_scales, tmp_path, monkeypatch, flags, named):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HRNError, match=named):
        main(["--ckpt_path", str(two_scales), *flags])


@pytest.mark.parametrize(
    "flags",
    [
        "a.safetensors --scale 2",
        "a.safetensors --mode full",
        "a.pth --format spandrel --window 32",
        "a.onnx --mode full --window 32",
    ],
)
def test_flags_without_effect(two_scales, flags):
    with pytest.raises(SystemExit):
        main(["--ckpt_path", str(two_scales), "--out", *flags.split()])


def test_the_checkpoint_is_not_replaced(two_scales):
    before = two_scales.read_bytes()
    with pytest.raises(HRNError, match="its own input"):
        main(["--ckpt_path", str(two_scales), "--format", "spandrel", "--out", str(two_scales)])
    assert two_scales.read_bytes() == before


def test_mode_windows_cannot_be_exported(two_scales, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the packages of hrn[export]")
    with pytest.raises(HRNError):
        export.export_onnx(tmp_path / "a.onnx", load_checkpoint(two_scales), 2, Mode("windows"))


def test_a_missing_package_is_named(two_scales, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(HRNError, match="onnxruntime"):
        main(["--ckpt_path", str(two_scales), "--out", str(tmp_path / "a.onnx")])
