import struct
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from hrn.data.image_writer import WITHOUT_ALPHA, WITHOUT_GREY, WITHOUT_PROFILE, write_image
from hrn.data.images import EXTENSIONS, read_picture
from hrn.data.resize import Bicubic, imresize
from hrn.errors import HRNError
from hrn.inference.enlarge_file import Job, enlarge_file, list_jobs
from hrn.inference.resizer import Resizer, Size
from hrn.inference.upscale import load_model, upscale


@pytest.fixture
def folder(tmp_path, image):
    for name in ("a.png", "sub/b c.jpg", "sub/deep/ä€.webp", "sub/d.bmp", "sub/d.png", "sub/notes.txt", ".hidden.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("no image") if path.suffix == ".txt" else Image.fromarray(image).save(path)
    return tmp_path / "photos"


def test_names_and_subfolders_are_kept(folder, tmp_path):
    found = {
        str(j.source.relative_to(folder)): str(j.target.relative_to(tmp_path))
        for j in list_jobs(folder, tmp_path / "out")
    }
    assert found == {
        "a.png": "out/a.png",
        "sub/b c.jpg": "out/sub/b c.png",
        "sub/deep/ä€.webp": "out/sub/deep/ä€.png",
        "sub/d.bmp": "out/sub/d.bmp.png",
        "sub/d.png": "out/sub/d.png.png",
    }


def test_no_two_images_share_a_target(tmp_path):
    for name in ("a.png", "a.jpg", "a.jpg.png", "b.png"):
        (tmp_path / name).touch()
    found = {j.source.name: j.target.name for j in list_jobs(tmp_path, tmp_path / "out")}
    assert len(set(found.values())) == 4
    assert found["b.png"] == "b.png"


def test_earlier_results_are_excluded(folder):
    (folder / "sample/x2").mkdir(parents=True)
    (folder / "sample/x2/a.png").touch()
    assert len(list_jobs(folder, folder / "sample/x4", exclude=folder / "sample")) == 5
    assert len(list_jobs(folder, folder / "sample/x4")) == 6


def test_results_elsewhere_or_beside_the_images(folder, tmp_path):
    """Images inside the results folder are included, except for results."""
    assert len(list_jobs(folder, tmp_path / "light/photos/x4/SR", exclude=tmp_path)) == 5
    assert len(list_jobs(folder / "sub", folder / "light/sub/x4/SR", exclude=folder)) == 4
    assert len(list_jobs(folder, folder / "light/photos/x4/SR", exclude=folder)) == 5
    (folder / "light/photos/x2/SR").mkdir(parents=True)
    (folder / "light/photos/x2/SR/a.png").touch()
    assert len(list_jobs(folder, folder / "light/photos/x4/SR", exclude=folder)) == 5
    assert len(list_jobs(folder, folder / "light/photos/x4/SR", exclude=tmp_path)) == 5


class Fails(Bicubic):
    """Yields one strip and then raises an error."""

    def __init__(self, error):
        super().__init__(2)
        object.__setattr__(self, "error", error)

    def strips(self, image):
        if isinstance(self.error, AssertionError):
            raise self.error
        yield next(super().strips(image))
        raise self.error


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_out_of_memory_is_reported_for_the_file(folder, tmp_path, suffix):
    """The other images of a folder can then still be enlarged."""
    job = Job(folder / "a.png", tmp_path / f"out/a{suffix}")
    for error in (MemoryError(), torch.OutOfMemoryError("out of memory"), RuntimeError("can't allocate memory")):
        with pytest.raises(HRNError, match=r"a\.png.*64x48.*128x96"):
            enlarge_file(job, Fails(error))
    for error in (RuntimeError("size mismatch"), RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR")):
        with pytest.raises(RuntimeError) as caught:
            enlarge_file(job, Fails(error))
        assert caught.value is error
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_target_that_cannot_be_written_costs_no_time(folder, tmp_path, suffix):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(HRNError, match=f"cannot write .*a{suffix}"):
        enlarge_file(Job(folder / "a.png", tmp_path / f"out/a{suffix}"), Fails(AssertionError("enlarged")))


def test_a_result_is_in_memory_once(tmp_path, image):
    """For formats that are not written strip by strip."""
    Image.fromarray(np.tile(image, (100, 4, 1))).save(tmp_path / "a.png")
    tracemalloc.start()  # Pillow's own memory is not traced
    enlarge_file(Job(tmp_path / "a.png", tmp_path / "b.bmp"), Bicubic(2))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    before, after = (read_picture(tmp_path / name).rgb.nbytes for name in ("a.png", "b.bmp"))
    assert peak < before + 1.7 * after


def test_a_result_never_replaces_its_source(folder):
    before = (folder / "a.png").read_bytes()
    with pytest.raises(HRNError, match=r"a\.png"):
        enlarge_file(Job(folder / "a.png", folder / "sub/../a.png"), Bicubic(2))
    assert (folder / "a.png").read_bytes() == before


def test_sizes_that_cannot_be_reached(folder, tmp_path):
    with pytest.raises(HRNError, match="cannot enlarge"):
        enlarge_file(Job(folder / "a.png", tmp_path / "b.png"), Resizer([Bicubic(2)], Size(factor=1e9)))


def test_names_that_differ_in_capitals_only(tmp_path, image):
    for name in ("IMG_1.JPG", "img_1.png", "Other.png", "a.bmp", "A.bmp"):
        Image.fromarray(image).save(tmp_path / name)
    found = {job.source.name: job.target.name for job in list_jobs(tmp_path, tmp_path / "out")}
    same = {} if len(found) == 4 else {"a.bmp": "a.bmp.png", "A.bmp": "A.bmp.png"}
    assert found == {"IMG_1.JPG": "IMG_1.JPG.png", "img_1.png": "img_1.png.png", "Other.png": "Other.png", **same}


def test_limits_of_formats(tmp_path, image):
    Image.fromarray(np.dstack([image, image[..., :1]])).save(tmp_path / "a.png")
    assert "transparency" in enlarge_file(Job(tmp_path / "a.png", tmp_path / "b.jpg"), Bicubic(2))
    assert "transparency" not in enlarge_file(Job(tmp_path / "a.png", tmp_path / "b.webp"), Bicubic(2))
    Image.fromarray(np.zeros((1, 9000, 3), np.uint8)).save(tmp_path / "wide.png")
    with pytest.raises(HRNError, match="18000x2"):
        enlarge_file(Job(tmp_path / "wide.png", tmp_path / "wide.webp"), Bicubic(2))


@pytest.mark.parametrize("suffix", [".psd", ".xyz"])
def test_formats_that_cannot_be_written(tmp_path, image, suffix):
    """PSD files can be read, but not written."""
    write_image(tmp_path / "a.png", image)
    with pytest.raises(HRNError, match=rf"b\{suffix}: unknown image suffix"):
        enlarge_file(Job(tmp_path / "a.png", tmp_path / f"b{suffix}"), Fails(AssertionError("enlarged")))


def test_a_single_file_and_another_suffix(folder, tmp_path):
    assert list_jobs(folder / "a.png", tmp_path, ".jpg") == [Job(folder / "a.png", tmp_path / "a.jpg")]


def test_a_folder_without_images(tmp_path):
    with pytest.raises(HRNError, match=str(tmp_path)):
        list_jobs(tmp_path, tmp_path)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_image_modes(tmp_path, rng, image, mode, suffix):
    """130 rows, so that the bicubic takes three strips."""
    tall = np.tile(image, (3, 1, 1))[:130]
    alpha = rng.integers(1, 256, tall.shape[:2], dtype=np.uint8)
    picture = (
        Image.fromarray(np.dstack([tall, alpha])).convert(mode)
        if mode in ("LA", "RGBA")
        else Image.fromarray(tall).convert(mode)
    )
    picture.save(tmp_path / "in.tif")
    done = []
    summary = enlarge_file(Job(tmp_path / "in.tif", tmp_path / f"out{suffix}"), Bicubic(2), done.append)
    assert f"{tall.shape[1]}x130 -> {2 * tall.shape[1]}x260" in summary
    assert sum(done) == 130 * tall.shape[1]
    assert len(done) == 3
    read, sr = read_picture(tmp_path / "in.tif"), read_picture(tmp_path / f"out{suffix}")
    assert sr.grey == (mode in ("L", "LA", "1")) or suffix == ".webp"  # WebP has no grey mode
    assert abs(sr.rgb.astype(int) - imresize(read.rgb, scale=2)).max() <= 1  # grey goes through RGB and back
    if mode in ("LA", "RGBA"):
        assert (sr.alpha == imresize(alpha, scale=2)).all()
    else:
        assert sr.alpha is None


def test_the_first_frame_is_enlarged(tmp_path, image):
    frames = [Image.fromarray(np.roll(image, i * 9, 1)) for i in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert "several frames" in enlarge_file(Job(tmp_path / "a.webp", tmp_path / "b.png"), Bicubic(2))
    assert (read_picture(tmp_path / "b.png").rgb == imresize(image, scale=2)).all()


def grey_profile() -> bytes:
    """A linear grey profile (ICC.1:2001-04), with which mid-grey is much lighter than in sRGB."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)  # D50
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0) + bytes(4)
    tags, data = b"", b""
    for name, value in ((b"wtpt", white), (b"kTRC", curve)):
        tags += struct.pack(">4sII", name, 128 + 4 + 2 * 12 + len(data), len(value))
        data += value
    size = 128 + 4 + len(tags) + len(data)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12)
    header += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 2) + tags + data


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("suffix", EXTENSIONS)
@pytest.mark.parametrize(
    ("mode", "profile"),
    [("L", grey_profile()), ("LA", grey_profile()), ("L", SRGB), ("RGB", SRGB), ("RGBA", SRGB)],
    ids=["L", "LA", "L, sRGB", "RGB", "RGBA"],
)
def test_profiles_and_their_colours(tmp_path, mode, profile, suffix):
    colour = {"L": 64, "LA": (64, 200), "RGB": (64, 90, 30), "RGBA": (64, 90, 30, 200)}[mode]
    Image.new(mode, (16, 16), colour).save(tmp_path / "a.png", icc_profile=profile)
    summary = enlarge_file(Job(tmp_path / "a.png", tmp_path / f"b{suffix}"), Bicubic(2))
    sr = read_picture(tmp_path / f"b{suffix}")
    converted = profile != SRGB and suffix in WITHOUT_GREY
    assert sr.icc_profile == (None if converted or suffix in WITHOUT_PROFILE else profile)
    assert sr.grey == (mode in ("L", "LA") and suffix not in WITHOUT_GREY)
    expected = 137 if converted else np.resize(colour, 3 if mode[0] == "R" else 1)  # sRGB value of a linear 64 / 255
    assert abs(sr.rgb.astype(int) - expected).max() <= 3
    assert (sr.alpha is None) == (mode in ("L", "RGB") or suffix in WITHOUT_ALPHA)
    assert sr.alpha is None or abs(sr.alpha.astype(int) - 200).max() <= 3
    assert ("colour profile" in summary) == (suffix == ".bmp")


def test_a_broken_profile_of_grey_is_left_out(tmp_path):
    broken = grey_profile()[:140]
    Image.new("L", (16, 16), 64).save(tmp_path / "a.png", icc_profile=broken)
    enlarge_file(Job(tmp_path / "a.png", tmp_path / "b.webp"), Bicubic(2))
    sr = read_picture(tmp_path / "b.webp")
    assert sr.icc_profile is None
    assert (sr.rgb == 64).all()


def test_hidden_colours_do_not_bleed_into_edges(tmp_path):
    """A white square on transparent black stays white."""
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    enlarge_file(Job(tmp_path / "a.png", tmp_path / "b.png"), Bicubic(4))
    result = read_picture(tmp_path / "b.png")
    assert (result.rgb[result.alpha > 0] == 255).all()
    expected = upscale(load_model("hrn_light_x4", device="cpu"), tmp_path / "a.png")
    shown = np.asarray(expected)[..., 3] > 0
    assert np.asarray(expected)[shown][:, :3].min() > 250


def test_a_target_name_that_is_too_long_is_an_error_of_its_file(tmp_path, image):
    name = "a" * 251 + ".jpg"
    Image.fromarray(image).save(tmp_path / name)
    with pytest.raises(HRNError, match="cannot write"):
        enlarge_file(Job(tmp_path / name, tmp_path / ("a" * 251 + ".webp")), Bicubic(2))
