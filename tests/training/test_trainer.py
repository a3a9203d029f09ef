import json
import math
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from hrn.checkpoint import load_checkpoint, load_network
from hrn.data.benchmark import find_test_set
from hrn.data.h5 import H5Pairs
from hrn.errors import HRNError
from hrn.evaluation.evaluate import evaluate, mean_scores
from hrn.inference.upscale import enlarge
from hrn.model import HRNConfig
from hrn.training import trainer as trainer_module
from hrn.training.trainer import Files, Recipe, Trainer, duration

SMALL = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=1, scales=(2,), reduction=4, upsampler="direct")
RECIPE = Recipe(
    patch_size=12, batch_size=4, max_steps=8, lr=1e-3, schedule="cosine", warmup=2, ema=0.9,
    print_interval=2, valid_interval=4, save_interval=3,
)  # fmt: skip


@pytest.fixture
def make(h5_path, tmp_path):
    def build(recipe=RECIPE, config=SMALL, valid=True, name="run"):
        sets = [find_test_set(h5_path, s) for s in config.scales] if valid else []
        files = Files(tmp_path / "out", name)
        files.folder.mkdir(exist_ok=True)
        return Trainer(config, recipe, H5Pairs(h5_path, config.scales), sets, files, torch.device("cpu"))

    return build


def state_of(trainer):
    optimizer = trainer.optimizer.state_dict()["state"]
    return {
        **{f"model.{k}": v for k, v in trainer.model.state_dict().items()},
        **({f"ema.{k}": v for k, v in trainer.ema.state_dict().items()} if trainer.ema else {}),
        **{f"optimizer.{i}.{k}": v for i, values in optimizer.items() for k, v in values.items()},
    }


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_it_learns(make):
    """The fixture's LR is every second pixel, which bilinear interpolation is not made for: there is something to learn."""
    trainer = make(replace(RECIPE, max_steps=60, lr=5e-3, valid_interval=60, ema=0.0))
    before = trainer.validate()["psnr_y"]
    trainer.fit()
    assert trainer.best["psnr_y"] > before + 0.5


@pytest.mark.parametrize("loss_fn", ["L1", "MSE", "SmoothL1"])
def test_losses(make, loss_fn):
    trainer = make(replace(RECIPE, loss_fn=loss_fn, max_steps=2), name=loss_fn)
    trainer.fit()
    assert math.isfinite(json.loads(trainer.files.log.read_text().splitlines()[0])["loss"])


def test_a_resumed_run_is_the_same_run(make):
    straight = make(name="straight")
    straight.fit()
    make(replace(RECIPE, max_steps=3, schedule="cosine"), name="unused")  # the global generator moves on meanwhile
    stopped = make(name="stopped")
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(progress=lambda step: (_ for _ in ()).throw(KeyboardInterrupt) if step == 7 else None)
    resumed = make(name="stopped")
    resumed.resume(resumed.files.state)
    assert resumed.step == 6  # the last multiple of save_interval
    resumed.fit()
    assert_same(state_of(straight), state_of(resumed))
    assert straight.best == resumed.best

    def log(t):
        timing = ("images_per_second", "seconds_left")
        return [
            {k: v for k, v in json.loads(line).items() if k not in timing}
            for line in t.files.log.read_text().splitlines()
        ]

    steps = [line["step"] for line in log(resumed)]
    assert steps == [2, 4, 6, 8]
    # the loss of the interval in which the run stopped is a mean over its second part only
    assert [{k: v for k, v in line.items() if k != "loss"} for line in log(straight)] == [
        {k: v for k, v in line.items() if k != "loss"} for line in log(resumed)
    ]


def test_several_scales_together(make):
    trainer = make(replace(RECIPE, max_steps=6), config=replace(SMALL, scales=(2, 3, 4)))
    trainer.fit()
    network = load_network(load_checkpoint(trainer.files.best))
    assert network.config.scales == (2, 3, 4)


def test_shipped_weights_score_what_the_log_says(make, h5_path):
    trainer = make()
    trainer.fit()
    checkpoint = load_checkpoint(trainer.files.best)
    assert checkpoint.training is None
    best = checkpoint.info["validation"]
    network = load_network(checkpoint, scale=2)
    scores = mean_scores([r.scores for r in evaluate(lambda lr: enlarge(network, lr), find_test_set(h5_path, 2))])
    assert scores["psnr_y"] == pytest.approx(best["psnr_y"], abs=1e-4)
    lines = [json.loads(line) for line in trainer.files.log.read_text().splitlines()]
    assert best["psnr_y"] == max(line["psnr_y"] for line in lines if "psnr_y" in line)


def test_without_validation_the_last_weights_are_kept(make):
    trainer = make(valid=False)
    trainer.fit()
    weights = load_checkpoint(trainer.files.best).weights
    assert_same(dict(weights), dict(trainer.ema.module.state_dict()))


def test_bf16_learns_too(make):
    trainer = make(replace(RECIPE, precision="bf16", max_steps=4))
    trainer.fit()
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in trainer.model.parameters())


def test_a_step_that_is_not_finite_is_skipped(make):
    trainer = make()
    before = {k: v.clone() for k, v in state_of(trainer).items()}
    hr = torch.zeros(4, 3, 24, 24, dtype=torch.uint8)
    with torch.no_grad():
        kept = trainer.model.head.bias[0].item()
        trainer.model.head.bias[0] = float("inf")
    _, applied = trainer.train_step(hr[..., ::2, ::2], hr)
    with torch.no_grad():
        trainer.model.head.bias[0] = kept
    assert not applied
    assert trainer.skipped == 1
    after = state_of(trainer)
    assert [
        k for k in before if "running" not in k and "num_batches" not in k and not torch.equal(before[k], after[k])
    ] == []


def test_too_many_in_a_row_stop_the_run(make, monkeypatch):
    monkeypatch.setattr(trainer_module, "MOST_SKIPPED_IN_A_ROW", 3)
    trainer = make()
    trainer.model.head.bias.data.fill_(float("nan"))
    with pytest.raises(HRNError, match="3 steps in a row without a finite gradient, up to step 3; lower --lr"):
        trainer.fit()


def test_resume_refuses_what_is_not_the_same_run(make):
    trainer = make()
    trainer.fit()
    with pytest.raises(HRNError, match="holds weights only"):
        trainer.resume(trainer.files.best)
    with pytest.raises(HRNError, match=r"was trained with --lr 0\.001; resume with the same"):
        make(replace(RECIPE, lr=1.0)).resume(trainer.files.state)
    with pytest.raises(HRNError, match="is of another network"):
        make(config=replace(SMALL, channels=16)).resume(trainer.files.state)
    longer = make(replace(RECIPE, max_steps=10))
    longer.resume(trainer.files.state)
    assert longer.step == 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "--batch_size must be at least 1"),
        ({"lr": -1.0}, "--lr and --clip must be positive"),
        ({"lr": math.nan}, "--lr and --clip must be positive"),
        ({"loss_fn": "L3"}, "--loss_fn must be one of L1, MSE, SmoothL1"),
        ({"ema": 1.0}, "--ema from 0 to below 1"),
    ],
)
def test_bad_recipes(values, message):
    with pytest.raises(HRNError, match=message):
        replace(RECIPE, **values)


def test_defaults_are_the_released_ones():
    r = Recipe()
    assert (r.patch_size, r.batch_size, r.max_steps, r.lr, r.decay, r.clip, r.loss_fn) == (
        48,
        10,
        500_000,
        1e-4,
        200_000,
        10.0,
        "L1",
    )


def test_duration():
    assert duration(3723) == "1:02:03"
    assert duration(90061) == "1d 1:01:01"


def test_unreadable_image_is_named(h5_path):
    """A truncated h5 file opens, and fails where the data is missing."""
    with h5py.File(h5_path, "a") as file:
        del file["HR/0"]
        file.create_dataset("HR/0", data=np.zeros((96, 120, 3), np.uint8), chunks=(96, 120, 3), compression="gzip")
        where = file["HR/0"].id.get_chunk_info(0)
    with h5_path.open("r+b") as raw:
        raw.seek(where.byte_offset)
        raw.write(b"\xff" * where.size)
    with pytest.raises(HRNError, match=r"carn\.h5: cannot read HR/0"):
        H5Pairs(h5_path, (2,)).read("HR", 0)
