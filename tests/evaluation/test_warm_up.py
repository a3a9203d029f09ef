import h5py
import numpy as np
import pytest
import torch

from hrn.data.benchmark import find_test_set
from hrn.evaluation.score_sets import warm_up
from hrn.inference.enlarger import Enlarger


@pytest.mark.parametrize(("device", "expected"), [("cuda", [(24, 30), (30, 24)]), ("cpu", [])])
def test_a_gpu_enlarges_each_size_once_before_its_time_is_measured(tmp_path, device, expected):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i, (h, w) in enumerate([(24, 30), (30, 24), (24, 30)]):
            file[f"HR/{i}"] = np.zeros((2 * h, 2 * w, 3), np.uint8)
            file[f"X2/{i}"] = np.zeros((h, w, 3), np.uint8)
    sizes = []

    class Recorder(Enlarger):
        def __init__(self):
            self.device = torch.device(device)

        def __call__(self, lr):
            sizes.append(lr.shape[:2])

    warm_up(Recorder(), find_test_set(tmp_path / "a.h5", 2))
    warm_up(None, find_test_set(tmp_path / "a.h5", 2))
    assert sizes == expected
