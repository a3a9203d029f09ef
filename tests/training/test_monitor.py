import numpy as np
import pytest
import torch

from hrn.errors import HRNError
from hrn.training import monitor
from hrn.training.learner import Learner
from hrn.training.monitor import StepTimer, TensorBoard, format_duration, log_line
from hrn.training.run_files import read_log


def test_duration():
    assert format_duration(3723) == "1:02:03"
    assert format_duration(90061) == "1d 1:01:01"


def test_screen_line():
    line = {"step": 2000, "loss": 0.04321, "lr": 1e-4, "images_per_second": 80.0, "seconds_left": 60, "skipped": 3}
    assert (
        log_line(line, 10_000) == "step 2,000/10,000  loss 0.04321  lr 1.00e-04  80.0 images/s  0:01:00 left  3 skipped"
    )
    assert log_line({"step": 1, "psnr_y": 27.0, "ssim_y": 0.76}, 2) == "step 1/2  PSNR-Y 27.000 dB  SSIM-Y 0.7600"


def test_tensorboard_holds_curves_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path, 0)
    for step in (1, 2, 3):
        board.add_scalars({"step": step, "loss": 1 / step, "psnr_y": None})
        board.add_image("valid/0", np.full((600, 20, 3), 128, np.uint8), step)
    board.close()
    resumed = TensorBoard(tmp_path, 2)  # drops the events after step 2
    resumed.add_scalars({"step": 3, "loss": 9.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 9.0)]
    assert [(e.step, e.width, e.height) for e in events.Images("valid/0")] == [(1, 20, 512), (2, 20, 512)]
    assert events.Tags()["scalars"] == ["loss"]


def test_training_continues_if_events_cannot_be_written(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    board = TensorBoard(tmp_path / "a", 0)
    monkeypatch.setattr(SummaryWriter, "flush", full)
    for step in (1, 2):
        board.add_scalars({"step": step, "loss": 1.0})
        board.add_image("valid/0", np.zeros((9, 9, 3), np.uint8), step)
    board.close()
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(HRNError, match="--tensorboard"):
        TensorBoard(tmp_path / "file/b", 0)


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is set."""
    now = [0.0]
    monkeypatch.setattr(monitor.time, "perf_counter", lambda: now[0])
    return now


def steps(timer, clock, scale, *seconds):
    for each in seconds:
        clock[0] += each
        timer.step(scale)


def test_speed_leaves_out_warm_up_and_pauses(clock):
    """The first three steps at each scale compile."""
    timer = StepTimer(torch.device("cpu"))
    steps(timer, clock, 2, 100, 20, 20, 1, 1)
    clock[0] += 50  # a validation
    timer.skip()
    steps(timer, clock, 3, 100, 20, 20, 3)
    steps(timer, clock, 2, 3)
    assert timer.seconds_per_step() == 2
    steps(timer, clock, 2, 5)
    assert timer.seconds_per_step() == 5


def test_speed_if_all_steps_were_warm_up(clock):
    timer = StepTimer(torch.device("cpu"))
    steps(timer, clock, 2, 3, 5)
    assert timer.seconds_per_step() == 4


def test_the_wait_for_the_gpu_is_part_of_a_step(make, clock, monkeypatch):
    """Steps are only queued; the check for skipped steps waits for them."""
    skipped = Learner.skipped_in_a_row

    def wait(self):
        clock[0] += 2
        return skipped(self)

    monkeypatch.setattr(Learner, "skipped_in_a_row", wait)
    trainer = make(valid=False, print_interval=4)
    trainer.fit()
    assert [trainer.recipe.batch_size / line["images_per_second"] for line in read_log(trainer.files.log)] == [2, 2]


def test_the_first_log_line_leaves_out_compilation(make, clock, monkeypatch):
    """The first three steps take 0.3 seconds, the others 0.01."""
    step, taken = Learner.step, []

    def slow(self, parts, lr):
        taken.append(lr)
        clock[0] += 0.3 if len(taken) <= 3 else 0.01
        step(self, parts, lr)

    monkeypatch.setattr(Learner, "step", slow)
    trainer = make(valid=False, print_interval=8)
    trainer.fit()
    (line,) = read_log(trainer.files.log)
    assert trainer.recipe.batch_size / line["images_per_second"] == pytest.approx(0.01)
