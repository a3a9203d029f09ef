import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from hrn.errors import HRNError
from hrn.files import file_hash
from hrn.model import config_from_dict
from hrn.pretrained import find_checkpoint, read_manifest

ENTRY = {"file": "light/a.pth", "bytes": 3, "sha256": "", "config": {}, "scores": {}}


def write_manifest(folder, **changes):
    (folder / "manifest.json").write_text(json.dumps({"checkpoints": {"a": {**ENTRY, **changes}}}))


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder with one file, which need not be a checkpoint, and its manifest."""
    path = tmp_path / "checkpoint/light/a.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one")
    write_manifest(tmp_path / "checkpoint", sha256=file_hash(path))
    return tmp_path / "checkpoint"


def test_names_and_paths(folder):
    path = folder / "light/a.pth"
    assert find_checkpoint("a", folder) == path
    assert find_checkpoint(Path("a"), folder) == path
    assert find_checkpoint(path, folder) == path
    with pytest.raises(HRNError, match="huge_x9"):
        find_checkpoint("huge_x9", folder)


def test_a_changed_file_is_refused_by_name_only(folder):
    path = folder / "light/a.pth"
    path.write_bytes(b"two")
    with pytest.raises(HRNError, match=r"a\.pth"):
        find_checkpoint("a", folder)
    assert find_checkpoint(path, folder) == path
    path.unlink()
    with pytest.raises(HRNError, match=r"a\.pth"):
        find_checkpoint("a", folder)


def test_a_folder_without_a_manifest(tmp_path):
    assert read_manifest(tmp_path) == {"checkpoints": {}}
    with pytest.raises(HRNError):
        find_checkpoint("a", tmp_path)


@pytest.mark.parametrize(
    "changes", [{"file": "../x"}, {"file": "/x"}, {"file": 3}, {"config": "hrn"}, {"scores": None}]
)
def test_bad_entries(folder, changes):
    write_manifest(folder, **changes)
    with pytest.raises(HRNError, match=r"manifest\.json"):
        find_checkpoint("a", folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checkpoints": {"a": {}}}', '{"checkpoints": {"a": 3}}'])
def test_bad_manifests(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(HRNError, match=r"manifest\.json"):
        find_checkpoint("a", folder)


@pytest.fixture
def find_offline(root, tmp_path):
    """A function that finds a Hub name without a network, in a cache with two revisions of one file."""
    repo = tmp_path / "hub/models--someone--weights"
    for revision, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        (repo / f"snapshots/{commit}/sub").mkdir(parents=True)
        (repo / f"snapshots/{commit}/sub/x4.pth").write_text(revision)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / f"refs/{revision}").write_text(commit)
    script = """
import sys
from pathlib import Path
from hrn.errors import HRNError
from hrn.pretrained import find_checkpoint
for kind in (str, Path):
    try:
        print(find_checkpoint(kind(sys.argv[1])).read_text())
    except HRNError as error:
        print("HRNError", error)
"""

    def find(name):
        env = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", script, name]
        ended = subprocess.run(command, cwd=root, env=env, check=True, capture_output=True, text=True)
        return ended.stdout.splitlines()

    return find


@pytest.mark.parametrize(
    ("name", "content"),
    [("hf://someone/weights/sub/x4.pth", "main"), ("hf://someone/weights/sub/x4.pth@v1", "v1")],
)
def test_hub_names(find_offline, name, content):
    pytest.importorskip("huggingface_hub")
    assert find_offline(name) == [content, content]


@pytest.mark.parametrize("name", ["someone/weights/sub/x4.pth@v2", "someone/weights/x2.pth", "no one/weights/a.pth"])
def test_hub_files_that_cannot_be_downloaded(find_offline, name):
    pytest.importorskip("huggingface_hub")
    lines = find_offline(f"hf://{name}")
    assert [line.startswith("HRNError") and name in line for line in lines] == [True, True]


def test_hub_names_need_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HRNError, match="pip install huggingface_hub"):
        find_checkpoint("hf://someone/weights/x4.pth")


@pytest.mark.parametrize("name", ["hf://", "hf://someone/weights", "hf://someone/weights/a.pth@"])
def test_incomplete_hub_names(name):
    with pytest.raises(HRNError, match="OWNER"):
        find_checkpoint(name)


def test_names_work_in_an_installed_package(root, tmp_path):
    """Without the repository, `hrn/shipped` is used. Finding a file does not import torch."""
    package = tmp_path / "packages/hrn"
    shutil.copytree(root / "hrn", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("manifest.json", "hrn_light/hrn_light_x2.pth"):
        (package / "shipped" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / "checkpoint" / name, package / "shipped" / name)
    script = "import sys, hrn.pretrained as p; print(p.find_checkpoint('hrn_light_x2'), 'torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script], env=env, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True
    )
    assert ended.stdout.strip() == f"{package / 'shipped/hrn_light/hrn_light_x2.pth'} False"


def test_what_the_package_needs_is_installed_with_it(root):
    setuptools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [p.relative_to(root / "hrn") for p in (root / "hrn").rglob("*") if p.is_file()]
    packages = {".".join(("hrn", *p.parent.parts)) for p in files if p.suffix == ".py"}
    assert packages | {"hrn.shipped"} == set(setuptools["packages"])
    data = {p.as_posix() for p in files if p.suffix not in (".py", ".pyc")}
    assert data == set(setuptools["package-data"]["hrn"])
    listed = {p for pattern in setuptools["package-data"]["hrn.shipped"] for p in (root / "checkpoint").glob(pattern)}
    entries = read_manifest()["checkpoints"].values()
    small = [e["file"] for e in entries if e["bytes"] < 10 * 2**20]
    assert {root / "checkpoint" / file for file in ("manifest.json", *small)} <= listed


@pytest.mark.parametrize("script", ["sample", "train", "demo"])
def test_console_scripts(root, script):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["scripts"][f"hrn-{script}"] == f"hrn.{script}:cli"
    assert callable(import_module(f"hrn.{script}").cli)


def test_every_included_checkpoint_is_in_the_manifest_and_right(root):
    manifest = read_manifest(root / "checkpoint")
    folders = {(root / "checkpoint" / entry["file"]).parent for entry in manifest["checkpoints"].values()}
    assert {p.stem for folder in folders for p in folder.glob("*.pth")} == set(manifest["checkpoints"])
    for name, entry in manifest["checkpoints"].items():
        assert find_checkpoint(name, root / "checkpoint").stat().st_size == entry["bytes"]
        config_from_dict(entry["config"])
