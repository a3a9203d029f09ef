import numpy as np
import pytest
import scipy.fft
import torch

from hrn.model.dct import MATRIX_UP_TO, dct, idct

SIZES = [(1, 1), (2, 3), (5, 8), (47, 48), (48, 48), (101, 64), (255, 258)]


@pytest.mark.parametrize("method", ["fft", "matrix", "auto"])
@pytest.mark.parametrize("size", SIZES)
def test_equals_scipy(size, method):
    x = torch.rand(2, 3, *size)
    expected = scipy.fft.dctn(x.double().numpy(), axes=(-2, -1), norm="ortho")
    f = dct(x, method=method)
    assert f.dtype == torch.float32
    # 1e-5 of the largest coefficient: the DC of a large image is in the hundreds
    np.testing.assert_allclose(f.numpy(), expected, atol=1e-5 * max(1.0, abs(expected).max()))
    np.testing.assert_allclose(idct(f, method=method).numpy(), x.numpy(), atol=1e-5)


@pytest.mark.parametrize("method", ["fft", "matrix"])
@pytest.mark.parametrize("size", SIZES)
def test_zero_mean_features_within_1e_5(size, method):
    x = torch.randn(1, 2, *size)
    expected = scipy.fft.dctn(x.double().numpy(), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(dct(x, method=method).numpy(), expected, atol=1e-5)
    expected = scipy.fft.idctn(x.double().numpy(), axes=(-2, -1), norm="ortho")
    np.testing.assert_allclose(idct(x, method=method).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["fft", "matrix"])
@pytest.mark.parametrize("dims", [(-1,), (-2,), (0, 2)])
def test_over_chosen_dimensions(dims, method):
    x = torch.rand(4, 5, 6)
    expected = scipy.fft.dctn(x.double().numpy(), axes=dims, norm="ortho")
    np.testing.assert_allclose(dct(x, dims, method).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(idct(dct(x, dims, method), dims, method).numpy(), x.numpy(), atol=1e-5)


@pytest.mark.parametrize("method", ["fft", "matrix"])
@pytest.mark.parametrize("size", [(1, 2), (4, 5), (7, 6)])
@pytest.mark.parametrize("transform", [dct, idct])
def test_gradients(transform, size, method):
    x = torch.rand(1, 2, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: transform(t, method=method), x)


@pytest.mark.parametrize("method", ["fft", "matrix"])
def test_float32_inside_autocast(method):
    x = torch.rand(1, 2, 48, 50)
    with torch.autocast("cpu", torch.bfloat16):
        f = dct(x.bfloat16(), method=method)
    assert f.dtype == torch.float32
    assert torch.equal(f, dct(x.bfloat16().float(), method=method))


def test_matrix_made_in_inference_mode_serves_training():
    n = 37  # not used by other tests
    with torch.inference_mode():
        dct(torch.rand(1, 1, n, n), method="matrix")
    x = torch.rand(1, 1, n, n, requires_grad=True)
    dct(x, method="matrix").sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(("n", "method"), [(MATRIX_UP_TO, "matrix"), (MATRIX_UP_TO + 1, "fft")])
def test_auto_chooses_by_the_length(n, method):
    """The two methods differ in the last bits."""
    x = torch.rand(1, 1, 2, n)
    other = "fft" if method == "matrix" else "matrix"
    assert torch.equal(dct(x, dims=(3,)), dct(x, dims=(3,), method=method))
    assert not torch.equal(dct(x, dims=(3,)), dct(x, dims=(3,), method=other))


def test_unknown_method():
    with pytest.raises(ValueError, match="slow"):
        dct(torch.rand(2, 2), method="slow")
