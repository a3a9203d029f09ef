import base64
import errno
import io
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from hrn.data import images
from hrn.data.image_writer import write_image
from hrn.data.images import check_pixels, count_pixels, list_images, picture_of, read_picture, read_rgb
from hrn.errors import HRNError


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".tif", ".bmp"])
def test_formats(tmp_path, image, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(image).save(path, quality=95)
    got = read_rgb(path)
    assert got.shape == image.shape
    assert np.abs(got.astype(int) - image).mean() < 5


def test_grey_is_three_equal_channels(tmp_path, image):
    Image.fromarray(image[..., 0]).save(tmp_path / "g.png")
    picture = read_picture(tmp_path / "g.png")
    assert picture.grey
    assert (picture.rgb == image[..., :1]).all()


def test_palette(tmp_path, image):
    paletted = Image.fromarray(image).quantize(16)
    paletted.save(tmp_path / "p.png")
    picture = read_picture(tmp_path / "p.png")
    assert (picture.rgb == np.asarray(paletted.convert("RGB"))).all()
    assert picture.alpha is None


def test_palette_with_transparency(tmp_path, image):
    paletted = Image.fromarray(image).quantize(16)
    paletted.save(tmp_path / "p.png", transparency=3)
    indices = np.asarray(paletted)
    assert (indices == 3).any()
    assert (read_picture(tmp_path / "p.png").alpha == np.where(indices == 3, 0, 255)).all()


def test_alpha_is_kept_apart(tmp_path, image):
    alpha = np.arange(image[..., 0].size, dtype=np.uint8).reshape(image.shape[:2])
    Image.fromarray(np.dstack([image, alpha])).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (picture.rgb == image).all()
    assert (picture.alpha == alpha).all()


def test_exif_rotation_is_applied(tmp_path, image):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated clockwise
    Image.fromarray(image).save(tmp_path / "e.png", exif=exif)
    assert (read_rgb(tmp_path / "e.png") == np.rot90(image, -1)).all()


def test_cmyk(tmp_path, image):
    Image.fromarray(image).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert read_rgb(tmp_path / "c.jpg").shape == image.shape
    Image.fromarray(image).convert("CMYK").save(tmp_path / "c.tif", icc_profile=b"a broken profile")
    picture = read_picture(tmp_path / "c.tif")
    assert (picture.rgb == np.asarray(Image.open(tmp_path / "c.tif").convert("RGB"))).all()
    assert picture.icc_profile is None  # it does not describe RGB


def test_lab(tmp_path, image):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(Image.fromarray(image), srgb, lab, outputMode="LAB").save(tmp_path / "l.tif")
    assert np.abs(read_rgb(tmp_path / "l.tif").astype(int) - image).mean() < 2


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_the_first_of_several_frames(tmp_path, image, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(image).save(path, save_all=True, append_images=[Image.fromarray(image[::-1])], lossless=True)
    picture = read_picture(path)
    assert picture.animated
    assert (picture.rgb == image).all()


@pytest.mark.parametrize("suffix", [".gif", ".tif"])
def test_damage_after_the_first_frame_does_no_harm(tmp_path, image, suffix):
    path = tmp_path / f"a{suffix}"
    frames = [Image.fromarray(np.roll(image, 9 * i, 1)).quantize(64) for i in range(3)]
    frames[0].save(path)
    whole, first = read_rgb(path), path.stat().st_size
    frames[0].save(path, save_all=True, append_images=frames[1:])
    contents = path.read_bytes()
    assert len(contents) > 2 * first
    read = 0
    for length in range(first + 50, len(contents), 997):
        path.write_bytes(contents[:length])
        assert (read_rgb(path) == whole).all()
        read += 1
    assert read > 3


def test_pages_are_not_counted(tmp_path, monkeypatch):
    """Pillow would seek through all of them, which takes minutes for a file of 30 MiB."""
    page = Image.new("L", (1, 1))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page] * 50)
    seeks = []
    seek = TiffImageFile.seek
    monkeypatch.setattr(TiffImageFile, "seek", lambda self, frame: (seeks.append(frame), seek(self, frame)))
    assert read_picture(tmp_path / "a.tif").animated
    assert len(seeks) < 3


def test_pixels_are_counted_without_decoding(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "no.png").write_text("no image")
    assert [count_pixels(tmp_path / n) for n in ("a.png", "cut.png", "no.png", "none.png")] == [64 * 48, 64 * 48, 0, 0]


def test_a_profile_that_png_cannot_hold_is_applied(tmp_path, image, monkeypatch):
    """Pillow refuses PNG files with larger profiles."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(image).save(tmp_path / "a.tif", icc_profile=profile + bytes(2**21))
    picture = read_picture(tmp_path / "a.tif")
    assert picture.icc_profile is None
    assert np.abs(picture.rgb.astype(int) - image).max() <= 1
    Image.fromarray(image).save(tmp_path / "b.tif", icc_profile=b"broken" + bytes(2**21))
    assert (read_picture(tmp_path / "b.tif").rgb == image).all()
    for mode in ("RGBA", "P", "LA"):
        other = Image.fromarray(np.dstack([image, image[..., 0]])).convert(mode)
        other.save(tmp_path / "c.tif", icc_profile=profile + bytes(2**21))
        picture = read_picture(tmp_path / "c.tif")
        assert picture.icc_profile is None
        assert picture.grey == (mode == "LA")
        assert np.abs(picture.rgb.astype(int) - np.asarray(other.convert("RGB"))).max() <= 1
        assert (picture.alpha is None) if mode == "P" else (picture.alpha == image[..., 0]).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(width: int, height: int) -> bytes:
    """Return a 16-bit RGB PNG, which Pillow cannot write."""
    rows = b"".join(b"\0" + bytes(6 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


TEN_BIT_AVIF = (  # 16x16 pixels of 10 bits a channel, by libavif
    "0000WW^{RQVRmU|00000VRmU|ZE0pPZE0a<O+hh10002%ZDn*}000000000XXk=`10000000000aA{+700000000000000000000"
    "4sdC7Z2$lO000310016oY;R)#0000)000310RR910RR926951JBLDyZC~0YKW&i*H00031000_kZf0cy000000RRADb}%tRZ)|UJ"
    "00000YH4tCZ~y=ROKEUpZvX%Q6lrsCWdHyG000005C8xG5C8xG5O8UDX#fBK00RmN3IG5A3}JRLLxCVb000006Ju{|a&BX6cmM(b"
    "0ssbp0000NX>e^}0000000001009I60)qqq001j(WMOm?015~=4FB4|fPthk6&ylh<m>Og@nV1gb$fVuCnBG}wP6"
)


def test_sixteen_bits_are_refused(tmp_path, image):
    (tmp_path / "rgb16.png").write_bytes(deep_png(4, 3))
    Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    tifffile.imwrite(tmp_path / "rgb16.tif", image.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(tmp_path / "grey16.tif", image[..., 0].astype(np.uint16) * 257)
    (tmp_path / "deep.avif").write_bytes(base64.b85decode(TEN_BIT_AVIF))
    for name in ("rgb16.png", "grey16.png", "rgb16.tif", "grey16.tif", "deep.avif"):
        with pytest.raises(HRNError, match=name):
            read_rgb(tmp_path / name)


def png_bytes(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    "contents",
    [b"", b"hello, this is not an image", "truncated", "flipped"],
    ids=["empty", "text", "truncated", "flipped"],
)
def test_damaged_files(tmp_path, rng, contents):
    noise = png_bytes(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    if contents == "truncated":
        contents = noise[: len(noise) // 2]
    elif contents == "flipped":
        contents = noise[:200] + b"\xff" * 50 + noise[250:]
    (tmp_path / "bad.png").write_bytes(contents)
    with pytest.raises(HRNError, match=r"bad\.png"):
        read_rgb(tmp_path / "bad.png")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".avif", ".tif", ".bmp"])
def test_damage_in_any_format_is_an_hrn_error(tmp_path, image, suffix):
    """Damaged pixels may go unnoticed, but no other exception is raised."""
    path = tmp_path / f"a{suffix}"
    Image.fromarray(image).save(path)
    good = path.read_bytes()
    refused = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        bad = bytearray(good)
        for place in rng.integers(0, len(bad) if seed % 2 else min(len(bad), 400), 3):
            bad[place] ^= rng.integers(1, 256)
        path.write_bytes(bad if seed else good[: len(good) // 2])
        count_pixels(path)
        try:
            read_picture(path)
        except HRNError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused


def test_missing_file(tmp_path):
    with pytest.raises(HRNError, match=r"none\.png"):
        read_rgb(tmp_path / "none.png")


def test_too_many_pixels(tmp_path, image, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    Image.fromarray(image).save(tmp_path / "big.png")
    with pytest.raises(HRNError, match=r"big\.png.*100"):
        read_rgb(tmp_path / "big.png")


def headers(width: int, height: int) -> dict[str, bytes]:
    """Return files whose headers claim a size and that contain no pixels."""
    png = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return {
        "a.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", png) + chunk(b"IDAT", b"") + chunk(b"IEND", b""),
        "a.tif": b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4),
    }


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_the_pixel_limit(tmp_path, monkeypatch, name):
    """Pillow's own limit is lower. It must not change for other code."""
    path = tmp_path / name
    before = Image.MAX_IMAGE_PIXELS
    path.write_bytes(headers(20_000, 10_000)[name])
    assert count_pixels(path) == math.prod(check_pixels(path, 400_000_000)) == 200_000_000
    with pytest.raises(HRNError, match=r"200,000,000.* 1,000"):
        check_pixels(path, 1000)
    path.write_bytes(headers(20_050, 20_000)[name])
    assert count_pixels(path) == 0
    with pytest.raises(HRNError, match="400,000,000"):
        read_rgb(path)
    with pytest.raises(HRNError, match="1,000"):
        check_pixels(path, 1000)
    assert before == Image.MAX_IMAGE_PIXELS
    path.write_bytes(headers(200, 100)[name])  # small enough to decode, even under a low limit of Pillow's own
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(HRNError, match=name):
        read_rgb(path)


MEASURE = """
import sys
from pathlib import Path
from hrn.data.images import read_picture

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

before = status("VmRSS")
picture = read_picture(sys.argv[1])
print((status("VmHWM") - before) * 1024 / picture.rgb.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("kind", "peak"), [("RGB", 7 / 3), ("RGBA", 8 / 3), ("L", 4 / 3), ("P", 4 / 3), ("turned", 8 / 3)]
)
def test_decoding_makes_no_copies(tmp_path, kind, peak):
    """Peak memory is the result plus Pillow's image, which has one or four bytes per pixel, or two of these while turning."""
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    Image.new("RGB" if kind == "turned" else kind, (4000, 2500), 1).save(tmp_path / "a.png", exif=exif)
    measured = subprocess.run([sys.executable, "-c", MEASURE, tmp_path / "a.png"], capture_output=True, check=True)
    assert 1 < float(measured.stdout) < peak + 0.75  # another copy of the result would add 1


def test_list_images(tmp_path):
    tmp_path = tmp_path / ".folder"
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "sub/c.webp", ".thumbnails/sub/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    assert [p.name for p in list_images(tmp_path, recursive=True)] == ["a.jpg", "b.PNG", "c.webp"]
    with pytest.raises(HRNError, match="none: No such file"):
        list_images(tmp_path / "none")


def test_folders_and_files_without_permission(tmp_path, image, monkeypatch):
    """They are neither skipped nor called damaged."""
    write_image(tmp_path / "sub/a.png", image)
    scandir = os.scandir

    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) if Path(path).name == "sub" else scandir(path))
    with pytest.raises(HRNError, match="sub: Permission denied"):
        list_images(tmp_path, recursive=True)
    monkeypatch.setattr(Image, "open", refuse)
    for read in (read_rgb, lambda path: check_pixels(path, 100)):
        with pytest.raises(HRNError, match=r"a\.png: cannot be read: Permission denied"):
            read(tmp_path / "sub/a.png")


def test_other_formats_are_refused_under_any_name(tmp_path):
    (tmp_path / "a.png").write_bytes(b"P6 2 1 65535\n" + bytes(12))  # Pillow would truncate its 16 bits
    with pytest.raises(HRNError, match=r"a\.png"):
        read_rgb(tmp_path / "a.png")


def test_pillow_images_of_other_modes(image):
    with pytest.raises(HRNError, match="I;16"):
        picture_of(Image.fromarray(image[..., 0].astype(np.uint16) * 257))
    grey = Image.fromarray(image[..., :2].copy(), "LA")
    assert (picture_of(grey.convert("La")).alpha == image[..., 1]).all()


def test_pillow_images_are_not_modified(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(image)
    turned.info["exif"] = exif.tobytes()
    assert (picture_of(turned).rgb == np.rot90(image, -1)).all()
    assert turned.size == (64, 48)


@pytest.mark.parametrize("exif", [b"II*\0", b"Exif\0\0garbage"])
def test_a_broken_exif_block_is_ignored(tmp_path, image, exif):
    for suffix in (".png", ".webp"):
        Image.fromarray(image).save(tmp_path / f"a{suffix}", exif=exif, lossless=True)
        assert (read_rgb(tmp_path / f"a{suffix}") == image).all()
        with Image.open(tmp_path / f"a{suffix}") as opened:
            assert (picture_of(opened).rgb == image).all()


def test_a_palette_image_without_palette(tmp_path):
    header = struct.pack(">IIBBBBB", 2, 2, 8, 3, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(6))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(HRNError, match=r"a\.png"):
        read_rgb(tmp_path / "a.png")


def test_transparency_of_a_palette_in_memory(image):
    alpha = np.where(image[..., :1] > 127, 255, 0).astype(np.uint8)
    palette = Image.fromarray(np.dstack([image, alpha]), "RGBA").quantize(64)
    assert (picture_of(palette).alpha == np.asarray(palette.convert("RGBA"))[..., 3]).all()


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), OverflowError("too large")])
def test_arithmetic_errors_of_decoders(tmp_path, image, monkeypatch, error):
    """A damaged AVIF sequence can have a time scale of zero."""
    Image.fromarray(image).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", Mock(side_effect=error))
    with pytest.raises(HRNError, match=r"a\.png"):
        read_rgb(tmp_path / "a.png")
