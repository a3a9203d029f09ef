from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from hrn.data.image_writer import check_format, write_image
from hrn.data.images import read_picture, read_rgb
from hrn.errors import HRNError


def test_icc_profile_is_kept(tmp_path, image):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(image).save(tmp_path / "i.png", icc_profile=profile)
    picture = read_picture(tmp_path / "i.png")
    assert picture.icc_profile == profile
    write_image(tmp_path / "o.png", picture)
    assert read_picture(tmp_path / "o.png").icc_profile == profile


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("encoder"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_earlier_file(tmp_path, image, monkeypatch, error):
    def fail(self, path, **options):
        Path(path).write_bytes(b"half")
        raise error

    (tmp_path / "a.jpg").write_bytes(b"earlier")
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises((HRNError, ValueError, KeyboardInterrupt)):
        write_image(tmp_path / "a.jpg", image)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]
    assert (tmp_path / "a.jpg").read_bytes() == b"earlier"


def test_folders_are_made_and_bad_paths_refused(tmp_path, image):
    write_image(tmp_path / "new/folder/a.png", image)
    assert (read_rgb(tmp_path / "new/folder/a.png") == image).all()
    with pytest.raises(HRNError, match="xyz"):
        write_image(tmp_path / "a.xyz", image)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(HRNError, match=r"a\.png"):
        write_image(tmp_path / "file/a.png", image)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.png", "file", "folder", "new"]


@pytest.mark.parametrize(("suffix", "side"), [(".webp", 16384), (".jpg", 65501), (".avif", 65537)])
def test_size_limits_of_formats(tmp_path, suffix, side):
    with pytest.raises(HRNError, match=suffix):
        write_image(tmp_path / f"a{suffix}", np.zeros((1, side, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".tif", ".bmp"])
def test_files_of_more_than_4_gib(tmp_path, suffix):
    huge = np.broadcast_to(np.zeros(3, np.uint8), (40_000, 40_000, 3))  # needs no memory
    with pytest.raises(HRNError, match="4 GiB"):
        write_image(tmp_path / f"a{suffix}", huge)
    check_format(tmp_path / f"a{suffix}", (40_000, 40_000), channels=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".jpg", ".avif"])
def test_lossy_formats_keep_colours_sharp(tmp_path, suffix):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 200, 200
    write_image(tmp_path / f"a{suffix}", stripes)
    assert abs(read_rgb(tmp_path / f"a{suffix}").astype(int) - stripes).mean() < 8
