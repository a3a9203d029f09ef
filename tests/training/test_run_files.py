import errno
import json
import logging

import pytest
import torch

from hrn.errors import HRNError, UnreadableError
from hrn.training.recipe import Execution
from hrn.training.run_files import JsonLines, RunFiles, read_log, step_of


@pytest.fixture
def files(tmp_path):
    return RunFiles(tmp_path, "run_x2")


def write(text):
    return lambda path: path.write_text(text)


def test_newest_states_are_kept(files):
    for step in (3, 20, 100, 12_345_678, 123_456_789):
        files.save_state(step, 3, write("x"))
    assert [p.name.split(".")[1] for p in files.states()] == ["123456789", "12345678", "00000100"]


def test_states_of_other_runs_are_left_alone(files, tmp_path):
    (tmp_path / "run_x2_more.00000009.train.pth").touch()
    (tmp_path / "run_x2.old.train.pth").touch()
    files.save_state(1, 1, write("x"))
    assert [p.name for p in files.states()] == ["run_x2.00000001.train.pth"]
    files.delete_old_states(0)
    assert len(list(tmp_path.iterdir())) == 2


def test_on_a_full_disk_old_states_are_deleted(files):
    """The simulated disk has room for two files."""

    def save(path):
        if len(files.states()) >= 2:
            raise HRNError("disk full") from OSError(errno.ENOSPC, "disk full")
        path.write_text("x")

    for step in (1, 2, 3, 4):
        files.save_state(step, 3, save)
    assert [p.name.split(".")[1] for p in files.states()] == ["00000004", "00000003"]


def test_the_newest_state_is_never_deleted(files):
    files.save_state(1, 3, write("x"))

    def fail(path):
        raise HRNError("disk full")

    with pytest.raises(HRNError, match="disk full"):
        files.save_state(2, 3, fail)
    assert [p.read_text() for p in files.states()] == ["x"]


def test_after_another_error_all_states_are_kept(files):
    for step in (1, 2, 3):
        files.save_state(step, 3, write("x"))

    def fail(path):
        raise HRNError("stale") from OSError(errno.ESTALE, "stale")

    with pytest.raises(HRNError, match="stale"):
        files.save_state(4, 3, fail)
    assert len(files.states()) == 3


def test_resume_skips_damaged_states(make, caplog):
    trainer = make()
    trainer.fit()
    newest, older = trainer.files.states()[:2]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert trainer.files.load_newest_state().training["step"] == 6
    assert newest.name in caplog.text
    older.write_bytes(b"")
    for path in trainer.files.states()[2:]:
        path.unlink()
    with pytest.raises(HRNError, match=r"run\.0+8\.train\.pth, run\.0+6\.train\.pth"):
        trainer.files.load_newest_state()


def test_a_resumed_run_deletes_later_damaged_states(make):
    """Otherwise they would count as the newest ones, and good states would be deleted in their place."""
    trainer = make()
    trainer.fit()
    damaged = trainer.files.states()[0]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    resumed = make(max_steps=7, execution=Execution(keep=1))
    resumed.resume(resumed.files.load_newest_state())
    assert resumed.step == 6
    resumed.fit()
    assert [step_of(path) for path in resumed.files.states()] == [7]
    assert resumed.files.load_newest_state().training["step"] == 7


def test_a_state_that_cannot_be_read_now_is_kept(make, monkeypatch):
    def denied(path, **kwargs):
        raise PermissionError(13, "Permission denied")

    trainer = make()
    trainer.fit()
    states = trainer.files.states()
    monkeypatch.setattr(torch, "load", denied)
    with pytest.raises(UnreadableError, match="Permission denied"):
        trainer.files.load_newest_state()
    assert trainer.files.states() == states


def test_a_state_of_another_version_is_kept(make):
    trainer = make()
    trainer.fit()
    states = trainer.files.states()
    contents = torch.load(states[0], weights_only=True)
    del contents["training"]["learner"]
    torch.save(contents, states[0])
    with pytest.raises(UnreadableError, match="another version"):
        trainer.files.load_newest_state()
    assert trainer.files.states() == states


def test_log_lines_wait_for_space(tmp_path, monkeypatch, caplog):
    log = JsonLines(tmp_path / "log.jsonl")
    log.add({"step": 1})
    opened = type(log.path).open

    class Full:
        """A file that takes half a line."""

        def __init__(self, path):
            self.file = opened(path, "a")

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.file.close()

        def write(self, text):
            self.file.write(text[: len(text) // 2])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(
            type(log.path), "open", lambda p, mode="r", **kw: Full(p) if mode == "a" else opened(p, mode, **kw)
        )
        log.add({"step": 2})
    assert "No space left" in caplog.text
    assert log.path.read_text() == '{"step": 1}\n'
    log.add({"step": 3})
    assert [line["step"] for line in read_log(log.path)] == [1, 2, 3]


def test_cut_removes_later_log_lines(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    log.cut(5)
    assert not log.path.exists()
    for step in range(1, 6):
        log.add({"step": step, "loss": 1 / step})
    with log.path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    log.cut(3)
    assert [json.loads(line)["loss"] for line in log.path.read_text().splitlines()] == [1, 1 / 2, 1 / 3]


def test_other_files_are_not_logs(tmp_path):
    with pytest.raises(HRNError, match=r"none\.jsonl"):
        read_log(tmp_path / "none.jsonl")
    (tmp_path / "x.jsonl").write_text('{"step": 1}\n[]\n')
    with pytest.raises(HRNError, match="line 2"):
        read_log(tmp_path / "x.jsonl")


def test_success_is_not_logged(files, caplog):
    with caplog.at_level(logging.WARNING):
        JsonLines(files.log).add({"step": 1})
    assert caplog.text == ""


def test_a_link_to_a_state_elsewhere_belongs_to_the_run(files, tmp_path):
    (tmp_path / "scratch").mkdir()
    state = tmp_path / "scratch/a.pth"
    state.touch()
    files.state_path(3).symlink_to(state)
    assert files.owns(files.state_path(3))
    assert not files.owns(state)


def test_weights_that_were_set_aside_are_of_an_earlier_run(files, tmp_path):
    files.weights.write_text("weights")
    assert files.set_aside(7) == tmp_path / "run_x2.00000007.pth"
    assert files.set_aside(7).read_text() == "weights"
    assert files.set_aside(8) is None
    with pytest.raises(HRNError, match="00000007"):
        files.check_unused()
