import pytest
import torch
from torch.torch_version import TorchVersion

from hrn.errors import HRNError
from hrn.runtime import inference_convolutions, pick_device

cudnn = torch.backends.cudnn


def test_a_gpu_that_does_not_work_is_left_alone(monkeypatch, caplog):
    def no_kernel(*size, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    assert pick_device() == torch.device("cpu")
    assert "nothing for the GPU (CUDA error: no kernel image is available" in caplog.text
    with pytest.raises(HRNError, match=r"--device cuda: not usable here \(CUDA error: no kernel image"):
        pick_device("cuda")


def test_a_gpu_that_others_fill_is_not_passed_over(monkeypatch):
    """A run of days would otherwise begin on the CPU."""

    def full(*size, device):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", full)
    with pytest.raises(HRNError, match=r"--device auto: not usable here \(CUDA out of memory"):
        pick_device()


def test_a_gpu_that_works_has_a_number(monkeypatch):
    """Which torch.cuda.set_device demands."""
    one = torch.ones(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch, "ones", lambda *size, device: one)
    assert pick_device() == pick_device("cuda") == torch.device("cuda:1")


def test_mps_before_it_was_right_is_refused(monkeypatch):
    one = torch.ones(1)
    monkeypatch.setattr(torch, "ones", lambda *size, device: one)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.13.1"))
    with pytest.raises(HRNError, match=r"PyTorch 2\.13\.1 convolves wrongly there"):
        pick_device("mps")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.14.0"))
    assert pick_device("mps") == torch.device("mps")


@pytest.mark.parametrize("tf32", [False, True])
def test_settings_of_a_gpu_are_as_before_after_an_image(tf32):
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
