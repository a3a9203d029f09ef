import zlib
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from hrn.data.png import write_png
from hrn.errors import HRNError


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
@pytest.mark.parametrize("size", [(1, 1), (200, 3), (3, 200), (131, 70)])
def test_pillow_reads_the_files(tmp_path, rng, mode, channels, size):
    image = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
    edges = sorted({0, min(1, size[0]), size[0] // 2, size[0]})
    parts = (image[a:b] for a, b in pairwise(edges))
    write_png(tmp_path / "a.png", size, channels, parts, b"a profile")
    with Image.open(tmp_path / "a.png") as read:
        assert read.mode == mode
        assert read.info["icc_profile"] == b"a profile"
        assert (np.asarray(read).reshape(image.shape) == image).all()


def test_grey_strips_may_lack_the_channel_axis(tmp_path, rng):
    image = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    write_png(tmp_path / "a.png", (9, 7), 1, [image])
    with Image.open(tmp_path / "a.png") as read:
        assert (np.asarray(read) == image).all()


def test_files_are_small(tmp_path):
    y, x = np.mgrid[:256, :256]
    image = np.stack([x, y, (x + y) // 2], -1).astype(np.uint8)
    write_png(tmp_path / "a.png", (256, 256), 3, [image])
    assert (tmp_path / "a.png").stat().st_size < len(zlib.compress(image.tobytes(), 9)) / 5


def test_an_error_in_the_strips_leaves_the_earlier_file(tmp_path):
    def strips():
        yield np.zeros((4, 8, 3), np.uint8)
        raise HRNError("failed")

    (tmp_path / "a.png").write_text("earlier")
    with pytest.raises(HRNError, match="failed"):
        write_png(tmp_path / "a.png", (8, 8), 3, strips())
    assert (tmp_path / "a.png").read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "strip", [np.zeros((4, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8), np.uint8)]
)
def test_strips_of_the_wrong_size(tmp_path, strip):
    with pytest.raises(ValueError, match="8"):
        write_png(tmp_path / "a.png", (8, 8), 3, [strip])
    assert not list(tmp_path.iterdir())
