"""The measured cost of a run."""

import time
from dataclasses import replace

from hrn.data.patches import PatchDataset
from hrn.training.dry_run import measure_cost
from hrn.training.monitor import WARMUP_STEPS


def test_every_scale_is_warmed_up(make, small, monkeypatch):
    """Before the first measured step, as compiling takes minutes at each scale."""
    trainer, scales = make(config=replace(small, scales=(2, 3, 4)), valid=False), []
    step = trainer.learner.step

    def record(parts, lr):
        scales.append(parts[0][1].shape[-1] // parts[0][0].shape[-1])
        step(parts, lr)

    monkeypatch.setattr(trainer.learner, "step", record)
    cost = measure_cost(trainer, steps=2)
    assert scales[: 3 * WARMUP_STEPS] == [s for s in (2, 3, 4) for _ in range(WARMUP_STEPS)]
    assert len(scales) == 4 * WARMUP_STEPS + 2
    assert cost.step_seconds > cost.load_seconds > 0


def test_the_wait_for_data_is_counted(make, monkeypatch):
    load = PatchDataset.__getitem__

    def load_slowly(patches, index):
        time.sleep(0.02)  # for each of the 4 patches of a step
        return load(patches, index)

    monkeypatch.setattr(PatchDataset, "__getitem__", load_slowly)
    cost = measure_cost(make(valid=False), steps=2)
    assert cost.step_seconds > cost.load_seconds >= 0.08
