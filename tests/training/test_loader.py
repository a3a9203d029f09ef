import collections
from dataclasses import replace

import pytest
import torch

from hrn.errors import HRNError
from hrn.training import loader
from hrn.training.loader import PREFETCH, check_shared_memory, decide_data_on_gpu, worker_count
from hrn.training.recipe import Execution


def test_worker_count():
    assert [worker_count(-1, torch.device(d)) for d in ("cpu", "cuda")] == [0, 4]
    assert worker_count(3, torch.device("cpu")) == 3


@pytest.fixture
def room(monkeypatch, tmp_path):
    """Set the free bytes of /dev/shm."""

    def give(free):
        usage = collections.namedtuple("usage", "total used free")(2**26, 2**26 - free, free)
        monkeypatch.setattr(loader, "SHARED_MEMORY", tmp_path)
        monkeypatch.setattr(loader.shutil, "disk_usage", lambda path: usage)

    return give


def test_shared_memory(room):
    """Docker's default of 64 MiB holds one process at batch 32, but not four."""
    batch = {"workers": 4, "micro_batch_size": 32, "patch_size": 48, "scale": 4}
    room(2**26)
    check_shared_memory(**batch, processes=1)
    with pytest.raises(HRNError, match=r"--workers 4 .* --shm-size"):
        check_shared_memory(**batch, processes=4)
    check_shared_memory(**{**batch, "workers": 0}, processes=4)
    needed = (4 * PREFETCH + 1) * 32 * 3 * 48**2 * 17
    room(needed - 1)
    with pytest.raises(HRNError):
        check_shared_memory(**batch, processes=1)
    room(needed)
    check_shared_memory(**batch, processes=1)


def test_the_trainer_checks_shared_memory(make, room):
    room(1000)
    make()  # loads in its own process
    with pytest.raises(HRNError, match="--workers 2"):
        make(execution=Execution(workers=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_an_error_without_a_traceback(make, h5_path, workers):
    trainer = make(valid=False, execution=Execution(workers=workers))
    h5_path.write_bytes(b"")
    with pytest.raises(HRNError) as raised:
        next(trainer.data.batches(0))
    message = str(raised.value)
    assert message.startswith(f"{h5_path}: cannot read")
    assert "\n" not in message


def test_where_the_training_images_are_kept(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(loader, "free_memory", lambda device: 1000)
    assert [decide_data_on_gpu(None, cuda, needed) for needed in (200, 201)] == [True, False]
    assert not decide_data_on_gpu(None, cpu, 1)
    assert not decide_data_on_gpu(False, cuda, 1)
    for device in (cpu, cuda):
        assert decide_data_on_gpu(True, device, 1000)
        with pytest.raises(HRNError, match="--no-data_on_gpu"):
            decide_data_on_gpu(True, device, 1001)


@pytest.mark.parametrize("scales", [(2,), (2, 3, 4)])
def test_resident_images_give_the_same_batches(make, small, room, scales):
    room(1000)  # workers would not fit
    config = replace(small, scales=scales)
    loaded = make(config=config, execution=Execution(accumulate=2))
    resident = make(config=config, execution=Execution(accumulate=2, data_on_gpu=True, workers=4))
    for step in (0, 5):
        steps = list(zip(loaded.data.batches(step), resident.data.batches(step), strict=True))
        assert len(steps) == 8 - step
        for one, other in steps:
            assert len(one) == len(other) == 2
            assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
