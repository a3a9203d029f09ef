import math
from dataclasses import replace

import pytest

from hrn.errors import HRNError
from hrn.training.recipe import Execution, Recipe, share_of


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "--batch_size must be at least 1, not 0"),
        ({"warmup": -1}, "--warmup must be at least 0, not -1"),
        ({"weight_decay": -1.0}, "--weight_decay must be at least 0"),
        ({"lr": -1.0}, "--lr and --clip must be positive"),
        ({"lr": math.nan}, "--lr and --clip must be positive"),
        ({"loss_fn": "L3"}, "--loss_fn must be one of L1, MSE, SmoothL1, not L3"),
        ({"optimizer": "sgd"}, "--optimizer must be one of adam, adamw"),
        ({"precision": "fp8"}, "--precision must be one of fp32, bf16, fp16"),
        ({"ema": 1.0}, "--ema from 0 to below 1"),
    ],
)
def test_bad_recipes(values, message):
    with pytest.raises(HRNError, match=message):
        replace(Recipe(), **values)


def test_bad_executions():
    with pytest.raises(HRNError, match="--accumulate must be at least 1"):
        Execution(accumulate=0)
    with pytest.raises(HRNError, match="--workers must be at least -1"):
        Execution(workers=-2)


def test_defaults_are_the_released_ones():
    r = Recipe()
    released = (48, 10, 500_000, 1e-4, 200_000, 10.0, "L1", "step")
    assert (r.patch_size, r.batch_size, r.max_steps, r.lr, r.decay, r.clip, r.loss_fn, r.schedule) == released


def test_shares():
    recipe = Recipe(batch_size=16, norm_batch=4)
    assert [share_of(recipe, n, a) for n, a in ((1, 1), (2, 1), (1, 4), (2, 2))] == [16, 8, 4, 4]
    with pytest.raises(HRNError, match=r"--batch_size 16 cannot be shared out over 3 process\(es\) in 1 part"):
        share_of(recipe, 3, 1)
    with pytest.raises(HRNError, match="--norm_batch 4: a process computes 2 patches at once"):
        share_of(recipe, 8, 1)


def test_differences_are_told_by_flag():
    recipe = Recipe()
    assert recipe.differences({"lr": 1e-4, "max_steps": 7, "save_interval": 3}) == ""
    assert recipe.differences({"lr": 1e-3, "seed": 2}) == "--lr 0.001, --seed 2"
