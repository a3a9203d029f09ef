"""What importing and running the package loads."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import h5py


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports_at_load(body: list[ast.stmt], modules: set[str]) -> set[str]:
    """The modules of the package that are imported when the code is loaded, excluding imports inside functions."""
    found = set()
    for node in body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else node.module for name in names}
        elif isinstance(node, ast.Try) or (isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING"):
            found |= imports_at_load(node.body, modules)
    return found & modules


def import_graph(root: Path) -> dict[str, set[str]]:
    paths = {module_name(path, root): path for path in (root / "hrn").rglob("*.py")}
    return {
        name: imports_at_load(ast.parse(path.read_text()).body, set(paths)) - {name} for name, path in paths.items()
    }


def test_no_import_circle(root):
    graph = import_graph(root)
    assert "hrn.files" in graph["hrn.checkpoint"]
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_pretrained_is_a_leaf(root):
    assert import_graph(root)["hrn.pretrained"] == {"hrn.errors", "hrn.files"}


def test_data_scripts_run_without_torch(root, tmp_path, hr_folder):
    (tmp_path / "blocked").mkdir()
    for name in ("torch", "torchvision"):
        (tmp_path / f"blocked/{name}.py").write_text("raise ImportError('not installed')")
    stripes = ["datasets/stripes.py", "--out", tmp_path / "stripes", "--count", "2", "--size", "32"]
    div2h5 = [
        "datasets/div2h5.py",
        "--hr",
        hr_folder,
        tmp_path / "stripes",
        "--out",
        tmp_path / "a.h5",
        "--scales",
        "2",
    ]
    env = {"PYTHONPATH": str(tmp_path / "blocked")}
    lr_images = ["datasets/lr_images.py", tmp_path / "stripes", "--scales", "2"]
    for command in (stripes, [*div2h5, "--workers", "1"], lr_images):
        subprocess.run([sys.executable, *command], cwd=root, env=env, check=True, capture_output=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert len(file["X2"]) == 6
    blocked = subprocess.run([sys.executable, "-c", "import torch"], env=env, capture_output=True)
    assert blocked.returncode
