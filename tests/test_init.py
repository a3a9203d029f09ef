import subprocess
import sys

import pytest

import hrn
from hrn.errors import HRNError


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_import_does_not_import_torch():
    assert not {"torch", "numpy", "PIL"} & modules_after("import hrn; hrn.__version__")


def test_public_functions():
    from hrn.inference import upscale

    for name in ("enlarge", "load_model", "upscale"):
        assert getattr(hrn, name) is getattr(upscale, name)
        assert name in dir(hrn)
    assert hrn.HRNError is HRNError
    with pytest.raises(AttributeError):
        _ = hrn.unknown


def test_enlarging_imports_no_heavy_optional_package():
    """Enlarging an image or a tensor loads no optional package."""
    code = """
import numpy, torch, hrn
network = hrn.load_model("hrn_light_x2", device="cpu")
hrn.upscale(network, numpy.zeros((4, 4, 3), numpy.uint8))
hrn.enlarge(network, torch.zeros(1, 3, 4, 4))
"""
    assert not {"torchvision", "h5py", "matplotlib", "skimage", "spandrel"} & modules_after(code)
