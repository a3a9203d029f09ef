import numpy as np
import pytest

from hrn.training.monitor import TensorBoard, duration, log_line


def test_duration():
    assert duration(3723) == "1:02:03"
    assert duration(90061) == "1d 1:01:01"


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
        board.line({"step": step, "loss": 1 / step, "psnr_y": None})
        board.picture("valid/0", np.full((600, 20, 3), 128, np.uint8), step)
    board.close()
    resumed = TensorBoard(tmp_path, 2)  # events after step 2 are of a run that was stopped
    resumed.line({"step": 3, "loss": 9.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 9.0)]
    assert [(e.step, e.width, e.height) for e in events.Images("valid/0")] == [(1, 20, 512), (2, 20, 512)]
    assert events.Tags()["scalars"] == ["loss"]
