import re
import sys
from contextlib import suppress

import pytest
import torch

from hrn import memory
from hrn.errors import HRNError
from hrn.memory import free_memory, is_out_of_memory, parse_memory


@pytest.mark.parametrize(
    ("text", "size"), [("2G", 2**31), ("1.5GB", 3 * 2**29), ("800 MiB", 800 * 2**20), ("123", 123), ("1k", 1024)]
)
def test_memory_sizes(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "0", "2X", "G"])
def test_invalid_memory_sizes(text):
    with pytest.raises(HRNError):
        parse_memory(text)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_free_memory_is_at_most_the_total():
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 2**20 < free_memory(torch.device("cpu")) < total


def groups(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("", {}, 5000),
        ("0::/a/b", {"memory.max": "1000", "memory.current": "900", "a/b/memory.max": "max"}, 100),
        (
            "0::/a/b",
            {"a/memory.max": "1000", "a/memory.current": "900", "a/memory.stat": "anon 5\ninactive_file 50"},
            150,
        ),
        (
            "1:cpu:/x\n0::/a",
            {"a/memory.max": "700", "a/memory.current": "100", "memory.max": "600", "memory.current": "50"},
            550,
        ),
        ("0::/a", {"a/memory.max": "1000", "a/memory.current": "2000"}, 0),
        ("0::/a", {"b/memory.max": "10", "b/memory.current": "5"}, 5000),
        (
            "5:cpu,memory:/d/e\n0::/",
            {
                "memory/d/memory.limit_in_bytes": "1000",
                "memory/d/memory.usage_in_bytes": "600",
                "memory/d/memory.stat": "inactive_file 1\ntotal_inactive_file 20",
                "memory/d/e/memory.limit_in_bytes": "9223372036854771712",
                "memory/d/e/memory.usage_in_bytes": "600",
            },
            420,
        ),
        ("5:memory:/of/the/host", {"memory/memory.limit_in_bytes": "300", "memory/memory.usage_in_bytes": "100"}, 200),
    ],
)
def test_the_limits_of_control_groups(tmp_path, monkeypatch, cgroup, files, free):
    """The limits of the process's group and its parents apply; in a container its group is the root. Values in kB."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    groups(tmp_path / "proc", {"meminfo": "MemTotal: 9000 kB\nMemAvailable: 5000 kB\n", "self/cgroup": cgroup})
    groups(tmp_path / "cgroup", {name: re.sub(r"(\d+)(?=\n|$)", r"\g<1>000", text) for name, text in files.items()})
    for folder in {(tmp_path / "cgroup" / name).parent for name in files}:
        with suppress(FileExistsError), (folder / "memory.stat").open("x") as file:
            file.write("anon 7")
    assert free_memory(torch.device("cpu")) == free * (1024 if free == 5000 else 1000)


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, ...)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ..."), True),  # Windows
        (RuntimeError("size mismatch"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_out_of_memory_errors(error, out):
    assert is_out_of_memory(error) is out
    assert is_out_of_memory(error, possibly=True) is out


def test_the_error_of_a_failed_allocation():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)


def test_processes_of_one_machine_share_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    (tmp_path / "meminfo").write_text("MemAvailable: 5000 kB\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(torch.device("cpu")) == 1250 * 1024


MEASURE = """
import torch
from hrn.memory import peak_memory, peak_memory_meter
cpu = torch.device("cpu")
before, meter = peak_memory(cpu), peak_memory_meter(cpu)
data = torch.ones(2**24)  # 64 MiB
del data
print(peak_memory(cpu) - before, meter())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, peaks of the process are less precise")
def test_measured_memory(run, root):
    grown, measured = map(float, run("-c", MEASURE, cwd=root).stdout.split())
    assert grown == pytest.approx(2**26, rel=0.3)
    assert measured == pytest.approx(64, rel=0.3)
