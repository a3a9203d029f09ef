import json

import pytest
import torch

from hrn.checkpoint import load_checkpoint, load_network, save_checkpoint
from hrn.checkpoint.__main__ import describe
from hrn.errors import HRNError
from hrn.evaluation.metrics import PROTOCOL
from hrn.files import file_hash
from hrn.inference.bare import export_state_dict
from hrn.model import build_model, config_to_dict, preset
from hrn.pretrained import read_manifest
from tools.publish import add_to_manifest, main, write_half, write_hub_folder, write_mean


def write_scores(path, checkpoint, **changes):
    """Write a scores.json as hrn/sample.py does."""
    document = {
        "checkpoint_sha256": file_hash(checkpoint), "mode": "local, 48", "self_ensemble": False, "precision": "fp32",
        "set": "Set5", "scale": 2, "protocol": PROTOCOL.format(shave=2), "mean": {"psnr_y": 30.12346, "ssim_y": 0.9},
        **changes,
    }  # fmt: skip
    path.mkdir(parents=True)
    (path / "scores.json").write_text(json.dumps(document))


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder with one checkpoint and its manifest."""
    folder = tmp_path / "checkpoint"
    config = preset("hrn_light", [2])
    path = folder / "light/tiny_x2.pth"
    save_checkpoint(path, config, build_model(config).state_dict(), info={"steps": 7})
    results = tmp_path / "sample"
    write_scores(results / "Set5", path)
    write_scores(results / "B100", path, set="B100", mean={"psnr_y": 28, "ssim_y": 0.9})
    write_scores(results / "other", path, set="Set14", checkpoint_sha256="0", self_ensemble=True)
    assert add_to_manifest(path, results, "7 images", folder) == "tiny_x2"
    return folder


def test_the_entry_in_the_manifest(folder):
    entry = read_manifest(folder)["checkpoints"]["tiny_x2"]
    path = folder / entry["file"]
    assert (entry["sha256"], entry["bytes"], entry["steps"]) == (file_hash(path), path.stat().st_size, 7)
    assert entry["scores"] == {
        "B100": {"x2": {"psnr_y": 28.0, "ssim_y": 0.9}},
        "Set5": {"x2": {"psnr_y": 30.1235, "ssim_y": 0.9}},
    }
    assert entry["config"] == config_to_dict(preset("hrn_light", [2]))


def test_an_entry_is_updated(folder, tmp_path):
    """Scores of the same weights are added; new weights replace all scores."""
    path = folder / "light/tiny_x2.pth"
    write_scores(tmp_path / "more", path, set="Urban100")
    add_to_manifest(path, tmp_path / "more", "7 images", folder)
    assert sorted(read_manifest(folder)["checkpoints"]["tiny_x2"]["scores"]) == ["B100", "Set5", "Urban100"]
    config = preset("hrn_light", [2])
    save_checkpoint(path, config, build_model(config).state_dict(), info={"steps": 8})
    write_scores(tmp_path / "new", path, set="Urban100")
    add_to_manifest(path, tmp_path / "new", "8 images", folder)
    assert sorted(read_manifest(folder)["checkpoints"]["tiny_x2"]["scores"]) == ["Urban100"]


def test_another_file_of_the_same_name_is_refused(folder, tmp_path):
    before = (folder / "manifest.json").read_text()
    other = folder / "mine/tiny_x2.pth"
    other.parent.mkdir()
    other.write_bytes((folder / "light/tiny_x2.pth").read_bytes())
    with pytest.raises(HRNError, match=r"light/tiny_x2\.pth"):
        add_to_manifest(other, tmp_path / "sample", "", folder)
    assert (folder / "manifest.json").read_text() == before


def test_scores_and_folder_are_required(folder, tmp_path):
    path = folder / "light/tiny_x2.pth"
    (tmp_path / "empty").mkdir()
    with pytest.raises(HRNError, match=r"tiny_x2\.pth"):
        add_to_manifest(path, tmp_path / "empty", "", folder)
    with pytest.raises(HRNError, match=r"tiny_x2\.pth"):
        main(["manifest", str(path), str(tmp_path), "--trained_on", ""])  # not in the repository's folder


@pytest.mark.parametrize(
    "changes",
    [
        {"self_ensemble": True},
        {"mode": "full"},
        {"precision": "bf16"},
        {"tiled": ["img001"]},
        {"protocol": PROTOCOL.format(shave=5)},
        {"protocol": PROTOCOL.format(shave=2) + "; bridge scored on raw grey"},
    ],
)
def test_only_scores_with_the_settings_of_the_tables(folder, tmp_path, changes):
    path, before = folder / "light/tiny_x2.pth", (folder / "manifest.json").read_text()
    write_scores(tmp_path / "sample/more", path, set="Urban100", **changes)
    with pytest.raises(HRNError, match=rf"scores\.json.*{next(iter(changes))}"):
        add_to_manifest(path, tmp_path / "sample", "", folder)
    assert (folder / "manifest.json").read_text() == before


def test_two_scores_for_one_set(folder, tmp_path):
    path = folder / "light/tiny_x2.pth"
    write_scores(tmp_path / "sample/again", path)
    with pytest.raises(HRNError, match=r"scores\.json.*Set5 x2"):
        add_to_manifest(path, tmp_path / "sample", "", folder)
    (tmp_path / "sample/again/scores.json").write_text("[")
    with pytest.raises(HRNError, match=r"again/scores\.json"):
        add_to_manifest(path, tmp_path / "sample", "", folder)


def test_the_folder_for_the_hub(folder, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    pytest.importorskip("safetensors")
    config = preset("hrn_light", [3])
    save_checkpoint(tmp_path / "mine.pth", config, build_model(config).state_dict(), info={})
    out = tmp_path / "hub"
    write_hub_folder(out, ["tiny_x2", tmp_path / "mine.pth"], ["someone/images"], folder=folder)
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md", "config.json", "mine.safetensors", "tiny_x2.safetensors",
    ]  # fmt: skip
    before, after = load_checkpoint(folder / "light/tiny_x2.pth"), load_checkpoint(out / "tiny_x2.safetensors")
    assert (before.config, before.info) == (after.config, after.info)
    assert all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)
    listed = json.loads((out / "config.json").read_text())["checkpoints"]
    assert listed["mine"] == {"file": "mine.safetensors", **config_to_dict(config)}
    card = hub.ModelCard.load(out / "README.md").data  # as the Hub reads it
    assert (card.license, card.library_name, card.pipeline_tag) == ("other", "hrn", "image-to-image")
    assert (card.datasets, card.metrics, card.model_name) == (["someone/images"], ["psnr", "ssim"], "tiny_x2")
    results = {(r.dataset_type, r.dataset_name, r.metric_type): r.metric_value for r in card.eval_results}
    assert results == {
        ("eugenesiow/BSD100", "B100 x2", "psnr"): 28.0,
        ("eugenesiow/BSD100", "B100 x2", "ssim"): 0.9,
        ("eugenesiow/Set5", "Set5 x2", "psnr"): 30.1235,
        ("eugenesiow/Set5", "Set5 x2", "ssim"): 0.9,
    }


def test_scores_of_a_checkpoint_outside_the_manifest(folder, tmp_path):
    pytest.importorskip("huggingface_hub")
    pytest.importorskip("safetensors")
    config = preset("hrn_light", [3])
    save_checkpoint(tmp_path / "mine.pth", config, build_model(config).state_dict(), info={})
    for s in (2, 3):
        write_scores(tmp_path / f"x{s}/Set5", tmp_path / "mine.pth", scale=s, protocol=PROTOCOL.format(shave=s))

    def write(*results):
        write_hub_folder(tmp_path / "hub", [tmp_path / "mine.pth"], results=results, folder=folder)

    write(tmp_path / "x2", tmp_path / "x3")
    card = (tmp_path / "hub/README.md").read_text()
    assert all(f"| mine | x{s} | 30.12 / 0.9000 |" in card for s in (2, 3))
    with pytest.raises(HRNError, match="second scores"):
        write(tmp_path / "x2", tmp_path / "x2")
    with pytest.raises(HRNError, match=r"none: no scores\.json of mine\.pth"):
        write(tmp_path / "none")


def test_means_that_are_not_finite_are_refused(folder, tmp_path):
    path = folder / "light/tiny_x2.pth"
    write_scores(tmp_path / "more", path, mean={"psnr_y": "Infinity", "ssim_y": 1.0})
    with pytest.raises(HRNError, match="inf dB"):
        add_to_manifest(path, tmp_path / "more", "7 images", folder)


def test_two_checkpoints_of_one_name(folder, tmp_path):
    path = tmp_path / "tiny_x2.pth"
    path.write_bytes((folder / "light/tiny_x2.pth").read_bytes())
    with pytest.raises(HRNError, match="tiny_x2"):
        write_hub_folder(tmp_path / "hub", ["tiny_x2", path], folder=folder)


def test_included_checkpoints_by_command(tmp_path):
    pytest.importorskip("huggingface_hub")
    pytest.importorskip("safetensors")
    assert main(["hub", "hrn_light_x2x3x4", "--out", str(tmp_path / "hub")]) == 0
    entry = read_manifest()["checkpoints"]["hrn_light_x2x3x4"]
    card = (tmp_path / "hub/README.md").read_text()
    assert all(f"{entry['scores']['Set14'][scale]['psnr_y']:.2f}" in card for scale in ("x2", "x3", "x4"))
    assert len(load_checkpoint(tmp_path / "hub/hrn_light_x2x3x4.safetensors").config.scales) == 3


def test_a_copy_in_half_precision_gives_the_same_network(folder, tmp_path):
    source, target = folder / "light/tiny_x2.pth", tmp_path / "half.pth"
    assert main(["half", str(source), str(target)]) == 0
    assert target.stat().st_size < 0.7 * source.stat().st_size
    whole, half = (load_network(load_checkpoint(path)) for path in (source, target))
    for (name, a), b in zip(whole.state_dict().items(), half.state_dict().values(), strict=True):
        assert a.dtype == b.dtype, name
        rounding = {"rtol": 1e-3, "atol": 1e-6} if a.ndim > 1 else {"rtol": 0, "atol": 0}  # biases are not rounded
        torch.testing.assert_close(a, b, **rounding, msg=name)


def test_running_statistics_stay_in_single_precision(tmp_path):
    """Those of the full network are larger than the largest float16."""
    config = preset("hrn_light", [2])
    weights = build_model(config).state_dict()
    (name, *_) = (k for k in weights if k.endswith("running_var"))
    weights[name] = weights[name] + 177_723.39
    save_checkpoint(tmp_path / "large.pth", config, weights, info={})
    write_half(tmp_path / "large.pth", tmp_path / "half.pth")
    assert torch.equal(load_checkpoint(tmp_path / "half.pth").weights[name], weights[name])


def test_the_mean_of_two_stages(folder, tmp_path):
    first, second, half, target = (
        folder / "light/tiny_x2.pth",
        *(tmp_path / name for name in ("second.pth", "half.pth", "mean.pth")),
    )
    config = preset("hrn_light", [2])
    newer = {name: value + 2 for name, value in load_checkpoint(first).weights.items()}
    save_checkpoint(second, config, newer, info={"steps": 9, "validation": {"psnr_y": 30}})
    write_half(second, half)
    assert main(["mean", str(first), str(half), "--out", str(target)]) == 0
    mean, halved = load_checkpoint(target), load_checkpoint(half).weights
    for name, value in load_checkpoint(first).weights.items():
        if value.is_floating_point():
            torch.testing.assert_close(mean.weights[name], (value + halved[name].float()) / 2)
        else:
            assert torch.equal(mean.weights[name], newer[name])
    sources = [{"file": path.name, "sha256": file_hash(path)} for path in (first, half)]
    assert mean.info == {"steps": 9, "mean_of": sources}
    description = describe(target)
    assert all(f"{source['file']} (sha256 {source['sha256'][:12]}...)" in description for source in sources)


def test_a_training_state_is_published_with_its_running_mean(tmp_path):
    config = preset("hrn_light", [2])
    network, mean = build_model(config), torch.optim.swa_utils.AveragedModel(build_model(config))
    mean.module.head.weight.data += 1
    state, expected = tmp_path / "state.pth", mean.module.state_dict()["head.weight"]
    training = {"learner": {"ema": mean.state_dict()}, "step": 7, "recipe": {"lr": 0.1}}
    save_checkpoint(state, config, network.state_dict(), info={}, training=training)
    write_half(state, tmp_path / "half.pth")
    write_mean([state, state], tmp_path / "mean.pth")
    for name in ("half", "mean"):
        info = load_checkpoint(tmp_path / f"{name}.pth").info
        assert (info["steps"], info["recipe"]) == (7, {"lr": 0.1})
    export_state_dict(tmp_path / "bare.pth", load_checkpoint(state), 2)
    found = [load_checkpoint(tmp_path / "half.pth").weights, load_checkpoint(tmp_path / "mean.pth").weights]
    found.append(torch.load(tmp_path / "bare.pth", weights_only=True)["params"])
    for weights in found:
        torch.testing.assert_close(weights["head.weight"].float(), expected, rtol=1e-3, atol=1e-6)


def test_networks_that_differ_have_no_mean(folder, tmp_path):
    config = preset("hrn_light", [3])
    save_checkpoint(tmp_path / "x3.pth", config, build_model(config).state_dict(), info={})
    with pytest.raises(HRNError, match=r"tiny_x2\.pth.*x3\.pth"):
        write_mean([folder / "light/tiny_x2.pth", tmp_path / "x3.pth"], tmp_path / "mean.pth")
    assert not (tmp_path / "mean.pth").exists()


def test_the_mean_names_a_source_without_all_weights(folder, tmp_path):
    checkpoint = load_checkpoint(folder / "light/tiny_x2.pth")
    weights = {k: v for k, v in checkpoint.weights.items() if k != "head.weight"}
    save_checkpoint(tmp_path / "part.pth", checkpoint.config, weights, info={})
    with pytest.raises(HRNError, match=r"part\.pth.*head\.weight"):
        write_mean([tmp_path / "part.pth", folder / "light/tiny_x2.pth"], tmp_path / "mean.pth")


def test_weights_beyond_half_precision_are_refused(tmp_path):
    config = preset("hrn_light", [2])
    weights = build_model(config).state_dict()
    weights["head.weight"] = weights["head.weight"] + 1e6
    save_checkpoint(tmp_path / "large.pth", config, weights, info={})
    with pytest.raises(HRNError, match=r"head\.weight"):
        write_half(tmp_path / "large.pth", tmp_path / "half.pth")
    assert not (tmp_path / "half.pth").exists()


def test_a_copy_or_mean_never_replaces_its_source(folder):
    source = folder / "light/tiny_x2.pth"
    before = source.read_bytes()
    for words in (["half", str(source), str(source)], ["mean", str(source), str(source), "--out", str(source)]):
        with pytest.raises(HRNError, match="input"):
            main(words)
    assert source.read_bytes() == before
