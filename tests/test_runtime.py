import subprocess
import sys

import pytest
import torch
from torch.torch_version import TorchVersion

from hrn.errors import HRNError
from hrn.runtime import convolutions_of_images, pick_device

cudnn = torch.backends.cudnn


def test_a_gpu_that_does_not_work_is_left_alone(monkeypatch, caplog):
    def no_kernel(*size, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    assert pick_device() == torch.device("cpu")
    assert "the GPU cannot be used (CUDA error: no kernel image is available" in caplog.text
    with pytest.raises(HRNError, match=r"--device cuda: not usable here \(CUDA error: no kernel image"):
        pick_device("cuda")


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


def test_images_are_enlarged_in_float32_and_training_goes_on_as_before():
    before = cudnn.benchmark, cudnn.allow_tf32
    try:
        cudnn.benchmark, cudnn.allow_tf32 = True, True
        for tf32 in (False, True):
            with convolutions_of_images(tf32=tf32):
                assert (cudnn.benchmark, cudnn.allow_tf32) == (False, tf32)
            assert (cudnn.benchmark, cudnn.allow_tf32) == (True, True)
        with pytest.raises(ZeroDivisionError), convolutions_of_images(tf32=False):
            raise ZeroDivisionError
        assert (cudnn.benchmark, cudnn.allow_tf32) == (True, True)
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


def test_the_newer_setting_of_a_program_holds():
    """In a process of its own, since the two settings cannot be untangled again."""
    program = """
import torch
from hrn.runtime import convolutions_of_images
torch.backends.fp32_precision = "ieee"
with convolutions_of_images(tf32=True):
    assert torch.backends.cudnn.conv.fp32_precision == "ieee", torch.backends.cudnn.conv.fp32_precision
"""
    subprocess.run([sys.executable, "-c", program], check=True)
