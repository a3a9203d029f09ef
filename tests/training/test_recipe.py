import math
from dataclasses import fields, replace

import pytest

from hrn.errors import HRNError
from hrn.runtime import PRECISIONS
from hrn.training.recipe import TRAINING_PRECISIONS, Execution, Recipe, micro_batch_size


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": 0},
        {"warmup": -1},
        {"weight_decay": -1.0},
        {"weight_decay": float("nan")},
        {"weight_decay": float("inf")},
        {"seed": 2**63},
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"clip": 0.0},
        {"loss_fn": "L3"},
        {"optimizer": "sgd"},
        {"precision": "fp8"},
        {"precision": "tf32"},
        {"ema": 1.0},
        {"norm_batch": 4, "freeze_norm": True},
        {"adam_lr_ratio": 0.0, "optimizer": "muon"},
        {"adam_lr_ratio": 0.5, "optimizer": "adam"},
        {"decay": 1000, "schedule": "cosine"},
    ],
)
def test_bad_recipes(values):
    name, value = next(iter(values.items()))
    with pytest.raises(HRNError, match=f"--{name} .*{value}"):
        replace(Recipe(), **values)


def test_bad_executions():
    with pytest.raises(HRNError, match="--accumulate"):
        Execution(accumulate=0)
    with pytest.raises(HRNError, match="--workers"):
        Execution(workers=-2)


def test_defaults_are_the_released_ones():
    r = Recipe()
    released = (48, 10, 500_000, 1e-4, 200_000, 10.0, "L1", "step")
    assert (r.patch_size, r.batch_size, r.max_steps, r.lr, r.decay, r.clip, r.loss_fn, r.schedule) == released


def test_share_of_a_process():
    recipe = Recipe(batch_size=16, norm_batch=4)
    assert [micro_batch_size(recipe, n, a) for n, a in ((1, 1), (2, 1), (1, 4), (2, 2))] == [16, 8, 4, 4]
    with pytest.raises(HRNError, match="--batch_size 16"):
        micro_batch_size(recipe, 3, 1)
    with pytest.raises(HRNError, match="--norm_batch 4"):
        micro_batch_size(recipe, 8, 1)


def test_a_resumed_run_cannot_split_its_groups():
    """By default a group is the first micro-batch, so a larger `--accumulate` needs another `--norm_batch`."""
    resumed = Recipe(batch_size=16).with_norm_batch(8)
    assert micro_batch_size(resumed, 1, 1) == 16
    with pytest.raises(HRNError, match="--accumulate 4"):
        micro_batch_size(resumed, 1, 4)


def test_norm_batch_is_set_only_where_it_is_open():
    assert Recipe().with_norm_batch(8).norm_batch == 8
    assert Recipe(norm_batch=4).with_norm_batch(8).norm_batch == 4
    assert Recipe(freeze_norm=True).with_norm_batch(8) == Recipe(freeze_norm=True)


def test_differences_by_flag():
    recipe = Recipe()
    assert recipe.differences({"lr": 1e-4, "max_steps": 7, "save_interval": 3}) == ""
    assert recipe.differences({"lr": 1e-3, "seed": 2}) == "--lr 0.001, --seed 2"
    assert recipe.differences({"freeze_norm": True}) == "--freeze_norm"
    assert replace(recipe, freeze_norm=True).differences({}) == "--no-freeze_norm"


def test_every_setting_has_a_help_text_and_training_precisions_are_known():
    assert all(f.metadata["help"] for cls in (Recipe, Execution) for f in fields(cls))
    assert set(TRAINING_PRECISIONS) <= PRECISIONS.keys()
