import io

import numpy as np
import pytest
from PIL import Image

from hrn.data import images
from hrn.data.images import list_images, read_picture, read_rgb, write_image
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
    Image.fromarray(image).quantize(16).save(tmp_path / "p.png", transparency=0)
    assert set(np.unique(read_picture(tmp_path / "p.png").alpha)) <= {0, 255}


def test_alpha_is_kept_apart(tmp_path, image):
    alpha = np.arange(image[..., 0].size, dtype=np.uint8).reshape(image.shape[:2])
    Image.fromarray(np.dstack([image, alpha])).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (picture.rgb == image).all()
    assert (picture.alpha == alpha).all()


def test_exif_rotation_is_applied(tmp_path, image):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    Image.fromarray(image).save(tmp_path / "e.png", exif=exif)
    assert (read_rgb(tmp_path / "e.png") == np.rot90(image, -1)).all()


def test_cmyk(tmp_path, image):
    Image.fromarray(image).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert read_rgb(tmp_path / "c.jpg").shape == image.shape


def test_icc_profile_is_kept(tmp_path, image):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(image).save(tmp_path / "i.png", icc_profile=profile)
    picture = read_picture(tmp_path / "i.png")
    assert picture.icc_profile == profile
    write_image(tmp_path / "o.png", picture)
    assert read_picture(tmp_path / "o.png").icc_profile == profile


def deep_png(width: int, height: int) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(6 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_are_refused_not_cut(tmp_path, image):
    (tmp_path / "rgb16.png").write_bytes(deep_png(4, 3))
    Image.fromarray(image[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    for name in ("rgb16.png", "grey16.png"):
        with pytest.raises(HRNError, match=f"{name}.*more than 8 bits"):
            read_rgb(tmp_path / name)


def png_bytes(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "not an image"),
        (b"hello, this is not an image", "not an image"),
        ("truncated", "damaged or truncated"),
        ("flipped", "damaged or truncated"),
    ],
)
def test_damaged_files(tmp_path, rng, contents, message):
    noise = png_bytes(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    if contents == "truncated":
        contents = noise[: len(noise) // 2]
    elif contents == "flipped":
        contents = noise[:200] + b"\xff" * 50 + noise[250:]
    (tmp_path / "bad.png").write_bytes(contents)
    with pytest.raises(HRNError, match=f"bad.png: {message}"):
        read_rgb(tmp_path / "bad.png")


def test_missing_file(tmp_path):
    with pytest.raises(HRNError, match=r"no such image file: .*none\.png"):
        read_rgb(tmp_path / "none.png")


def test_too_many_pixels(tmp_path, image, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    Image.fromarray(image).save(tmp_path / "big.png")
    with pytest.raises(HRNError, match=r"big\.png: 64x48 pixels are more than the limit"):
        read_rgb(tmp_path / "big.png")


def test_write_is_whole_or_nothing(tmp_path, image):
    write_image(tmp_path / "new/folder/a.png", image)
    assert (read_rgb(tmp_path / "new/folder/a.png") == image).all()
    with pytest.raises(HRNError, match="unknown image suffix"):
        write_image(tmp_path / "a.xyz", image)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HRNError, match="cannot write"):
        write_image(tmp_path / "file/a.png", image)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.png", "file", "folder", "new"]


def test_list_images(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    assert [p.name for p in list_images(tmp_path, recursive=True)] == ["a.jpg", "b.PNG", "c.webp"]
