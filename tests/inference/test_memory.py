import subprocess
import sys

import numpy as np
import pytest
import torch

from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger, Mode
from hrn.inference.memory import bytes_per_pixel, free_memory, is_out_of_memory, parse_memory
from hrn.model import build_model, preset


@pytest.mark.parametrize(
    ("text", "size"), [("2G", 2**31), ("1.5GB", 3 * 2**29), ("800 MiB", 800 * 2**20), ("123", 123), ("1k", 1024)]
)
def test_sizes_as_people_write_them(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "2X", "G"])
def test_what_is_no_size(text):
    with pytest.raises(HRNError, match="memory must be given as 2G"):
        parse_memory(text)


def test_free_memory_is_what_the_machine_can_have():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 2**20 < free_memory(torch.device("cpu")) < total


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, ...)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_only_that_error(error, out):
    assert is_out_of_memory(error) is out


def test_the_error_of_torch_itself():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("room", [64 * 64, 57 * 57])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), MemoryError()])
def test_tiles_are_halved_until_they_fit(rng, repeat, room, error):
    lr = rng.integers(0, 256, (130, 100, 3), dtype=np.uint8)
    network = repeat(room=room, error=error)
    assert (Enlarger(network, mode=Mode("full"))(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert max(h * w for _, _, h, w in network.shapes) <= room


def test_batches_are_halved_first(rng, repeat):
    lr = rng.integers(0, 256, (32, 200, 3), dtype=np.uint8)
    network = repeat(room=3 * 32 * 32, error=MemoryError())
    assert (Enlarger(network, mode=Mode("windows", 32, 8))(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert all(shape[2:] == (32, 32) for shape in network.shapes)


def test_other_errors_pass(repeat):
    with pytest.raises(RuntimeError, match="mismatch"):
        Enlarger(repeat(room=1, error=RuntimeError("mismatch")), mode=Mode("full"))(np.zeros((9, 9, 3), np.uint8))


def test_no_memory_at_all_is_an_error_in_words(repeat):
    with pytest.raises(HRNError, match="not enough memory for a tile of 48 pixels"):
        Enlarger(repeat(room=1, error=MemoryError()), mode=Mode("full"))(np.zeros((90, 90, 3), np.uint8))
    with pytest.raises(HRNError, match="not enough memory for a window of 48 pixels"):
        Enlarger(repeat(), mode=Mode("windows"), max_memory=10_000)(np.zeros((90, 90, 3), np.uint8))
    with pytest.raises(HRNError, match="not enough memory for a tile"):
        Enlarger(repeat(), mode=Mode("full"), max_memory=10_000)(np.zeros((90, 90, 3), np.uint8))


def test_a_budget_makes_tiles_smaller(rng, repeat):
    lr = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    network = repeat()
    budget = 150 * 150 * bytes_per_pixel(network, 2)
    assert (Enlarger(network, mode=Mode("full"), max_memory=budget)(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert 64 * 64 < max(h * w for _, _, h, w in network.shapes) < 150 * 150


MEASURE = """
import sys, torch
from hrn.model import build_model, preset
name, side = sys.argv[1], int(sys.argv[2])
scale = 2
network = build_model(preset(name, [scale])).eval().to(memory_format=torch.channels_last)
def peak():
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM:')) * 1024
with torch.inference_mode():
    network(torch.rand(1, 3, 64, 64), scale)
    before = peak()
    network(torch.rand(1, 3, side, side), scale)
print((peak() - before) / side**2)
"""


@pytest.mark.parametrize(("name", "side"), [("hrn_light", 512), ("hrn", 192)])
def test_what_a_pixel_needs(name, side):
    command = [sys.executable, "-c", MEASURE, name, str(side)]
    measured = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    told = bytes_per_pixel(build_model(preset(name, [2])), 2)
    assert told / 3 < measured < 1.1 * told
