import pytest
import torch
from torch.nn import functional as F

from hrn.model.elu import elu


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equals_pytorch(dtype):
    x = torch.cat([torch.linspace(-30, 30, 1001), torch.tensor([0.0, -0.0, -1e-7, 1e-7])]).to(dtype)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    tolerance = {torch.float32: 1e-7, torch.float64: 1e-15, torch.bfloat16: 4e-3}[dtype]
    torch.testing.assert_close(elu(a), F.elu(b), atol=tolerance, rtol=tolerance)
    elu(a).sum().backward()
    F.elu(b).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, atol=tolerance, rtol=tolerance)


def test_gradients():
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(elu, x)


def test_keeps_nan_and_infinity():
    y = elu(torch.tensor([float("nan"), float("inf"), float("-inf")]))
    assert y[0].isnan()
    assert y[1:].tolist() == [float("inf"), -1.0]
