"""benchmarks/gpu.py on a CPU."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import gpu, gpu_checks

CPU = torch.device("cpu")


@pytest.fixture
def setup():
    return gpu_checks.make_setup(CPU, None, quick=True)


def test_failures_are_reported_and_isolated(setup):
    def fail(setup):
        raise RuntimeError("first | line\nsecond line")

    report = gpu.Report(setup)
    report.run("A", "broken", fail)
    assert report.failed
    report.run("B", "whole", lambda setup, value: f"{value}", 7)
    report.run("B", "GPU", gpu_checks.check_out_of_memory)
    assert [(row.name, row.status) for row in report.rows] == [
        ("broken", "failed"),
        ("whole", "ok"),
        ("GPU", "not run"),
    ]
    lines = report.markdown().splitlines()
    assert "| broken | failed | RuntimeError: first / line |" in lines
    assert "| whole | ok | 7 |" in lines
    assert "| GPU | not run | needs a GPU |" in lines


def test_exit_code_after_a_failure(monkeypatch, tmp_path):
    def one_failure(setup):
        report = gpu.Report(setup)
        report.run("A", "broken", lambda setup: 1 / 0)
        return report

    monkeypatch.setattr(gpu, "run_all", one_failure)
    assert gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 1
    assert json.loads((tmp_path / "gpu_cpu.json").read_text())["rows"][0]["status"] == "failed"


def test_wrong_results_are_failures(setup, monkeypatch):
    monkeypatch.setitem(gpu_checks.TOLERANCES, "bf16", (1e-9, 1e-9))
    with pytest.raises(ArithmeticError):
        gpu_checks.check_against_cpu(setup, "bf16")
    load = gpu_checks.Learner.load_state_dict
    monkeypatch.setattr(
        gpu_checks.Learner, "load_state_dict", lambda self, weights, state: load(self, self.network.state_dict(), state)
    )
    with pytest.raises(ArithmeticError):
        gpu_checks.check_resume(setup)


def test_compiled_and_eager_updates_are_compared(setup, monkeypatch):
    """With an eager learner in place of the compiled one, which would take long to compile."""
    make = gpu_checks.make_learner
    monkeypatch.setattr(gpu_checks, "make_learner", lambda setup, batch, compile=False: make(setup, batch))
    assert gpu_checks.check_compile(replace(setup, quick=False)).startswith("updates differ by 0.0e+00")

    def wrong(setup, batch, compile=False):
        learner = make(setup, batch)
        if compile:
            learner.network.head.weight.data.mul_(2)
        return learner

    monkeypatch.setattr(gpu_checks, "make_learner", wrong)
    with pytest.raises(ArithmeticError):
        gpu_checks.check_compile(replace(setup, quick=False))


def test_report_on_a_cpu(tmp_path, capsys):
    torch.manual_seed(0)
    assert gpu.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    markdown = (tmp_path / "gpu_cpu.md").read_text()
    assert capsys.readouterr().out.strip() == markdown.strip()
    assert "No GPU was used" in markdown
    result = json.loads((tmp_path / "gpu_cpu.json").read_text())
    status = {(row["section"], row["name"]): row["status"] for row in result["rows"]}
    assert {section for section, _ in status} == {"Environment", "Correctness", "Training", "Inference", "Memory"}
    assert status["Correctness", "bf16 against the CPU in fp32"] == "ok"
    assert status["Correctness", "resumed training"] == "ok"
    assert status["Training", "loading alone, --data_on_gpu"] == "ok"
    assert status["Inference", "mode local, fp32"] == "ok"
    assert status["Memory", "smaller tiles if memory runs out"] == "not run"


def test_kernel_time_is_counted_once():
    """An operator's device time is that of its kernels, so that only events of the device count."""
    events = [
        SimpleNamespace(device_type=kind, is_user_annotation=annotation, self_device_time_total=microseconds)
        for kind, annotation, microseconds in (
            (DeviceType.CPU, False, 5e6), (DeviceType.CUDA, False, 2e6), (DeviceType.CUDA, False, 3e6), (DeviceType.CUDA, True, 9e6),
        )
    ]  # fmt: skip
    assert gpu.device_seconds(events) == 5
