"""The blocks against their equations, written out with plain functions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hrn.model.attention import CoordinateAttention
from hrn.model.blocks import WRAB, WRDB
from hrn.model.config import HRNConfig
from hrn.model.hrn import DEM, FrequencyTransform
from tests.conftest import randomise


def attend(ca: CoordinateAttention, x: torch.Tensor) -> torch.Tensor:
    """Each row and each column by itself, as in Hou et al., section 3.2."""
    out = torch.empty_like(x)
    squeeze, bn = ca.squeeze.weight[:, :, 0, 0], ca.norm

    def gate(z, conv):
        y = squeeze @ z
        y = (y - bn.running_mean) / torch.sqrt(bn.running_var + bn.eps) * bn.weight + bn.bias
        return torch.sigmoid(conv.weight[:, :, 0, 0] @ F.elu(y) + conv.bias)

    for b in range(x.shape[0]):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                g_h = gate(x[b, :, i, :].mean(dim=1), ca.gate_h)
                g_w = gate(x[b, :, :, j].mean(dim=1), ca.gate_w)
                out[b, :, i, j] = x[b, :, i, j] * (g_h * g_w if ca.gates == "multiply" else g_h + g_w)
    return out


@pytest.mark.parametrize("gates", ["multiply", "add"])
@torch.no_grad()
def test_coordinate_attention(gates):
    ca = randomise(CoordinateAttention(8, reduction=4, gates=gates))
    x = torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(ca(x), attend(ca, x))


def test_attention_squeezes_to_one_channel_at_least():
    assert CoordinateAttention(8, reduction=100).squeeze.out_channels == 1


def conv(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)


@torch.no_grad()
def test_wrab():
    block = randomise(WRAB(4, HRNConfig(expansion=3, reduction=2)))
    x = torch.randn(1, 4, 6, 5)
    assert block.widen.out_channels == 12
    expected = x + block.attention(conv(block.narrow, F.elu(conv(block.widen, x))))
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_wrdb_fuses_all_earlier_outputs():
    block = randomise(WRDB(4, HRNConfig(n_wrab=3, expansion=2, reduction=2)))
    x = torch.randn(1, 4, 6, 5)
    a1 = block.blocks[0](x)
    a2 = block.blocks[1](conv(block.fuse[0], torch.cat([x, a1], 1)))
    a3 = block.blocks[2](conv(block.fuse[1], torch.cat([x, a1, a2], 1)))
    expected = x + conv(block.fuse[2], torch.cat([x, a1, a2, a3], 1))
    torch.testing.assert_close(block(x), expected)


@torch.no_grad()
def test_dem_fuses_both_domains():
    import scipy.fft

    dem = randomise(DEM(HRNConfig(channels=4, n_wrab=2, expansion=2, reduction=2)))
    x, f = torch.randn(2, 1, 4, 6, 5)
    f_next = dem.frequency(f)
    b1 = dem.spatial1(x)
    t = F.elu(conv(dem.fuse1, torch.cat([x, b1], 1)))
    b2 = dem.spatial2(t)
    back = torch.from_numpy(scipy.fft.idctn(f_next.numpy(), axes=(-2, -1), norm="ortho"))
    x_next = F.elu(conv(dem.fuse2, torch.cat([x, b1, b2, back], 1)))
    for got, expected in zip(dem(x, f, FrequencyTransform((-2, -1))), (x_next, f_next), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
