"""Choice of the model among the included checkpoints."""

import json

import pytest
import torch

from hrn.checkpoint import save_checkpoint
from hrn.errors import HRNError
from hrn.files import file_hash
from hrn.inference import methods
from hrn.inference.methods import choose_included, describe_alternatives, load_checkpoints
from hrn.model import build_model, config_to_dict, preset
from hrn.pretrained import find_checkpoint, read_manifest

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def manifest_of(*checkpoints: tuple[str, list[int]]) -> dict:
    """A manifest with checkpoints of these models and scales."""
    entries = {}
    for model, scales in checkpoints:
        name = f"{model}_{''.join(f'x{s}' for s in scales)}"
        config = config_to_dict(preset(model, scales))
        entries[name] = {"file": f"{name}.pth", "bytes": 1, "sha256": "0", "scores": {}, "config": config}
    return {"checkpoints": entries}


LIGHT_ONLY = [("hrn_light", [2, 3, 4]), ("hrn_light", [2]), ("hrn_light", [4]), ("hrn_light", [8])]
ALL_MODELS = [*LIGHT_ONLY, ("hrn", [4]), ("hrn_base", [4]), ("hrn_base", [2])]
LIGHT_NAMES = {2: "hrn_light_x2", 3: "hrn_light_x2x3x4", 4: "hrn_light_x4", 8: "hrn_light_x8"}


@pytest.mark.parametrize(
    ("request_", "on_cpu", "on_cuda"),
    [
        ({}, {4: "hrn_light_x4"}, {4: "hrn_x4"}),
        ({"model": "hrn_base"}, {4: "hrn_base_x4"}, {4: "hrn_base_x4"}),
        ({"scales": [2]}, {2: "hrn_light_x2"}, {2: "hrn_base_x2"}),
        ({"scales": [3, 4]}, {3: "hrn_light_x2x3x4", 4: "hrn_light_x4"}, {3: "hrn_light_x2x3x4", 4: "hrn_light_x4"}),
        ({"scales": [8], "resized": True}, {8: "hrn_light_x8"}, {8: "hrn_light_x8"}),
        ({"scales": [2.5], "resized": True}, LIGHT_NAMES, {4: "hrn_x4"}),
        ({"scales": [2.5], "resized": True, "model": "hrn_base"}, *[{2: "hrn_base_x2", 4: "hrn_base_x4"}] * 2),
        ({"resized": True, "all_scales": True}, LIGHT_NAMES, {4: "hrn_x4"}),
    ],
)
def test_which_included_checkpoints_are_chosen(request_, on_cpu, on_cuda):
    manifest = manifest_of(*ALL_MODELS)
    assert choose_included(manifest, CPU, **request_) == on_cpu
    assert choose_included(manifest, CUDA, **request_) == on_cuda


def test_the_choice_follows_the_manifest():
    light, both = manifest_of(*LIGHT_ONLY), manifest_of(*LIGHT_ONLY, ("hrn_base", [4]))
    assert choose_included(light, CUDA) == choose_included(both, CPU) == {4: "hrn_light_x4"}
    assert choose_included(both, CUDA) == {4: "hrn_base_x4"}
    for manifest, wanted in ((light, {"model": "hrn"}), (light, {"scales": [2.5]}), (manifest_of(), {})):
        with pytest.raises(HRNError):
            choose_included(manifest, CPU, **wanted)


def test_alternatives_are_named_with_their_cost():
    manifest = manifest_of(*ALL_MODELS)
    for chosen, slower, faster in (
        ({4: "hrn_light_x4"}, ["hrn_base", "hrn"], []),
        ({4: "hrn_base_x4"}, ["hrn"], ["hrn_light"]),
        ({2: "hrn_light_x2"}, ["hrn_base"], []),
    ):
        line = describe_alternatives(manifest, chosen)
        found = [part.split()[:3] for part in line.split("--model ")[1:]]
        assert [(name, note.strip("(,")) for name, note, _ in found] == [
            *((name, "faster") for name in faster),
            *((name, "slower") for name in slower),
        ]
    assert describe_alternatives(manifest, {8: "hrn_light_x8"}) is None


@pytest.fixture
def included(tmp_path, monkeypatch):
    """A folder with a manifest of all models and two files: hrn_light_x2.pth, and hrn_base_x2.pth, which is empty."""
    path, config = tmp_path / "checkpoint/hrn_light_x2.pth", preset("hrn_light", [2])
    save_checkpoint(path, config, build_model(config).state_dict(), info={})
    manifest = manifest_of(*ALL_MODELS)
    manifest["checkpoints"]["hrn_light_x2"]["sha256"] = file_hash(path)
    (path.parent / "manifest.json").write_text(json.dumps(manifest))
    (path.parent / "hrn_base_x2.pth").touch()
    monkeypatch.setattr(methods, "read_manifest", lambda **flags: read_manifest(path.parent, **flags))
    monkeypatch.setattr(methods, "find_checkpoint", lambda name: find_checkpoint(name, path.parent))
    return path


def test_the_default_is_an_installed_checkpoint(included):
    (included.parent / "hrn_base_x2.pth").unlink()
    for device in (CPU, CUDA):
        found = load_checkpoints(None, device, scales=[2])
        assert found[2].path == included
    with pytest.raises(HRNError, match="hrn_x4"):
        load_checkpoints(None, CUDA, model="hrn")


def test_the_default_checkpoint_is_the_one_of_the_manifest(included, capsys):
    assert load_checkpoints(None, CPU, scales=[2])[2].path == included
    assert "--model hrn_base (slower, more accurate)" in capsys.readouterr().out
    load_checkpoints(None, CPU, scales=[2], model="hrn_light")
    assert "--model" not in capsys.readouterr().out
    with pytest.raises(HRNError, match="hrn_base_x4"):
        load_checkpoints(None, CPU, scales=[4], model="hrn_base")
    with pytest.raises(HRNError, match="--ckpt_path"):
        load_checkpoints(None, CPU, scales=[2], model="hrn")
    included.write_bytes(included.read_bytes() + b"x")
    with pytest.raises(HRNError, match="hrn_light_x2"):
        load_checkpoints(None, CPU, scales=[2])
