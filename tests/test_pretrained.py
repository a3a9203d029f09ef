import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from hrn import load_model, upscale
from hrn.checkpoint import save_checkpoint
from hrn.errors import HRNError
from hrn.evaluation.metrics import PROTOCOL
from hrn.files import file_hash
from hrn.model import build_model, preset
from hrn.pretrained import enter, find_checkpoint, main, read_manifest


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def write_scores(path, checkpoint, **changes):
    """A scores.json as hrn/sample.py writes it."""
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
    write_scores(results / "Set14", path, set="Set14", mean={"psnr_y": 28, "ssim_y": 0.9})
    write_scores(results / "other", path, set="B100", checkpoint_sha256="0", self_ensemble=True)
    assert enter(path, results, "7 images", folder) == "tiny_x2"
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server of the files in tmp_path/site, and a home without a cache."""
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_manifest_says_what_there_is(folder):
    entry = read_manifest(folder)["checkpoints"]["tiny_x2"]
    path = folder / entry["file"]
    assert (entry["sha256"], entry["bytes"], entry["steps"]) == (file_hash(path), path.stat().st_size, 7)
    assert entry["scores"] == {
        "Set14": {"x2": {"psnr_y": 28.0, "ssim_y": 0.9}},
        "Set5": {"x2": {"psnr_y": 30.1235, "ssim_y": 0.9}},
    }
    assert entry["config"]["channels"] == 24


def test_a_name_is_found_in_the_folder_and_a_path_stays_a_path(folder, caplog):
    path = folder / "light/tiny_x2.pth"
    with caplog.at_level(logging.INFO):
        assert find_checkpoint("tiny_x2", folder) == path
    assert f"tiny_x2: {path}" in caplog.text
    assert find_checkpoint(path, folder) == path
    with pytest.raises(HRNError, match="no such checkpoint: huge_x9 is not a file, nor one of tiny_x2"):
        find_checkpoint("huge_x9", folder)


def test_another_file_under_its_name_is_refused(folder):
    path = folder / "light/tiny_x2.pth"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(HRNError, match="is not the tiny_x2 of the manifest"):
        find_checkpoint("tiny_x2", folder)
    assert find_checkpoint(path, folder) == path


def test_it_is_fetched_once_and_then_cached(folder, site, tmp_path, monkeypatch, caplog):
    (folder / "light").rename(tmp_path / "site/light")
    monkeypatch.setenv("HRN_CHECKPOINT_URL", site)
    with caplog.at_level(logging.INFO):
        path = find_checkpoint("tiny_x2", folder)
    assert f"fetching {site}/light/tiny_x2.pth" in caplog.text
    assert tmp_path / "cache/hrn" in path.parents
    monkeypatch.delenv("HRN_CHECKPOINT_URL")
    assert find_checkpoint("tiny_x2", folder) == path
    monkeypatch.setattr(find_checkpoint, "__defaults__", (folder,))
    model = load_model("tiny_x2", device="cpu")
    assert upscale(model, np.zeros((5, 6, 3), np.uint8)).shape == (10, 12, 3)
    path.write_bytes(b"damaged")
    with pytest.raises(HRNError, match=r"neither at .* nor at .*, and HRN_CHECKPOINT_URL does not say where"):
        find_checkpoint("tiny_x2", folder)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"another file", "wrong file: sha256:"), (None, "HTTP 404"), (b"<html>sign in</html>", "a web page instead")],
)
def test_what_is_not_it_leaves_nothing_behind(folder, site, tmp_path, monkeypatch, content, why):
    (folder / "light/tiny_x2.pth").unlink()
    if content:
        (tmp_path / "site/light").mkdir()
        name = "tiny_x2.pth"
        if content.startswith(b"<html"):
            monkeypatch.setattr(Quiet, "guess_type", lambda self, path: "text/html")
        (tmp_path / "site/light" / name).write_bytes(content)
    monkeypatch.setenv("HRN_CHECKPOINT_URL", site + "/")
    with pytest.raises(HRNError, match=why):
        find_checkpoint("tiny_x2", folder)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_bad_manifests(folder):
    for text in (
        "",
        "[]",
        '{"checkpoints": {"a": {}}}',
        '{"checkpoints": {"a": {"file": "../x", "bytes": 1, "sha256": "", "config": {}, "scores": {}}}}',
        '{"checkpoints": {"a": {"file": "x", "bytes": 1, "sha256": "", "config": {"network": "?"}, "scores": {}}}}',
    ):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(HRNError, match="not a manifest of checkpoints"):
            find_checkpoint("a", folder)


def test_only_what_was_scored_is_entered(folder, tmp_path):
    path = folder / "light/tiny_x2.pth"
    (tmp_path / "empty").mkdir()
    with pytest.raises(HRNError, match=r"no scores\.json of tiny_x2\.pth"):
        enter(path, tmp_path / "empty", "", folder)
    with pytest.raises(HRNError, match="is not in"):
        main([str(path), str(tmp_path), "--trained_on", ""])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"self_ensemble": True}, "self_ensemble is True, not False"),
        ({"mode": "full"}, "mode is 'full', not 'local, 48'"),
        ({"precision": "bf16"}, "precision is 'bf16', not 'fp32'"),
        ({"protocol": PROTOCOL.format(shave=5)}, "protocol is .* 5 pixels of border .* not .* 2 pixels of border"),
        (
            {"protocol": PROTOCOL.format(shave=2) + "; bridge scored on raw grey"},
            "protocol is .*; bridge scored on raw grey', not",
        ),
    ],
)
def test_only_scores_as_in_tables_are_entered(folder, tmp_path, changes, why):
    path, before = folder / "light/tiny_x2.pth", (folder / "manifest.json").read_text()
    write_scores(tmp_path / "sample/more", path, set="B100", **changes)
    with pytest.raises(HRNError, match=rf"more/scores\.json: not as in a table of results: {why}"):
        enter(path, tmp_path / "sample", "", folder)
    assert (folder / "manifest.json").read_text() == before


def test_two_scores_for_one_set_are_not_entered(folder, tmp_path):
    path = folder / "light/tiny_x2.pth"
    write_scores(tmp_path / "sample/again", path)
    with pytest.raises(HRNError, match=r"two scores\.json of tiny_x2\.pth on Set5 x2; leave one of them"):
        enter(path, tmp_path / "sample", "", folder)
    (tmp_path / "sample/again/scores.json").write_text("[")
    with pytest.raises(HRNError, match=r"again/scores\.json: not scores of hrn/sample\.py"):
        enter(path, tmp_path / "sample", "", folder)


@pytest.mark.parametrize("files", ["hrn_light/hrn_light_x2.pth", "nothing"])
def test_names_work_in_an_installed_package(root, tmp_path, site, files):
    """Without the repository: by the manifest that is installed, with the files or from elsewhere."""
    package = tmp_path / "packages/hrn"
    shutil.copytree(root / "hrn", package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("manifest.json", files):
        if (root / "checkpoint" / path).is_file():
            (package / "shipped" / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / "checkpoint" / path, package / "shipped" / path)
    (tmp_path / "site/hrn_light").symlink_to(root / "checkpoint/hrn_light")
    script = "import hrn.pretrained; print(hrn.pretrained.find_checkpoint('hrn_light_x2'))"
    env = {**os.environ, "PYTHONPATH": str(package.parent), "HRN_CHECKPOINT_URL": site}
    ended = subprocess.run([sys.executable, "-P", "-c", script], env=env, cwd=tmp_path, stdout=subprocess.PIPE)
    found = Path(ended.stdout.decode().strip())
    assert file_hash(found) == read_manifest()["checkpoints"]["hrn_light_x2"]["sha256"]
    assert (package / "shipped" if files != "nothing" else tmp_path / "cache/hrn") in found.parents


def test_what_the_package_needs_is_installed_with_it(root):
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [p.relative_to(root / "hrn") for p in (root / "hrn").rglob("*") if p.is_file()]
    packages = {".".join(("hrn", *p.parent.parts)) for p in files if p.suffix == ".py"}
    assert packages | {"hrn.shipped"} == set(setuptools["packages"])
    data = {p.as_posix() for p in files if p.suffix not in (".py", ".pyc")}
    assert data == set(setuptools["package-data"]["hrn"])
    listed = {p for pattern in setuptools["package-data"]["hrn.shipped"] for p in (root / "checkpoint").glob(pattern)}
    entries = read_manifest()["checkpoints"].values()
    assert {root / "checkpoint" / file for file in ("manifest.json", *(e["file"] for e in entries))} <= listed


def test_every_shipped_checkpoint_is_in_the_manifest_and_right(root):
    manifest = read_manifest(root / "checkpoint")
    shipped = {p.stem for p in (root / "checkpoint").rglob("*.pth") if not p.name.endswith(".train.pth")}
    released = {p.stem for p in (root / "checkpoint/hrn_released").glob("*.pth")}
    assert shipped - released == set(manifest["checkpoints"])
    for name in manifest["checkpoints"]:
        find_checkpoint(name, root / "checkpoint")
