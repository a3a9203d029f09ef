"""datasets/download.py, with a local server."""

import hashlib
import io
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hrn.errors import HRNError
from hrn.model import build_model, preset
from tests.site import PNG, Server, zipped


@pytest.fixture
def script(root, load_script):
    return load_script(root / "datasets/download.py")


def test_div2k_is_unpacked_where_div2h5_looks_for_it(script, site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "DIV2K", (f"{site}/gone", f"{site}/DIV2K"))
    monkeypatch.setattr(script, "MD5", {"DIV2K_train_HR": hashlib.md5(div2k_archive("DIV2K_train_HR")).hexdigest()})
    whole = script.div2k
    monkeypatch.setitem(
        script.SETS, "div2k", lambda scales: replace(whole(scales), counts=dict.fromkeys(whole(scales).counts, 2))
    )
    command = ["div2k", "--scales", "2", "--root", str(tmp_path)]
    assert script.main(command) == 0
    found = sorted(str(p.relative_to(tmp_path / "DIV2K")) for p in tmp_path.rglob("*.png"))
    assert found == [
        f"DIV2K_{part}_{kind}" for part in ("train", "valid") for kind in ("HR/0001.png", "HR/0002.png", "LR_bicubic/X2/0001x2.png", "LR_bicubic/X2/0002x2.png")
    ]  # fmt: skip
    assert not list(tmp_path.rglob("*.zip"))
    asked = len(Server.asked)
    assert script.main(command) == 0
    assert len(Server.asked) == asked
    assert str(tmp_path / "DIV2K") in capsys.readouterr().out


def div2k_archive(name):
    return zipped({f"{name}/000{i}.png": PNG for i in (1, 2)} | {f"{name}/": b""})


def test_a_wrong_checksum_is_reported_with_manual_instructions(script, site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "DIV2K", (f"{site}/DIV2K",))
    with pytest.raises(HRNError, match="div2k"):
        script.main(["div2k", "--scales", "2", "--root", str(tmp_path)])
    printed = capsys.readouterr().err
    assert "md5:" in printed
    assert f"{site}/DIV2K/DIV2K_train_HR.zip" in printed
    assert f"{tmp_path}/DIV2K/DIV2K_train_LR_bicubic/X2/" in printed
    assert not list(tmp_path.rglob("*.png"))


def test_a_test_set_from_its_second_url(script, site, tmp_path, monkeypatch):
    source = script.test_set("Set5", 2, "Set5", "box")
    dead, other = (alternative[0] for alternative in source.alternatives)
    alternatives = ((replace(dead, urls=(f"{site}/gone",)),), (replace(other, urls=(f"{site}/set",)),))
    monkeypatch.setitem(script.SETS, "set5", lambda scales: replace(source, alternatives=alternatives))
    assert script.main(["set5", "--root", str(tmp_path)]) == 0
    assert sorted(p.name for p in (tmp_path / "Set5/HR").iterdir()) == ["img001.png", "img002.png"]


def test_an_incomplete_set_is_reported(script, site, tmp_path, monkeypatch, capsys):
    source = script.test_set("Set5", 5, "Set5", "box")
    alternatives = ((replace(source.alternatives[1][0], urls=(f"{site}/set",)),),)
    monkeypatch.setitem(script.SETS, "set5", lambda scales: replace(source, alternatives=alternatives))
    with pytest.raises(HRNError, match="set5"):
        script.main(["set5", "--root", str(tmp_path)])
    assert "2 of 5" in capsys.readouterr().err


@pytest.mark.parametrize(("url", "flags", "kept"), [("set", [], 0), ("set", ["--keep"], 1), ("good", ["--keep"], 0)])
def test_archives_are_kept_only_on_request_and_if_intact(script, site, tmp_path, monkeypatch, url, flags, kept):
    """`good` is a file that is not an archive."""
    source = script.test_set("Set5", 2, "Set5", "box")
    alternatives = ((replace(source.alternatives[1][0], urls=(f"{site}/{url}",)),),)
    monkeypatch.setitem(script.SETS, "set5", lambda scales: replace(source, alternatives=alternatives))
    with suppress(HRNError):
        script.main(["set5", "--root", str(tmp_path), *flags])
    assert len(list(tmp_path.rglob("*.zip"))) == kept
    assert len(list(tmp_path.rglob("*.png"))) == (2 if url == "set" else 0)
    assert not list(tmp_path.rglob(".*"))


def test_two_sources_are_not_mixed(script, site, tmp_path, monkeypatch):
    source = script.test_set("Set5", 5, "Set5", "box")
    archive = replace(source.alternatives[1][0], urls=(f"{site}/set",))  # two of five images
    other = replace(archive, urls=(f"{site}/set",), place=lambda name: f"HR/other_{Path(name).name}")
    monkeypatch.setitem(script.SETS, "set5", lambda scales: replace(source, alternatives=((archive,), (other,))))
    with pytest.raises(HRNError):
        script.main(["set5", "--root", str(tmp_path)])
    assert sorted(p.name for p in (tmp_path / "Set5/HR").iterdir()) == ["img001.png", "img002.png"]


def test_a_folder_that_cannot_be_written(script, site, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(HRNError, match="set5"):
        script.main(["set5", "--root", str(tmp_path / "file")])
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.parametrize("good", [True, False])
def test_the_authors_weights_are_checked(script, site, tmp_path, monkeypatch, capsys, good):
    buffer = io.BytesIO()
    with torch.device("meta"):
        shapes = build_model(preset("hrn_released", [4])).state_dict()
    weights = {name: torch.zeros(()).expand(value.shape) for name, value in shapes.items()}  # a small file
    torch.save(weights if good else {"conv.weight": torch.zeros(1)}, buffer)
    monkeypatch.setattr(Server, "weights", buffer.getvalue(), raising=False)
    monkeypatch.setitem(script.CHECKPOINTS, "authors", ("hrn_released/hrn_x4.pth", (f"{site}/authors",)))
    command = ["checkpoint", "authors", "--ckpt_dir", str(tmp_path)]
    if good:
        assert script.main(command) == 0
        assert "hrn_x4.pth: hrn_released, x4" in capsys.readouterr().out
    else:
        with pytest.raises(HRNError, match="authors"):
            script.main(command)
        assert "hrn_x4.pth" in capsys.readouterr().err
    assert (tmp_path / "hrn_released/hrn_x4.pth").exists() == good


@pytest.mark.parametrize(
    "words",
    [
        ["set6"],
        ["checkpoint"],
        ["checkpoint", "mine"],
        ["checkpoint", "authors", "--root", "a"],
        ["checkpoint", "authors", "--keep"],
        ["set5", "--ckpt_dir", "a"],
        ["set5", "--scales", "2"],
    ],
)
def test_unknown_names_and_flags_without_effect(script, words):
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2


def test_urls_and_counts(script):
    sources = {name: make([2, 3, 4]) for name, make in script.SETS.items()}
    counts = {name: sum(source.counts.values()) for name, source in sources.items()}
    assert counts == {"div2k": 3600, "set5": 5, "set14": 14, "b100": 100, "urban100": 100}
    for source in sources.values():
        for archive in (a for alternative in source.alternatives for a in alternative):
            assert all(url.startswith(("https://", "http://data.vision.ee.ethz.ch/")) for url in archive.urls)
