import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from hrn import load_model, upscale
from hrn.checkpoint import save_checkpoint
from hrn.data.resize import imresize
from hrn.errors import HRNError
from hrn.inference import enlarger as module
from hrn.inference.enlarger import MODES, Enlarger, Mode, check_precision
from hrn.inference.tiling import spans
from hrn.model import HRNConfig, build_model, preset

SMALL = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=1, scales=(2,), reduction=4, upsampler="direct")


@pytest.fixture
def path(tmp_path):
    """A new network: it enlarges bilinearly."""
    path = tmp_path / "small_x2.pth"
    save_checkpoint(path, SMALL, build_model(SMALL).state_dict(), info={})
    return path


def test_three_lines_do_what_the_network_does(path, tmp_path, image):
    Image.fromarray(image).save(tmp_path / "photo.png")
    model = load_model(path)
    sr = upscale(model, tmp_path / "photo.png")
    with torch.no_grad():
        expected = model(
            torch.from_numpy(image / 255).float().permute(2, 0, 1)[None].to(next(model.parameters()).device)
        )
    expected = (expected[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()
    assert sr.size == (128, 96)
    assert (np.asarray(sr) == expected).all()
    assert (upscale(model, image) == expected).all()
    assert (np.asarray(upscale(model, Image.fromarray(image))) == expected).all()


def test_modes_are_kept(path, image):
    model = load_model(path)
    assert upscale(model, Image.fromarray(image[..., 0])).mode == "L"
    assert upscale(model, Image.fromarray(image).quantize(8)).mode == "RGB"
    alpha = image[..., 1]
    rgba = upscale(model, Image.fromarray(np.dstack([image, alpha])))
    assert rgba.mode == "RGBA"
    assert (np.asarray(rgba)[..., 3] == imresize(alpha, scale=2)).all()
    assert upscale(model, Image.fromarray(np.dstack([image[..., 0], alpha]), "LA")).mode == "LA"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (50, 3)])
def test_tiny_images(path, size):
    for mode in MODES:
        sr = upscale(load_model(path), np.full((*size, 3), 100, np.uint8), mode=Mode(mode))
        assert sr.shape == (2 * size[0], 2 * size[1], 3)
        assert abs(sr.astype(int) - 100).max() <= 10  # a new network is bilinear, but for the zeros around the image


@pytest.mark.parametrize("mode", ["local", "full"])
@pytest.mark.parametrize("size", [(700, 40), (40, 700)])
def test_large_images_are_cut_into_tiles(path, rng, monkeypatch, size, mode):
    """A new network reaches a few pixels only, so that tiles give what the whole image gives, but for rounding."""
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = upscale(load_model(path), image, mode=Mode(mode)).astype(int)
    monkeypatch.setattr(module, "TILE", 128)
    difference = abs(upscale(load_model(path), image, mode=Mode(mode)) - whole)
    assert difference.max() <= 1
    assert difference.mean() < 0.01


@pytest.mark.parametrize("mode", [Mode("local"), Mode("full"), Mode("windows")], ids=str)
def test_no_step_at_the_border_of_a_tile(root, monkeypatch, mode):
    """What tiles change is nowhere less smooth than inside of them, by the shipped network on a photograph."""
    import skimage.data

    image = skimage.data.astronaut()[:200, 100:360]
    model = load_model(root / "checkpoint/hrn_light/hrn_light_x4.pth", device="cpu")
    whole = upscale(model, image, mode=Mode("full") if mode.name == "windows" else mode).astype(float)
    monkeypatch.setattr(module, "TILE", 128)
    layout = mode.layout(image.shape[:2], 10**9, 10**9)
    difference = upscale(model, image, mode=mode) - whole
    for axis in (0, 1):
        edges = spans(image.shape[axis], layout.window[axis], layout.overlap, layout.aligned)
        borders = sorted({4 * edge for span in edges for edge in span} - {0, 4 * image.shape[axis]})
        steps = abs(np.diff(difference, axis=axis)).mean(axis=(1 - axis, 2))
        assert len(borders) >= 2
        at_borders = steps[[b - 1 for b in borders]].max()
        assert at_borders <= np.delete(steps, [b - 1 for b in borders]).max()


@pytest.mark.parametrize("values", [("window",), ("windows", 16, 16), ("windows", 16, -1), ("local", 0)])
def test_bad_modes(values):
    with pytest.raises(HRNError, match=r"the mode must be one of|cannot overlap|1 pixel or more"):
        Mode(*values)


def test_self_ensemble_in_every_mode(small, image):
    for mode in (Mode("full"), Mode("local", 16), Mode("windows", 32, 8)):
        once = upscale(small, image, mode=mode, ensemble=True)
        turned = upscale(small, np.ascontiguousarray(np.rot90(image)), mode=mode, ensemble=True)
        if mode.name == "full":  # blocks and windows begin at another corner
            assert abs(once.astype(int) - np.rot90(turned, -1)).max() <= 1
        assert (once != upscale(small, image, mode=mode)).any()


def test_bf16_is_near_fp32(small, image):
    exact, near = (Enlarger(small, precision=p)(image).astype(int) for p in ("fp32", "bf16"))
    assert 0 < abs(exact - near).mean() < 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float32_is_not_tf32(small, image, monkeypatch, precision):
    """Which is PyTorch's default for convolutions on a GPU."""
    asked = []

    @contextmanager
    def inference_convolutions(device, *, tf32):
        asked.append((device.type, tf32))
        yield

    monkeypatch.setattr(module, "inference_convolutions", inference_convolutions)
    Enlarger(small, precision=precision)(image)
    assert set(asked) == {("cpu", False)}


def test_compiled_is_the_same(small, image, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    for mode in (Mode("local", 16), Mode("windows", 32, 8)):
        plain, compiled = (Enlarger(small, mode=mode, compile=c)(image) for c in (False, True))
        assert abs(plain.astype(int) - compiled).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16"}, "fp16 is for GPUs"),
        ({"precision": "tf32"}, "tf32 is for NVIDIA"),
        ({"precision": "int8"}, "the precision must be one of fp32"),
    ],
)
def test_precisions_that_are_not_there(small, options, message):
    with pytest.raises(HRNError, match=message):
        Enlarger(small, **options)


def test_older_gpus_are_not_given_what_they_emulate(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for precision in ("bf16", "tf32"):
        with pytest.raises(HRNError, match=f"Tesla T4 has no {precision}; take fp16 or fp32"):
            check_precision(precision, torch.device("cuda"))
    for precision in ("fp32", "fp16"):
        check_precision(precision, torch.device("cuda"))


def test_strips_of_a_wide_image_stay_within_the_memory_beside_a_gpu(small):
    enlarger = Enlarger(small, max_memory=2**30)
    enlarger.device = torch.device("cuda")
    size = (4000, 60000)
    side = enlarger.mode.layout(size, enlarger._pixels(size), 1).window[0]
    strip = side * size[1] * enlarger.scale**2 * 3 * 4  # in float32
    assert 2**30 / 4 < 2 * strip <= 2**30


def test_released_networks_are_taken_whole(image):
    network = build_model(preset("hrn_released", [2])).eval().requires_grad_(False)
    assert str(Enlarger(network).mode) == "full"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"an image must be an \(H, W, 3\) array of uint8, not \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "not .* of float32"),
        (np.zeros((0, 4, 3), np.uint8), "an image must be"),
    ],
)
def test_bad_arrays(path, array, message):
    with pytest.raises(HRNError, match=message):
        upscale(load_model(path), array)


def test_scale_that_the_network_lacks(path, image):
    with pytest.raises(HRNError, match="enlarges by x2, not x3"):
        Enlarger(load_model(path), 3)
    assert upscale(load_model(path), image, 3).shape == (144, 192, 3)  # x2 twice, then reduced


def test_any_size(path, image):
    model = load_model(path)
    assert upscale(model, image, 2.5).shape == (120, 160, 3)
    assert upscale(model, Image.fromarray(image), size=(100, 77)).size == (100, 77)
    alpha = Image.fromarray(np.dstack([image, image[..., :1]]))
    assert upscale(model, alpha, long_edge=150).size == (150, 112)
    with pytest.raises(HRNError, match="one of them"):
        upscale(model, image, 2, long_edge=100)


def test_values_that_are_not_finite_are_not_saved(path, image):
    model = load_model(path)
    model.head.bias.data.fill_(float("nan"))
    with pytest.raises(HRNError, match="not finite"):
        upscale(model, image)


def test_device_that_is_not_there(path):
    with pytest.raises(HRNError, match="--device cuda:99: not usable here"):
        load_model(path, device="cuda:99")


def test_enlarging_imports_neither_torchvision_nor_matplotlib(path):
    code = f"""
import sys, numpy
from hrn import load_model, upscale
upscale(load_model({str(path)!r}), numpy.zeros((4, 4, 3), numpy.uint8))
print([m for m in ("torchvision", "matplotlib", "skimage", "h5py") if m in sys.modules])
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
