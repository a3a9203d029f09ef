"""The training loop: losses, background writes, full disks, errors."""

import json
import math
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hrn.checkpoint import load_checkpoint, load_network
from hrn.data.benchmark import find_test_set
from hrn.errors import HRNError
from hrn.evaluation.evaluate import evaluate
from hrn.evaluation.metrics import mean_scores
from hrn.inference.enlarger import Enlarger
from hrn.training import trainer as trainer_module
from hrn.training.recipe import Execution
from hrn.training.run_files import load_state, read_log
from tests.training.conftest import MEASURED


def test_training_reduces_the_loss(make):
    """The fixture's LR is every second pixel, for which the initial bilinear interpolation is not optimal."""
    trainer = make(max_steps=60, lr=5e-3, valid_interval=60, ema=0.0)
    before = trainer.validate()["psnr_y"]
    trainer.fit()
    assert trainer.best["psnr_y"] > before + 0.5


@pytest.fixture
def background(monkeypatch):
    """Write states in a thread, as on a GPU. `background(before)` calls `before(path)` at the start of each write."""
    monkeypatch.setattr(trainer_module, "BACKGROUND_SAVES", ("cpu",))
    save = trainer_module.save_checkpoint

    def install(before):
        def save_after(path, *args, **more):
            before(path)
            save(path, *args, **more)

        monkeypatch.setattr(trainer_module, "save_checkpoint", save_after)

    return install


def test_states_written_in_the_background_are_the_same(make, same, background):
    """The state of step 3 is written after step 5."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module, "BACKGROUND_SAVES", ())
        straight = make("straight")
        straight.fit()
    reached = threading.Event()
    background(lambda path: ".train." in path.name and reached.wait(60))
    trainer = make("background")

    def progress(step):
        if step == 5:
            assert not trainer.files.states()
            reached.set()

    trainer.fit(progress)
    assert len(trainer.files.states()) == 3
    for one, other in zip(straight.files.states(), trainer.files.states(), strict=True):
        a, b = load_state(one), load_state(other)
        same(*({"weights": dict(state.weights), "training": dict(state.training)} for state in (a, b)))
    same(straight, trainer)


def test_background_writes_end_before_the_run_does(make, background):
    """Also if training fails meanwhile."""
    started = threading.Event()

    def slow(path):
        started.set()
        time.sleep(0.2)

    background(slow)
    trainer = make(valid=False)

    def progress(step):
        if step == 4:
            assert started.wait(60)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(progress)
    assert trainer.files.load_newest_state().training["step"] == 3
    assert not list(trainer.files.folder.glob(".*"))


def test_a_background_write_that_fails(make, background, caplog):
    def fail(error):
        def before(path):
            if ".00000003." in path.name:
                raise error

        return before

    background(fail(HRNError("No space left on device")))
    trainer = make(valid=False)
    trainer.fit()
    assert "No space left on device" in caplog.text
    assert [load_state(path).training["step"] for path in trainer.files.states()] == [8, 6]
    background(fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        make("other", valid=False).fit()


def test_several_scales_together(make, small):
    trainer = make(max_steps=6, config=replace(small, scales=(2, 3, 4)))
    trainer.fit()
    network = load_network(load_checkpoint(trainer.files.weights))
    assert network.config.scales == (2, 3, 4)
    assert any("loss_x3" in line for line in read_log(trainer.files.log))


def test_saved_weights_have_the_scores_in_the_log(make, h5_path):
    trainer = make()
    trainer.fit()
    checkpoint = load_checkpoint(trainer.files.weights)
    assert checkpoint.training is None
    best = checkpoint.info["validation"]
    network = load_network(checkpoint, scale=2)
    scores = mean_scores([r.scores for r in evaluate(Enlarger(network), find_test_set(h5_path, 2))])
    assert scores["psnr_y"] == pytest.approx(best["psnr_y"], abs=1e-4)
    assert best["psnr_y"] == max(line["psnr_y"] for line in read_log(trainer.files.log) if "psnr_y" in line)


def test_without_validation_the_last_weights_are_kept(make, same):
    trainer = make(valid=False)
    trainer.fit()
    same(dict(load_checkpoint(trainer.files.weights).weights), dict(trainer.learner.ema.module.state_dict()))


def test_non_finite_steps_are_counted_and_logged(make):
    trainer = make(valid=False)
    trainer.fit(lambda step: trainer.learner.network.head.bias.data.fill_(math.nan if step == 2 else 0.0))
    assert [line["skipped"] for line in read_log(trainer.files.log)] == [0, 1, 1, 1]
    assert all(torch.isfinite(p).all() for p in trainer.learner.network.parameters())
    assert all(torch.isfinite(b).all() for b in trainer.learner.network.buffers())


def test_too_many_skipped_steps_in_a_row_stop_the_run(make, monkeypatch):
    monkeypatch.setattr(trainer_module, "MAX_SKIPPED_IN_A_ROW", 3)
    trainer = make(valid=False)
    bad = trainer.learner.network.head.bias.data
    with pytest.raises(HRNError, match=r"3 steps .* step 7.*--lr"):
        trainer.fit(lambda step: bad.fill_(math.nan) if step == 4 else None)
    assert trainer.files.load_newest_state().training["step"] == 6


def test_training_continues_on_a_full_disk(make, tmp_path, caplog):
    """On a file system with room for two and a half states: logged, the older state intact, and the run completes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    state = make("probe", valid=False, max_steps=3)
    state.fit()
    size = state.files.states()[0].stat().st_size
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 5 // 2}", "tmpfs", disk]).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        trainer = make(folder=disk, valid=False, max_steps=12, save_interval=3)
        trainer.fit(lambda step: (disk / "ballast").unlink(missing_ok=True) if step == 10 else fill(disk, step == 5))
        assert caplog.text.count("No space left on device") == 2
        assert trainer.files.load_newest_state().training["step"] == 12
        assert not list(disk.glob(".*"))
        full = make("full", folder=disk, valid=False, max_steps=4, save_interval=3)
        with pytest.raises(HRNError, match=r"full\.00000004\.train\.pth"):
            full.fit(lambda step: fill(disk, step == 1))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path, now: bool) -> None:
    if now:
        with (disk / "ballast").open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(disk).free - 20_000)))


def test_best_score_is_kept_only_if_its_weights_were_written(make, monkeypatch, caplog):
    trainer = make()

    def fail(*args, **kwargs):
        raise HRNError("cannot write run.pth: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "save_checkpoint", fail)
        trainer.validate()
    assert trainer.best is None
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("step", [4, 8])
def test_a_validation_that_fails_is_repeated_by_a_resumed_run(make, same, monkeypatch, step):
    """The state of that step is saved before the run ends with an error."""
    straight, trainer = make("straight"), make()
    straight.fit()

    def fail(*args, **more):
        if trainer.step == step:
            raise HRNError("an image cannot be read")
        return validate(*args, **more)

    validate = trainer_module.validate
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "validate", fail)
        with pytest.raises(HRNError, match="cannot be read"):
            trainer.fit()
    resumed = make()
    resumed.resume(resumed.files.load_newest_state())
    assert resumed.step == step
    resumed.fit()
    same(straight, resumed)
    assert read_log(resumed.files.log)[-1]["step"] == 8


def test_resuming_without_the_best_weights(make, caplog):
    """They were moved, or the state is continued under another name."""
    make(max_steps=4, valid_interval=2).fit()
    resumed = make(valid_interval=8)
    state = resumed.files.load_newest_state()
    resumed.files.weights.unlink()
    resumed.resume(state)
    assert resumed.best is None
    assert "run.pth is missing" in caplog.text
    resumed.fit()
    assert load_checkpoint(resumed.files.weights).info["steps"] == 8


def test_the_last_weights_that_cannot_be_written_are_an_error(make, monkeypatch):
    """The resumed run validates again and writes them."""
    trainer, save = make(valid_interval=8), trainer_module.save_checkpoint

    def fail(path, *args, **more):
        if path == trainer.files.weights:
            raise HRNError("cannot write run.pth: No space left on device")
        save(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "save_checkpoint", fail)
        with pytest.raises(HRNError, match=r"run\.pth"):
            trainer.fit()
    resumed = make(valid_interval=8)
    resumed.resume(resumed.files.load_newest_state())
    assert resumed.fit() == 0
    assert load_checkpoint(resumed.files.weights).info["validation"] == resumed.best


def test_channels_are_permuted_if_the_recipe_says_so(make):
    plain, permuted = make().data.patches, make(permute_channels=True).data.patches
    assert {plain.choice_of(i).channels for i in range(8)} == {(0, 1, 2)}
    assert len({permuted.choice_of(i).channels for i in range(8)}) > 1


def test_workers_load_the_same_patches(make):
    alone, helped = make(), make(execution=Execution(workers=2))
    for one, other in zip(alone.data.batches(0), helped.data.batches(0), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["PatchDataset.__getitem__", "Learner.step"])
@pytest.mark.parametrize("work", ["trainer.fit()", "measure_cost(trainer)"])
def test_an_error_kills_the_data_loader_workers(root, h5_path, tmp_path, failing, work):
    """They ignore signals. They must neither outlive the run or the dry run, nor hide the error."""
    script = tmp_path / "fail.py"
    script.write_text(
        "import sys\n"
        f"sys.path[0] = {str(root / 'tests/training')!r}\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        "from pathlib import Path\n"
        "from conftest import RECIPE, SMALL\n"
        "from hrn.data.h5 import H5Pairs\n"
        "from hrn.data.patches import PatchDataset\n"
        "from hrn.training.run_files import RunFiles\n"
        "from hrn.training.learner import Learner\n"
        "from hrn.training.dry_run import measure_cost\n"
        "from hrn.training.recipe import Execution\n"
        "from hrn.training.trainer import Trainer\n"
        "def fail(self, *inputs):\n"
        "    raise OSError('the disk is gone')\n"
        f"{failing} = fail\n"
        "if __name__ == '__main__':\n"
        f"    files = RunFiles(Path({str(tmp_path)!r}), 'run')\n"
        f"    trainer = Trainer(SMALL, RECIPE, H5Pairs({str(h5_path)!r}, (2,)), [], files, Execution(workers=2))\n"
        f"    {work}\n"
    )
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "the disk is gone" in result.stderr.strip().splitlines()[-1]


def test_the_log_is_json(make):
    trainer = make(valid=False)
    trainer.fit()
    lines = [json.loads(line) for line in trainer.files.log.read_text().splitlines()]
    assert set(lines[0]) == {"step", "loss", "grad_norm", "skipped", "lr", *MEASURED}
    assert [line["lr"] for line in lines] == [trainer.recipe.lr_at(line["step"] - 1) for line in lines]
