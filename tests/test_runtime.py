import threading

import pytest
import torch
from torch.torch_version import TorchVersion

from hrn import runtime
from hrn.errors import HRNError
from hrn.runtime import (
    check_driver,
    check_precision,
    inference_convolutions,
    missing_for_compile,
    pick_device,
    tune_convolutions,
)

cudnn = torch.backends.cudnn


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a CUDA GPU. A function replaces `torch.ones`, by which `pick_device` tries it."""

    def pretend(ones=None):
        one = torch.ones(1)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch, "ones", ones or (lambda *size, device: one))

    return pretend


def test_auto_falls_back_to_the_cpu_without_kernels_for_the_gpu(gpu):
    def no_kernel(*size, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    gpu(no_kernel)
    assert pick_device() == torch.device("cpu")
    with pytest.raises(HRNError, match="--device cuda"):
        pick_device("cuda")


def test_a_full_gpu_is_an_error(gpu):
    """A run of days must not silently start on the CPU."""

    def full(*size, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    gpu(full)
    with pytest.raises(HRNError, match="--device auto"):
        pick_device()


def test_a_gpu_gets_its_index(gpu):
    """torch.cuda.set_device requires one."""
    gpu()
    assert pick_device() == pick_device("cuda") == torch.device("cuda:1")


@pytest.fixture
def unusable_gpu(monkeypatch, tmp_path):
    """A PyTorch for CUDA that cannot use the machine's GPU."""
    driver = tmp_path / "version"
    driver.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 21:21:55 UTC 2021\nGCC version:\n"
    )
    monkeypatch.setattr(runtime, "NVIDIA_DEVICE", tmp_path)
    monkeypatch.setattr(runtime, "NVIDIA_DRIVER", driver)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return driver


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_driver_that_is_too_old_is_an_error(unusable_gpu, name):
    with pytest.raises(HRNError, match=rf"--device {name}.*470\.82\.01.*13\.0"):
        pick_device(name)
    assert pick_device("cpu") == torch.device("cpu")
    unusable_gpu.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\n")
    with pytest.raises(HRNError, match=r"550\.54\.14"):
        check_driver(name)
    unusable_gpu.unlink()
    with pytest.raises(HRNError, match=r"13\.0"):
        check_driver(name)


def test_a_hidden_gpu_is_not_an_error(unusable_gpu, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert pick_device() == torch.device("cpu")


def test_several_processes_are_not_started_with_an_old_driver(unusable_gpu, monkeypatch, h5_path):
    from hrn import train

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)  # from NVML, which an old driver answers
    monkeypatch.setattr(train, "launch", None)
    with pytest.raises(HRNError, match=r"470\.82\.01"):
        train.main(["--model", "hrn", "--ckpt_name", "a", "--num_gpu", "4", "--train_data_path", str(h5_path)])


@pytest.mark.parametrize("name", ["hpu", "nonsense", "meta:x"])
def test_other_devices_are_errors(name):
    with pytest.raises(HRNError, match=f"--device {name}"):
        pick_device(name)


def test_mps_needs_a_pytorch_with_correct_convolutions(monkeypatch):
    one = torch.ones(1)
    monkeypatch.setattr(torch, "ones", lambda *size, device: one)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.13.1"))
    with pytest.raises(HRNError, match=r"--device mps.*2\.13\.1"):
        pick_device("mps")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.14.0"))
    assert pick_device("mps") == torch.device("mps")


def test_precisions_by_gpu_generation(monkeypatch):
    device = torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (7, 0))
    for precision in ("bf16", "tf32"):
        with pytest.raises(HRNError, match=f"V100.*{precision}"):
            check_precision(precision, device)
    for precision in ("fp32", "fp16"):
        check_precision(precision, device)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d: (8, 0))
    check_precision("bf16", device)


def test_bf16_on_a_cpu_without_it_warns(monkeypatch, caplog):
    """Once, although each network and call checks its precision."""
    runtime._warn_of_slow_bf16.cache_clear()
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    check_precision("bf16", cpu)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    check_precision("fp32", cpu)
    assert not caplog.text
    check_precision("bf16", cpu)
    check_precision("bf16", cpu)
    assert caplog.text.count("fp32 is several times faster") == 1


def test_missing_requirements_of_compilation(monkeypatch, tmp_path):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(runtime.shutil, "which", lambda name: name if name in ("g++", "gcc") else None)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(runtime.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "Python.h" in missing_for_compile(cpu)
    (tmp_path / "Python.h").touch()
    assert missing_for_compile(cpu) == missing_for_compile(cuda) == ""
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert "triton" in missing_for_compile(cuda)
    assert missing_for_compile(cpu) == ""
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    assert "g++" in missing_for_compile(cpu)
    assert "gcc" in missing_for_compile(cuda)


@pytest.mark.parametrize("tf32", [False, True])
def test_inference_settings_are_restored(tf32):
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    try:
        cudnn.benchmark, cudnn.conv.fp32_precision = True, "ieee" if tf32 else "tf32"
        outside = cudnn.benchmark, cudnn.conv.fp32_precision
        with inference_convolutions(torch.device("cuda"), tf32=tf32):
            assert (cudnn.benchmark, cudnn.conv.fp32_precision) == (False, "tf32" if tf32 else "ieee")
        assert (cudnn.benchmark, cudnn.conv.fp32_precision) == outside
        with inference_convolutions(torch.device("cpu"), tf32=tf32):
            assert (cudnn.benchmark, cudnn.conv.fp32_precision) == outside
    finally:
        cudnn.benchmark, cudnn.conv.fp32_precision = before


def test_inference_settings_of_two_threads():
    """The second thread waits, so it does not restore the settings of the first one."""
    cuda, entered, before = torch.device("cuda"), threading.Event(), cudnn.conv.fp32_precision

    def second():
        entered.set()
        with inference_convolutions(cuda, tf32=True):
            pass

    thread = threading.Thread(target=second)
    with inference_convolutions(cuda, tf32=False):
        thread.start()
        entered.wait()
        thread.join(0.05)
        assert cudnn.conv.fp32_precision == "ieee"
    thread.join()
    assert cudnn.conv.fp32_precision == before


@pytest.mark.parametrize("tf32", [True, False])
@pytest.mark.parametrize("deterministic", [True, False])
def test_settings_of_convolutions(tf32, deterministic):
    names = ("benchmark", "deterministic", "allow_tf32")
    before = {name: getattr(torch.backends.cudnn, name) for name in names}
    try:
        tune_convolutions(tf32=tf32, deterministic=deterministic)
        assert [getattr(torch.backends.cudnn, name) for name in names] == [not deterministic, deterministic, tf32]
    finally:
        for name, value in before.items():
            setattr(torch.backends.cudnn, name, value)
