"""Training that starts from other weights."""

import logging
from dataclasses import replace

import pytest
import torch

from hrn.checkpoint import Checkpoint, load_checkpoint
from hrn.errors import HRNError
from hrn.model import build_model, preset
from hrn.training.initial_weights import grow_from, init_from


def test_init_from(make, small, same, caplog):
    first = make("first", valid=False)
    first.fit()
    checkpoint = load_checkpoint(first.files.weights)
    second = make("second", config=replace(small, scales=(3,)))
    with caplog.at_level(logging.INFO):
        init_from(second, checkpoint)
    for name in ("tails.x3.0.weight", "tails.x2.0.weight"):
        assert name in caplog.text
    own = second.learner.ema.module.state_dict()
    same(*({k: v for k, v in weights.items() if "tails" not in k} for weights in (own, dict(checkpoint.weights))))
    assert second.info["init_from"]["file"] == "first.pth"
    with pytest.raises(HRNError, match=r"first\.pth"):
        init_from(make("third", config=replace(small, channels=9, reduction=2, scales=(4,))), checkpoint)
    with pytest.raises(HRNError, match=r"first\.pth.*--grow_from"):  # biases of the gates and of the tail fit
        init_from(
            make("fourth", config=replace(small, channels=2 * small.channels, reduction=2 * small.reduction)),
            checkpoint,
        )


def test_statistics_to_freeze_must_exist(make, small):
    first = make("first", valid=False)
    first.fit()
    other = make("second", config=replace(small, reduction=2), freeze_norm=True)
    with pytest.raises(HRNError, match=r"first\.pth .*running_mean.*--freeze_norm"):
        init_from(other, load_checkpoint(first.files.weights))


@pytest.fixture
def learned(make):
    """The checkpoint of a quick run, whose weights and statistics are no longer the initial ones."""
    trainer = make("small", valid=False)
    trainer.fit()
    return load_checkpoint(trainer.files.weights)


def test_grow_from_starts_as_the_smaller_network(make, small, learned):
    large = make("large", config=replace(small, channels=12, n_dem=2, n_wrab=2))
    grow_from(large, learned)
    again = make("again")
    init_from(again, learned)
    assert large.info["grow_from"]["file"] == "small.pth"
    scores = [trainer.validate()["psnr_y"] for trainer in (again, large)]  # of the EMA weights
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    for trainer in (again, large):
        trainer.learner.step(next(iter(trainer.data.batches(0))), 1e-6)
    losses = [trainer.learner.pop_metrics()["loss"] for trainer in (again, large)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_grow_from_refuses_what_does_not_fit(make, small, learned, tmp_path):
    with pytest.raises(HRNError, match=r"--grow_from .*small\.pth: scales"):
        grow_from(make("other", config=replace(small, scales=(3,))), learned)
    with pytest.raises(HRNError, match=r"--grow_from .*small\.pth: channels"):
        grow_from(make("narrow", config=replace(small, channels=4)), learned)
    with torch.device("meta"):
        shapes = build_model(preset("hrn_released", [2])).state_dict()
    released = Checkpoint(
        learned.path, preset("hrn_released", [2]), {name: torch.zeros(w.shape) for name, w in shapes.items()}, {}
    )
    with pytest.raises(HRNError, match=r"--grow_from .*hrn_released"):
        grow_from(make("released"), released)
