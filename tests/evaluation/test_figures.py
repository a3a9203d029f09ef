import numpy as np
from PIL import Image

from hrn.evaluation.figures import compare, telling_crop


def test_crop_is_where_the_gain_is():
    hr = np.full((100, 150, 3), 128, np.uint8)
    worse, better = hr.copy(), hr.copy()
    worse[60:70, 100:110] = 0
    better[:, :50] = 140  # worse there, and not to be shown
    x, y, w, h = telling_crop(hr, worse, better, side=20)
    assert (w, h) == (20, 20)
    assert x <= 100
    assert x + w >= 110
    assert y <= 60
    assert y + h >= 70
    assert telling_crop(hr[:9], worse[:9], better[:9])[2:] == (9, 9)


def test_compare_draws_a_picture(tmp_path, image):
    for suffix in ("png", "pdf"):
        path = tmp_path / f"figure.{suffix}"
        compare(path, "a", image, {"b": image // 2}, crop=(8, 8, 24, 24), shave=4)
        assert path.stat().st_size > 1000
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 2 * figure.height
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 100
