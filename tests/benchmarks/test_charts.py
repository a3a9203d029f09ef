"""benchmarks/charts.py: charts are grey and dense, and coloured pixels are counted."""

import numpy as np
import pytest

from benchmarks import charts
from hrn.data.resize import Bicubic, bicubic_lr
from hrn.data.upscaler import Upscaler
from hrn.evaluation.metrics import psnr, score
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model


@pytest.fixture(scope="module")
def images():
    return charts.charts()


class Repeat(Upscaler):
    """Repeats pixels and colours the top half."""

    scale = 4

    def strips(self, image):
        large = np.kron(image, np.ones((4, 4, 1), np.uint8))
        large[: len(large) // 2, :, 0] ^= 64
        yield large


def test_charts_are_grey_and_have_dense_stripes(images):
    for image in images.values():
        assert image.shape == (charts.SIZE, charts.SIZE, 3)
        assert (image == image[..., :1]).all()
        light = image[..., 0] > 127
        runs = [np.diff(np.flatnonzero(np.diff(line))) for line in (*light, *light.T)]
        assert min(run.min() for run in runs if run.size) < 4


def test_coloured_share():
    image = np.full((2, 4, 3), 100, np.uint8)
    image[0, :2] = [100, 132, 100]  # by 32 levels: not yet coloured
    image[1, 3] = [133, 120, 100]
    assert charts.coloured_share(image) == 1 / 8


def test_row(images):
    cells = charts.row("name", Repeat(), images).strip("| ").split(" | ")
    assert cells[:2] == ["name", "x4"]
    assert [cell.split(", ")[1] for cell in cells[2:]] == ["50.00%"] * len(images)
    hr = images["star"]
    expected = score(Repeat()(bicubic_lr(hr, 4)), hr, 4)["psnr_y"]
    assert float(cells[2 + list(images).index("star")].split(", ")[0]) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("name", ["hrn_light_x4", "hrn_base_x4"])
def test_included_weights_are_stable_on_charts(images, name):
    network, bicubic = Enlarger(load_model(name, device="cpu")), Bicubic(4)
    for chart, hr in images.items():
        lr = bicubic_lr(hr, 4)
        sr = network(lr)
        assert charts.coloured_share(sr) < 0.05, chart
        assert psnr(sr, hr) > psnr(bicubic(lr), hr), chart
