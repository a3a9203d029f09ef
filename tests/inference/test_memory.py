import subprocess
import sys

import numpy as np
import pytest
import torch

from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger
from hrn.inference.memory import bytes_per_pixel
from hrn.inference.mode import TILE_OVERLAP, Mode
from hrn.inference.tiling import Layout, spans
from hrn.memory import is_out_of_memory
from hrn.model import build_model, preset

LIBRARY_ERRORS = [
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", LIBRARY_ERRORS, ids=str)
def test_errors_of_cuda_libraries_may_be_a_lack_of_memory(rng, repeat, error):
    """They are retried in smaller tiles; if the smallest one fails as well, the original error is raised."""
    assert not is_out_of_memory(error)
    assert is_out_of_memory(error, possibly=True)
    lr = rng.integers(0, 256, (130, 100, 3), dtype=np.uint8)
    network = repeat(room=64 * 64, error=error)
    assert (Enlarger(network, mode=Mode("full"))(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    with pytest.raises(RuntimeError) as caught:
        Enlarger(repeat(room=1, error=error), mode=Mode("full"))(lr)
    assert caught.value is error


@pytest.mark.parametrize("room", [64 * 64, 57 * 57])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), MemoryError()])
def test_tiles_are_halved_until_they_fit(rng, repeat, room, error):
    lr = rng.integers(0, 256, (130, 100, 3), dtype=np.uint8)
    network = repeat(room=room, error=error)
    enlarger = Enlarger(network, mode=Mode("full"))
    assert not enlarger.is_tiled(lr.shape[:2])
    assert (enlarger(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert max(h * w for _, _, h, w in network.shapes) <= room
    assert enlarger.is_tiled(lr.shape[:2])  # it was, unlike planned
    assert not enlarger.is_tiled((20, 20))


def test_batches_are_halved_first(rng, repeat):
    lr = rng.integers(0, 256, (32, 200, 3), dtype=np.uint8)
    network = repeat(room=3 * 32 * 32, error=MemoryError())
    assert (Enlarger(network, mode=Mode("windows", 32, 8))(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert all(shape[2:] == (32, 32) for shape in network.shapes)


@pytest.mark.parametrize("room", [150, 100])
def test_tiles_of_mode_local_are_halved_into_aligned_tiles(small, rng, room):
    """The result is that of tiles of this size, because their blocks coincide with those of the whole image."""
    window, shapes = 16, []
    lr = rng.integers(0, 256, (200, 170, 3), dtype=np.uint8)

    def fail_above(module, args):
        if args[0].shape[2] * args[0].shape[3] > room**2:
            raise torch.OutOfMemoryError("out of memory")
        shapes.append(args[0].shape[2:])

    small.register_forward_pre_hook(fail_above)  # also applies to the copy of mode local
    halved = Enlarger(small, mode=Mode("local", window))(lr)
    tile = max(height for height, _ in shapes)
    assert tile <= room
    assert (tile - TILE_OVERLAP) % window == 0
    shapes.clear()
    expected = Enlarger(small, mode=Mode("local", window, tile=tile))(lr)
    assert shapes[0][0] == tile
    if room == 150:  # halved once, so that the tiles are the same
        assert abs(halved.astype(int) - expected).max() <= 1


def test_other_errors_are_not_retried(repeat):
    error = RuntimeError("size mismatch")
    with pytest.raises(RuntimeError) as caught:
        Enlarger(repeat(room=1, error=error), mode=Mode("full"))(np.zeros((90, 90, 3), np.uint8))
    assert caught.value is error


def test_too_little_memory(repeat):
    lr = np.zeros((90, 90, 3), np.uint8)
    for mode in (Mode("full"), Mode("windows")):
        with pytest.raises(HRNError):
            Enlarger(repeat(room=1, error=MemoryError()), mode=mode)(lr)
        with pytest.raises(HRNError):
            Enlarger(repeat(), mode=mode, max_memory=10_000)(lr)


def test_a_budget_makes_tiles_smaller(rng, repeat):
    lr = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    network = repeat()
    budget = 150 * 150 * bytes_per_pixel(network, 2)
    assert (Enlarger(network, mode=Mode("full"), max_memory=budget)(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert 64 * 64 < max(h * w for _, _, h, w in network.shapes) < 150 * 150


@pytest.mark.parametrize("window", [16, 48])
@pytest.mark.parametrize("mib", [12, 30, 300])
@pytest.mark.parametrize(
    "size", [(1, 70000), (70000, 1), (8, 9000), (9000, 10), (49, 49), (500, 500), (4000, 60), (300, 20000)]
)
def test_whole_blocks_count(small, size, window, mib):
    """In mode local, a thin image is padded to much more than its own pixels."""
    enlarger = Enlarger(small, mode=Mode("local", window), max_memory=mib * 2**20)
    try:
        layout = enlarger.layout(size)
    except HRNError:
        assert size[1] == 20000  # even a strip of the smallest tiles is larger
        assert mib < 300
        return
    rows, columns = (
        spans(side, most, layout.overlap, layout.aligned) for side, most in zip(size, layout.window, strict=True)
    )
    tile = max(b - a for a, b in rows), max(b - a for a, b in columns)
    blocks = [-(-side // window) * window for side in tile]
    strip = 2 * 12 * enlarger.scale**2 * tile[0] * size[1]
    assert blocks[0] * blocks[1] * enlarger.bytes_per_pixel + strip <= enlarger.memory_budget


@pytest.mark.parametrize("size", [(1, 1), (48, 48), (339, 510), (752, 752), (1000, 565)])
def test_images_that_fit_are_not_divided(small, size):
    assert Enlarger(small, max_memory=2**32).layout(size) == Layout(size, 0)


def test_large_images_are_divided_into_the_default_tiles(small):
    assert Enlarger(small, max_memory=2**32).layout((2000, 3000)) == Layout((752, 752), 32, aligned=True)
    assert Enlarger(small, mode=Mode("full", tile=100), max_memory=2**32).layout((2000, 30)) == Layout((100, 100), 32)


def test_a_strip_of_a_wide_image_fits_beside_a_gpu(small):
    """Strips are blended in float32 on the GPU, and held as uint8 on the host, twice while they are written."""
    enlarger, size = Enlarger(small, max_memory=2**34), (4000, 60000)
    enlarger.device, enlarger.host_memory_budget = torch.device("cuda"), 2**28

    def strip_pixels():
        return enlarger.layout(size).window[0] * size[1] * enlarger.scale**2

    assert 2**28 / 4 < 2 * 3 * strip_pixels() <= 2**28
    enlarger.memory_budget = enlarger.host_memory_budget = 2**30
    assert 2**30 / 4 < 2 * 3 * 4 * strip_pixels() <= 2**30


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


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(("name", "side"), [("hrn_light", 512), ("hrn", 192)])
@pytest.mark.slow
def test_bytes_per_pixel(name, side):
    command = [sys.executable, "-c", MEASURE, name, str(side)]
    measured = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    estimated = bytes_per_pixel(build_model(preset(name, [2])), 2)
    assert estimated / 3 < measured < 1.1 * estimated


def test_the_self_ensemble_counts(small):
    """The sum and two results are kept beside a pass: 36 bytes for each HR pixel."""
    one, eight = (Enlarger(small, ensemble=ensemble).bytes_per_pixel for ensemble in (False, True))
    assert eight - one == 36 * 2**2


def test_a_tile_has_at_least_one_block():
    assert Mode("local", 10, tile=40).layout((200, 200), 10**6).window == (52, 52)
