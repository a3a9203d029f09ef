"""A quick run, and the comparison of two runs."""

from dataclasses import replace

import pytest
import torch

from hrn.data.benchmark import find_test_set
from hrn.data.h5 import H5Pairs
from hrn.training.recipe import Execution, Recipe
from hrn.training.run_files import RunFiles, read_log
from hrn.training.trainer import Trainer
from tests.conftest import SMALL

RECIPE = Recipe(
    patch_size=12, batch_size=4, max_steps=8, lr=1e-3, schedule="cosine", warmup=2, ema=0.9,
    print_interval=2, valid_interval=4, save_interval=3,
)  # fmt: skip
PLAIN = Execution()
MEASURED = ("images_per_second", "seconds_left")
"""Names of the log values that depend on the machine. All others are the same in every run of a recipe."""


def log_of(files):
    """The log without the values that depend on the machine's speed."""
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in read_log(files.log)]


@pytest.fixture
def small():
    return SMALL


@pytest.fixture
def recipe():
    return RECIPE


@pytest.fixture
def make(h5_path, tmp_path):
    """Build a trainer of the quick run, with its own files for each name."""

    def build(name="run", *, config=SMALL, valid=True, execution=PLAIN, folder=None, shave=None, **changes):
        sets = [find_test_set(h5_path, s) for s in config.scales] if valid else []
        files = RunFiles(folder or tmp_path / "out", name)
        files.folder.mkdir(exist_ok=True)
        pairs = H5Pairs(h5_path, config.scales)
        return Trainer(config, replace(RECIPE, **changes), pairs, sets, files, execution, shave=shave)

    return build


@pytest.fixture
def same():
    """Assert that two trainers, or two training states, are equal bit for bit."""

    def check(a, b):
        a, b = (dict(flat(x)) for x in (a, b))
        assert a.keys() == b.keys()
        different = [k for k in a if not (torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k])]
        assert different == []

    return check


def flat(x, name=""):
    """Yield (name, tensor or plain value) of everything in nested dicts and lists."""
    if isinstance(x, Trainer):
        x = {
            "weights": x.learner.network.state_dict(),
            "learner": x.learner.state_dict(),
            "best": x.best,
            "step": x.step,
        }
    if isinstance(x, dict):
        for key, value in x.items():
            if key not in ("execution", "processes"):
                yield from flat(value, f"{name}.{key}")
    elif isinstance(x, list | tuple):
        for i, value in enumerate(x):
            yield from flat(value, f"{name}.{i}")
    else:
        yield name, x
