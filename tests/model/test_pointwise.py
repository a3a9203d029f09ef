"""On CUDA, 1x1 convolutions are matrix products and fusions are one convolution. The results are the same."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hrn.model import build_model, pointwise, preset
from hrn.model.blocks import WRDB
from hrn.model.config import HRNConfig
from hrn.model.norm import set_norm


def results(network, x):
    """The output and all gradients."""
    network.zero_grad()
    y = network(x)
    (y - 0.5).square().mean().backward()
    return [y.detach(), *(p.grad.clone() for p in network.parameters())]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("group", [None, 2])
def test_the_same_output_and_gradients(monkeypatch, layout, group):
    network = build_model(preset("hrn_light", [2])).to(memory_format=layout)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.05)
    if group:
        set_norm(network, group_size=group, frozen=False)
    else:
        network.eval()
    x = torch.rand(4, 3, 12, 20).to(memory_format=layout)
    expected, names = results(network, x), list(network.state_dict())
    monkeypatch.setattr(pointwise, "PRODUCT_DEVICES", ("cpu",))
    for found, wanted in zip(results(network, x), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)
    assert list(network.state_dict()) == names


class CountConvolutions(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("device", "expected"), [("cuda", 6 + 3), ("cpu", 6 + (2 + 3 + 4) + 3 * 3)])
def test_convolutions_of_a_block(device, expected):
    """Three WRABs of two 3x3 convolutions; fusions of 2, 3 and 4 maps; three 1x1 convolutions in each attention."""
    with FakeTensorMode(), torch.device(device):
        block = WRDB(8, HRNConfig(n_wrab=3, expansion=2, reduction=2)).eval()
        x = torch.empty(2, 8, 12, 12)
        with CountConvolutions() as convolutions, torch.no_grad():
            assert block(x).device.type == device
    assert convolutions.count == expected
