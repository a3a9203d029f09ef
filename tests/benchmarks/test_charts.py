"""benchmarks/charts.py: charts are grey and dense, and coloured pixels are counted."""

import numpy as np
import pytest

from benchmarks import charts
from hrn.data.resize import Bicubic, bicubic_lr
from hrn.data.upscaler import Upscaler
from hrn.evaluation.metrics import psnr
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
        changes = np.abs(np.diff((image[..., 0] > 127).astype(int), axis=1)).sum(1)
        assert changes.max() >= 40


def test_row_counts_coloured_pixels(images):
    cells = charts.row("name", Repeat(), images).strip("| ").split(" | ")
    assert cells[:2] == ["name", "x4"]
    assert [cell.split(", ")[1] for cell in cells[2:]] == ["50.00%"] * len(images)


@pytest.mark.parametrize("name", ["hrn_light_x4", "hrn_base_x4"])
def test_included_weights_are_better_than_bicubic_on_charts(images, name):
    network, bicubic = Enlarger(load_model(name, device="cpu")), Bicubic(4)
    for chart, hr in images.items():
        lr = bicubic_lr(hr, 4)
        assert psnr(network(lr), hr) > psnr(bicubic(lr), hr), chart
