from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from hrn import enlarge, load_model, upscale
from hrn.data.resize import imresize
from hrn.errors import HRNError
from hrn.inference import enlarger as module
from hrn.inference.enlarger import Enlarger
from hrn.inference.local import make_local
from hrn.inference.memory import bytes_per_pixel
from hrn.inference.mode import MODES, Mode
from hrn.inference.tiling import spans
from hrn.model import build_model, preset


def to_tensor(image):
    return torch.from_numpy(image.transpose(2, 0, 1)[None] / 255).float()


def to_uint8(x):
    return (x[0].permute(1, 2, 0) * 255).round().clamp(0, 255).byte().cpu().numpy()


def test_upscale_equals_the_network_in_mode_local(small, tmp_path, image):
    Image.fromarray(image).save(tmp_path / "photo.png")
    sr = upscale(small, tmp_path / "photo.png")
    expected, whole = (to_uint8(network(to_tensor(image))) for network in (make_local(small, 48), small))
    assert (expected != whole).any()
    assert sr.size == (128, 96)
    assert (np.asarray(sr) == expected).all()
    assert (upscale(small, image) == expected).all()
    assert (np.asarray(upscale(small, Image.fromarray(image))) == expected).all()


@pytest.mark.parametrize("mode", [Mode("local", 16), Mode("full"), Mode("windows", 32, 8), Mode("local", 16, tile=50)])
def test_tensors_are_enlarged_as_images_are(small, rng, mode):
    images = rng.integers(0, 256, (3, 70, 90, 3), dtype=np.uint8)
    sr = enlarge(small, torch.cat([to_tensor(image) for image in images]), mode=mode)
    assert sr.shape == (3, 3, 140, 180)
    assert 0 <= sr.min() < 0.01 < 0.99 < sr.max() <= 1
    assert not sr.requires_grad
    assert not sr.is_inference()  # the caller may change it, or feed it to a network in training
    for image, one in zip(images, sr, strict=True):
        assert abs(to_uint8(one[None]).astype(int) - upscale(small, image, mode=mode)).max() <= 1


def test_tensors_use_the_default_mode_and_any_scale(two_scales):
    model, lr = load_model(two_scales, device="cpu"), torch.rand(2, 3, 60, 100, dtype=torch.float64)
    before = lr.clone()
    for scale in (2, 3):
        expected = make_local(model, 48)(lr.float(), scale).clamp(0, 1)
        torch.testing.assert_close(enlarge(model, lr, scale), expected)
    torch.testing.assert_close(enlarge(model, lr), enlarge(model, lr, 2))
    assert torch.equal(lr, before)
    assert enlarge(model, lr[:, :, :1, :1]).shape == (2, 3, 2, 2)


@pytest.mark.parametrize(
    "lr", [torch.zeros(3, 4, 4), torch.zeros(1, 4, 4, 4), torch.zeros(1, 3, 4, 4).byte(), torch.zeros(0, 3, 4, 4)]
)
def test_invalid_tensors(small, lr):
    with pytest.raises(HRNError):
        enlarge(small, lr)


def test_options_reach_the_network(small, image, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda network: compiled.append(network) or network)
    exact, near = (upscale(small, image, precision=p, compile=True).astype(int) for p in ("fp32", "bf16"))
    assert 0 < abs(exact - near).mean() < 2
    assert len(compiled) == 2
    difference = (enlarge(small, to_tensor(image)) - enlarge(small, to_tensor(image), precision="bf16")).abs()
    assert 0 < difference.mean() < 2 / 255


def test_the_expected_model_and_scale_are_checked(two_scales):
    assert load_model(str(two_scales), scale=3, device="cpu").config.scales == (2, 3)
    for wrong in ({"scale": 4}, {"model": "hrn_light"}):
        with pytest.raises(HRNError, match=two_scales.name):
            load_model(two_scales, device="cpu", **wrong)


def test_the_memory_limit_reaches_the_network(repeat, rng):
    network, lr = repeat(), rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
    upscale(network, lr, mode=Mode("full"), max_memory=150 * 150 * bytes_per_pixel(network, 2))
    assert max(h * w for *_, h, w in network.shapes) < 150 * 150


def test_image_modes_are_kept(new_checkpoint, image):
    model = load_model(new_checkpoint)
    assert upscale(model, Image.fromarray(image[..., 0])).mode == "L"
    assert upscale(model, Image.fromarray(image).quantize(8)).mode == "RGB"
    alpha = image[..., 1]
    rgba = upscale(model, Image.fromarray(np.dstack([image, alpha])))
    assert rgba.mode == "RGBA"
    assert (np.asarray(rgba)[..., 3] == imresize(alpha, scale=2)).all()
    assert upscale(model, Image.fromarray(np.dstack([image[..., 0], alpha]), "LA")).mode == "LA"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (50, 3)])
def test_tiny_images(new_checkpoint, size):
    for mode in MODES:
        sr = upscale(load_model(new_checkpoint), np.full((*size, 3), 100, np.uint8), mode=Mode(mode))
        assert sr.shape == (2 * size[0], 2 * size[1], 3)
        assert abs(sr.astype(int) - 100).max() <= 10  # a new network is bilinear, but for the zeros around the image


@pytest.mark.parametrize("mode", ["local", "full"])
@pytest.mark.parametrize("size", [(700, 40), (40, 700)])
def test_large_images_are_divided_into_tiles(new_checkpoint, rng, size, mode):
    """A new network depends on a few pixels only, so that tiles give the result of the whole image, except for rounding."""
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    model = load_model(new_checkpoint)
    whole = upscale(model, image, mode=Mode(mode)).astype(int)
    difference = abs(upscale(model, image, mode=Mode(mode, tile=128)) - whole)
    assert difference.max() <= 1
    assert difference.mean() < 0.01


@pytest.mark.parametrize("mode", [Mode("local", tile=128), Mode("full", tile=128), Mode("windows")], ids=str)
def test_no_step_at_the_border_of_a_tile(root, mode):
    """The difference to the whole image is as smooth at borders as inside tiles, for a trained network and a photograph."""
    import skimage.data

    image = skimage.data.astronaut()[:200, 100:360]
    model = load_model(root / "checkpoint/hrn_light/hrn_light_x4.pth", device="cpu")
    whole = upscale(model, image, mode=Mode("full" if mode.name == "windows" else mode.name)).astype(float)
    layout = mode.layout(image.shape[:2], 10**9)
    difference = upscale(model, image, mode=mode) - whole
    for axis in (0, 1):
        edges = spans(image.shape[axis], layout.window[axis], layout.overlap, layout.aligned)
        borders = sorted({4 * edge for span in edges for edge in span} - {0, 4 * image.shape[axis]})
        steps = abs(np.diff(difference, axis=axis)).mean(axis=(1 - axis, 2))
        assert len(borders) >= 2
        at_borders = steps[[b - 1 for b in borders]].max()
        assert at_borders <= np.delete(steps, [b - 1 for b in borders]).max()


@pytest.mark.parametrize(
    "values", [("window",), ("windows", 16, 16), ("windows", 16, -1), ("local", 0), ("full", 48, 16, 0)]
)
def test_invalid_modes(values):
    with pytest.raises(HRNError):
        Mode(*values)


def test_self_ensemble_in_every_mode(small, image):
    for mode in (Mode("full"), Mode("local", 16), Mode("windows", 32, 8)):
        once = upscale(small, image, mode=mode, ensemble=True)
        turned = upscale(small, np.ascontiguousarray(np.rot90(image)), mode=mode, ensemble=True)
        if mode.name == "full":  # in other modes, blocks and windows start at another corner
            assert abs(once.astype(int) - np.rot90(turned, -1)).max() <= 1
        assert (once != upscale(small, image, mode=mode)).any()


@pytest.mark.parametrize(("side", "max_memory", "calls"), [(16, None, 2), (100, None, 8), (16, 4 * 256 * 500, 8)])
def test_views_of_small_images_share_a_batch(repeat, rng, side, max_memory, calls):
    """Four views share a batch if they fit into it and into memory. A pixel of this network needs more than 500 bytes."""
    network, lr = repeat(), rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    enlarger = Enlarger(network, mode=Mode("full"), ensemble=True, max_memory=max_memory)
    assert (enlarger(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert [shape[0] for shape in network.shapes] == [8 // calls] * calls


@pytest.mark.parametrize("mode", [Mode("full"), Mode("full", tile=64), Mode("windows", 32, 8)])
def test_only_uint8_is_copied_to_the_host(repeat, rng, monkeypatch, mode):
    """Blending and rounding run on the device."""
    copied, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: copied.append(x.dtype) or cpu(x))
    lr = rng.integers(0, 256, (100, 90, 3), dtype=np.uint8)
    assert (Enlarger(repeat(), mode=mode)(lr) == lr.repeat(2, 0).repeat(2, 1)).all()
    assert set(copied) == {torch.uint8}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float32_is_not_tf32(small, image, monkeypatch, precision):
    """PyTorch uses TF32 for convolutions on a GPU by default."""
    asked = []

    @contextmanager
    def inference_convolutions(device, *, tf32):
        asked.append((device.type, tf32))
        yield

    monkeypatch.setattr(module, "inference_convolutions", inference_convolutions)
    Enlarger(small, precision=precision)(image)
    assert set(asked) == {("cpu", False)}


def test_compiling_without_a_compiler(small, monkeypatch):
    monkeypatch.setattr(module, "missing_for_compile", lambda device: "a compiler (g++)")
    with pytest.raises(HRNError, match=r"g\+\+"):
        Enlarger(small, compile=True)
    Enlarger(small)


def test_networks_that_are_compiled_or_not_in_float32(new_checkpoint, image):
    network = load_model(new_checkpoint, device="cpu")
    with pytest.raises(HRNError, match="compile=True"):
        upscale(torch.compile(network), image)
    with pytest.raises(HRNError, match=r"float16.*precision"):
        upscale(network.half(), image)


@pytest.mark.slow
def test_compiled_is_the_same(small, image, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    for mode in (Mode("local", 16), Mode("windows", 32, 8)):
        plain, compiled = (Enlarger(small, mode=mode, compile=c)(image) for c in (False, True))
        assert abs(plain.astype(int) - compiled).max() <= 1


@pytest.mark.parametrize("precision", ["fp16", "tf32", "int8"])
def test_unsupported_precisions(small, precision):
    with pytest.raises(HRNError, match=precision):
        Enlarger(small, precision=precision)


def test_released_networks_use_mode_full():
    network = build_model(preset("hrn_released", [2])).eval().requires_grad_(False)
    assert str(Enlarger(network).mode) == "full"


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_invalid_arrays(small, array):
    with pytest.raises(HRNError):
        upscale(small, array)


def test_arrays_may_be_views_and_read_only(small, image):
    turned, frozen = np.rot90(image), image.copy()
    frozen.flags.writeable = False
    assert (upscale(small, turned) == upscale(small, np.ascontiguousarray(turned))).all()
    assert (upscale(small, frozen) == upscale(small, image)).all()


def test_untrained_scales(new_checkpoint, image):
    with pytest.raises(HRNError, match="x3"):
        Enlarger(load_model(new_checkpoint), 3)
    assert upscale(load_model(new_checkpoint), image, 3).shape == (144, 192, 3)  # x2 twice, then reduced


def test_any_size(new_checkpoint, image):
    model = load_model(new_checkpoint)
    assert upscale(model, image, 2.5).shape == (120, 160, 3)
    assert upscale(model, Image.fromarray(image), size=(100, 77)).size == (100, 77)
    alpha = Image.fromarray(np.dstack([image, image[..., :1]]))
    assert upscale(model, alpha, long_edge=150).size == (150, 112)
    with pytest.raises(HRNError):
        upscale(model, image, 2, long_edge=100)


def test_non_finite_results_are_rejected(new_checkpoint, image):
    model = load_model(new_checkpoint)
    model.head.bias.data.fill_(float("nan"))
    with pytest.raises(HRNError):
        upscale(model, image)


def test_tensors_with_nan_are_rejected(new_checkpoint):
    """The message names the image, not the checkpoint."""
    lr = torch.full((1, 3, 8, 8), float("nan"))
    with pytest.raises(HRNError, match="image"):
        enlarge(load_model(new_checkpoint), lr)


def test_missing_device(new_checkpoint):
    with pytest.raises(HRNError, match="cuda:99"):
        load_model(new_checkpoint, device="cuda:99")


@pytest.mark.parametrize("mode", MODES)
def test_a_network_in_training_mode_is_refused_and_keeps_its_statistics(small, image, mode):
    before = {name: buffer.clone() for name, buffer in small.named_buffers()}
    enlarger = Enlarger(small, mode=Mode(mode))
    small.train()
    with pytest.raises(HRNError, match="eval"):
        Enlarger(small, mode=Mode(mode))
    if mode == "local":  # the network was copied
        enlarger(image)
    else:
        with pytest.raises(HRNError, match="eval"):
            enlarger(image)
    assert all(torch.equal(buffer, before[name]) for name, buffer in small.named_buffers())
