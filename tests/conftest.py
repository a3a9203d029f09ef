"""Fixtures for all tests: small images, a small network, scripts as modules, the optional benchmark images, a browser."""

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hrn import sample
from hrn.cli import run_cli
from hrn.model import HRNConfig
from tests.site import Server

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several workers that share the cores, as its subprocesses do
    THREADS = 1
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same results on every machine; benchmarks/gpu.py checks GPUs
SMALL = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=1, scales=(2,), reduction=4, upsampler="direct")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def shared() -> Path:
    folder = os.environ.get("HRN_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the benchmark images and reference data: set HRN_SHARED to their folder")
    return Path(folder)


@torch.no_grad()
def randomise(module: nn.Module, std: float = 0.2) -> nn.Module:
    """Add noise to all parameters, randomise BatchNorm's statistics, and return the module in eval mode.

    The body of a new network adds nothing to the image, so errors in it would not be seen.
    """
    for parameter in module.parameters():
        parameter.add_(std * torch.randn_like(parameter))
    for name, buffer in module.named_buffers():
        if "running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    return module.eval()


def smooth_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return an image with edges and gradients, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * rng.uniform(0.05, 0.4) + y * rng.uniform(0.05, 0.4) + rng.uniform(0, 6)) for _ in range(3)]
    image = np.stack(waves, axis=-1) * 60 + 128 + 40 * (x > width / 2)[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def small_config() -> HRNConfig:
    """The configuration of a network that runs in milliseconds."""
    return SMALL


@pytest.fixture
def run():
    """A function that runs Python with a command line and returns the finished process. By default it must exit with 0."""

    def run_python(*command, cwd: Path, check: bool = True, **env: str) -> subprocess.CompletedProcess:
        words = [sys.executable, *map(str, command)]
        result = subprocess.run(words, cwd=cwd, capture_output=True, text=True, env={**os.environ, **env})
        if check:
            assert result.returncode == 0, result.stderr
        return result

    return run_python


@pytest.fixture
def site():
    """Address of a local web server, see :mod:`tests.site`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    Server.asked = []
    Server.release.clear()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def fails(tmp_path, capsys):
    """Run sample.py with bad input; returns its one message after checking the exit code."""

    def run_and_read(*args, sample_dir=tmp_path / "s"):
        code = run_cli(lambda: sample.main([str(arg) for arg in (*args, "--sample_dir", sample_dir)]))
        message = capsys.readouterr().err
        assert code == 2
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message

    return run_and_read


@pytest.fixture
def load_script():
    """A function that imports a script from its path. Worker processes find it by its name."""
    loaded, search_path = [], list(sys.path)

    def load(path: Path):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        loaded.append(spec.name)
        spec.loader.exec_module(module)
        sys.path[:] = search_path
        return module

    yield load
    for name in loaded:
        del sys.modules[name]


@pytest.fixture
def image(rng) -> np.ndarray:
    return smooth_image(rng, 48, 64)


@pytest.fixture
def hr_folder(tmp_path, rng) -> Path:
    """Four PNG images of different sizes."""
    folder = tmp_path / "HR"
    folder.mkdir()
    for i, (h, w) in enumerate([(96, 120), (100, 97), (121, 96), (96, 96)]):
        Image.fromarray(smooth_image(rng, h, w)).save(folder / f"{i:04d}.png")
    return folder


@pytest.fixture
def h5_path(tmp_path, rng) -> Path:
    """An h5 file in CARN's layout: HR, X2, X3, X4, uint8 HWC, keys "0", "1", ..."""
    path = tmp_path / "carn.h5"
    with h5py.File(path, "w") as file:
        for i in range(12):
            hr = smooth_image(rng, 96, 120)
            file.create_dataset(f"HR/{i}", data=hr)
            for s in (2, 3, 4):
                file.create_dataset(f"X{s}/{i}", data=hr[::s, ::s])
    return path


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium controlled by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs the browser Chromium, which is not installed (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()
