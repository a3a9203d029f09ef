"""Stopped, killed and resumed training runs."""

import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch

from hrn.checkpoint import load_checkpoint, save_checkpoint
from hrn.data.h5 import H5Pairs
from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger
from hrn.training.recipe import Execution
from hrn.training.run_files import RunFiles, load_state
from hrn.training.signals import StopSignal
from hrn.training.trainer import Trainer
from tests.training.conftest import log_of


def stop_at(step, error=KeyboardInterrupt):
    def progress(now):
        if now == step:
            raise error

    return progress


@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"freeze_norm": True}])
def test_a_resumed_run_is_the_same_run(make, same, changes):
    """Bit for bit: weights, EMA, optimizer, random state, best result and log."""
    make = partial(make, **changes)
    straight = make("straight")
    straight.fit()
    stopped = make("stopped")
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(stop_at(7))
    torch.rand(5)  # changes the state of the global generator
    resumed = make("stopped")
    resumed.resume(resumed.files.load_newest_state())
    assert resumed.step == 6  # the last multiple of save_interval
    resumed.fit()
    same(straight, resumed)
    assert [line["step"] for line in log_of(resumed.files)] == [2, 4, 6, 8]
    assert log_of(straight.files) == log_of(resumed.files)
    same(dict(load_checkpoint(straight.files.weights).weights), dict(load_checkpoint(resumed.files.weights).weights))


def test_a_longer_run_without_validation_replaces_the_weights(make):
    """Even if it was killed between the last state and the weights."""
    make(valid=False, max_steps=4).fit()
    longer = make(valid=False)
    weights = longer.files.weights.read_bytes()
    longer.resume(longer.files.load_newest_state())
    longer.fit()
    longer.files.weights.write_bytes(weights)  # as after a kill
    again = make(valid=False)
    again.resume(again.files.load_newest_state())
    again.fit()
    assert load_checkpoint(again.files.weights).info["steps"] == 8


def test_best_weights_of_a_finished_run_are_kept(make):
    """Even if it is resumed without its validation images."""
    trainer = make()
    trainer.fit()
    weights = trainer.files.weights.read_bytes()
    again = make(valid=False)
    again.resume(again.files.load_newest_state())
    again.fit()
    assert again.files.weights.read_bytes() == weights


def _train_until_killed(h5_path, folder, recipe, config, reached):
    torch.set_num_threads(1)
    files = RunFiles(folder, "run")
    trainer = Trainer(config, recipe, H5Pairs(h5_path, (2,)), [], files)
    if files.states():
        trainer.resume(files.load_newest_state())
    trainer.fit(lambda step: setattr(reached, "value", step))


@pytest.mark.slow
def test_killed_at_twenty_random_moments(h5_path, tmp_path, make, small, recipe, same):
    """SIGKILL while computing and while saving: a readable state, at most one interval lost, and the same final result."""
    changes = {"max_steps": 400, "save_interval": 2, "print_interval": 5, "schedule": "step", "decay": 100}
    recipe = replace(recipe, **changes)
    folder = tmp_path / "killed"
    folder.mkdir()
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["hrn.training.trainer"])
    files, moments = RunFiles(folder, "run"), random.Random(0)
    in_a_save = 0
    for moment in range(20):
        reached = spawn.Value("q", 0, lock=False)  # a kill must not leave it locked
        child = spawn.Process(target=_train_until_killed, args=(h5_path, folder, recipe, small, reached))
        before = len(files.states()) and load_state(files.states()[0]).training["step"]
        child.start()
        deadline = time.monotonic() + 60
        while reached.value <= before and time.monotonic() < deadline and child.is_alive():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.15))
        while moment % 2 and child.is_alive() and not list(folder.glob(".*.part")):
            pass  # every second time inside a save
        child.kill()
        child.join()
        in_a_save += bool(list(folder.glob(".*.part")))
        saved = files.load_newest_state().training["step"] if files.states() else 0
        assert saved >= reached.value - recipe.save_interval
    assert in_a_save
    killed, straight = make(folder=folder, valid=False, **changes), make("straight", valid=False, **changes)
    torch.set_num_threads(1)
    killed.resume(files.load_newest_state())
    for trainer in (killed, straight):
        trainer.fit()
    assert not list(folder.glob(".*"))  # what the kills left
    same(straight, killed)
    assert log_of(straight.files) == log_of(killed.files)


def test_a_validation_interrupted_by_a_stop_is_done_by_the_resumed_run(make, same, monkeypatch):
    straight = make("straight")
    straight.fit()
    stopped, seen = make("stopped"), []

    enlarge = Enlarger.__call__

    def enlarge_and_stop(*args):
        seen.append(args)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return enlarge(*args)

    with monkeypatch.context() as patch:
        patch.setattr(Enlarger, "__call__", enlarge_and_stop)
        assert stopped.fit() == signal.SIGTERM
    assert len(seen) == 3
    assert [line["step"] for line in log_of(stopped.files)] == [2]
    resumed = make("stopped")
    resumed.resume(resumed.files.load_newest_state())
    assert (resumed.step, resumed.pending_validation["step"]) == (4, 4)
    assert resumed.fit() == 0
    same(straight, resumed)
    assert log_of(straight.files) == log_of(resumed.files)


@pytest.mark.parametrize("valid", [True, False])
def test_a_finished_run_writes_its_missing_weights(make, valid):
    """The run may have been killed between its last state and its weights, or the weights were moved."""
    make(valid=valid).fit()
    trainer = make(valid=valid)
    whole, log = trainer.files.weights.read_bytes(), trainer.files.log.read_text()
    trainer.files.weights.unlink()
    trainer.resume(trainer.files.load_newest_state())
    assert trainer.fit() == 0
    if not valid:  # with validation, an earlier step may have been the best
        assert trainer.files.weights.read_bytes() == whole
    assert load_checkpoint(trainer.files.weights).info["steps"] == 8
    assert (trainer.best is not None) == valid
    assert trainer.files.log.read_text() == log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(make, number, same):
    straight = make("straight", print_interval=3)
    straight.fit()
    stopped, handlers = make("stopped", print_interval=3), [signal.getsignal(n) for n in StopSignal.SIGNALS]
    assert stopped.fit(lambda step: os.kill(os.getpid(), number) if step == 5 else None) == number
    assert [signal.getsignal(n) for n in StopSignal.SIGNALS] == handlers
    resumed = make("stopped", print_interval=3)
    resumed.resume(resumed.files.load_newest_state())
    assert resumed.step == 5
    assert resumed.fit() == 0
    same(straight, resumed)
    assert log_of(straight.files) == log_of(resumed.files)


def test_resume_refuses_another_run(make, small):
    trainer = make()
    trainer.fit()
    state = trainer.files.load_newest_state()
    with pytest.raises(HRNError, match="--init_from"):
        load_state(trainer.files.weights)
    with pytest.raises(HRNError, match=r"--lr 0\.001"):
        make(lr=1.0).resume(state)
    with pytest.raises(HRNError, match="channels"):
        make(config=replace(small, channels=16)).resume(state)
    longer = make(max_steps=10, execution=Execution(keep=1, accumulate=1))
    longer.resume(state)
    assert longer.step == 8


def test_a_renamed_training_file_is_the_same(make):
    trainer = make(max_steps=3)
    trainer.info |= {"train_data": "a.h5", "train_fingerprint": "a"}
    trainer.fit()
    renamed, other = make(), make()
    renamed.info |= {"train_data": "b.h5", "train_fingerprint": "a"}
    renamed.resume(trainer.files.load_newest_state())
    assert renamed.step == 3
    other.info |= {"train_data": "a.h5", "train_fingerprint": "b"}
    with pytest.raises(HRNError, match=r"--train_data_path a\.h5.*other images"):
        other.resume(trainer.files.load_newest_state())
    assert other.step == 0


def test_an_image_that_cannot_be_read_costs_no_steps(make, monkeypatch):
    trainer = make(save_interval=100)
    batches = trainer.data.batches

    def damaged(step):
        yield from islice(batches(step), 5)
        raise HRNError("damaged")

    monkeypatch.setattr(trainer.data, "batches", damaged)
    with pytest.raises(HRNError, match="damaged"):
        trainer.fit()
    assert trainer.files.load_newest_state().training["step"] == 5


@pytest.mark.parametrize(
    ("changed", "value"),
    [("valid_data", ["b.h5"]), ("valid_images", [1]), ("valid_fingerprints", ["b"]), ("shave", [5])],
    ids=lambda value: str(value),
)
def test_another_validation_setup_resets_the_best_score(make, caplog, changed, value):
    """The weights of the earlier best score are kept under another name. Earlier versions stored no fingerprints."""
    trainer = make(max_steps=4)
    known = {"valid_data": ["a.h5"]} | ({"valid_fingerprints": ["a"]} if changed == "valid_fingerprints" else {})
    trainer.info |= known
    trainer.fit()
    state = trainer.files.load_newest_state()
    assert (state.info["shave"], state.training["best"]) == ([2], trainer.best)
    resumed = make(shave=5 if changed == "shave" else None)
    resumed.info |= {**known, changed: value}
    resumed.resume(state)
    assert resumed.best is None
    assert [name for name in (*known, "valid_images", "shave") if name in caplog.text] == [changed]
    weights = resumed.files.weights.read_bytes()
    resumed.fit()
    assert (resumed.files.folder / "run.00000004.pth").read_bytes() == weights
    assert load_checkpoint(resumed.files.weights).info["validation"] == resumed.best


def test_a_finished_run_is_scored_again_with_another_validation_setup(make):
    """Once: the new score is stored."""
    make().fit()
    changed = make(shave=5)
    best = load_state(changed.files.states()[0]).training["best"]["step"]
    for attempt in range(2):
        changed = make(shave=5)
        changed.resume(changed.files.load_newest_state())
        assert (changed.best is None) == (attempt == 0)
        changed.fit()
    assert (changed.files.folder / f"run.{best:08d}.pth").exists()


def test_renamed_validation_sets_in_another_order_keep_the_best_score(make):
    trainer = make(max_steps=4)
    trainer.info |= {"valid_data": ["a.h5", "b.h5"], "valid_fingerprints": ["a", "b"], "valid_images": [1, 2]}
    trainer.fit()
    resumed = make()
    resumed.info |= {"valid_data": ["c.h5", "a.h5"], "valid_fingerprints": ["b", "a"], "valid_images": [2, 1]}
    resumed.resume(trainer.files.load_newest_state())
    assert resumed.best == trainer.best


def test_without_batch_norm_a_run_may_continue_with_smaller_micro_batches(make, small):
    """There are no groups to keep."""
    config = replace(small, norm=False)
    trainer = make(config=config, max_steps=4)
    assert trainer.recipe.norm_batch == 0
    trainer.fit()
    state = trainer.files.load_newest_state()
    resumed = make(config=config, max_steps=6, execution=Execution(accumulate=2))
    resumed.resume(state)
    assert resumed.fit() == 0
    assert resumed.step == 6


def test_a_state_without_the_names_of_its_data_is_resumed(make):
    """And a shave that was the scale by default equals the same number as a flag."""
    trainer = make(max_steps=4)
    trainer.fit()
    state = trainer.files.load_newest_state()
    older = replace(state, info={k: v for k, v in state.info.items() if k != "shave"})
    for known in (older, state):
        resumed = make(shave=2)
        resumed.info |= {"train_data": "a.h5", "valid_data": ["a.h5"]}
        resumed.resume(known)
        assert resumed.best == trainer.best


def test_a_state_that_lacks_what_a_resume_needs(make):
    trainer = make(max_steps=4)
    trainer.fit()
    state = trainer.files.load_newest_state()
    save_checkpoint(state.path, state.config, state.weights, info={}, training={"learner": {}})
    with pytest.raises(HRNError, match="best, pending_validation, recipe, step"):
        load_state(state.path)


def test_a_state_of_a_recipe_without_newer_fields_is_resumed(make, same):
    straight = make("straight")
    straight.fit()
    stopped = make("stopped")
    assert stopped.fit(lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 4 else None) == signal.SIGTERM
    state = load_checkpoint(stopped.files.states()[0])
    training = dict(state.training)
    training["recipe"] = {k: v for k, v in training["recipe"].items() if k != "adam_lr_ratio"}
    training["execution"] = {**training["execution"], "compile": False}
    save_checkpoint(state.path, state.config, state.weights, info=state.info, training=training)
    resumed = make("stopped")
    resumed.resume(resumed.files.load_newest_state())
    assert resumed.fit() == 0
    same(straight, resumed)
    assert log_of(straight.files) == log_of(resumed.files)
