"""The real FFT with channels for its parts, against numpy."""

import numpy as np
import pytest
import torch

from hrn.model.fft import inverse_real_fft, real_fft


@pytest.mark.parametrize("dims", [(-2, -1), (-1,)])
@pytest.mark.parametrize("size", [(1, 1), (4, 5), (7, 6)])
def test_equals_numpy_and_is_inverted(size, dims):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = np.fft.rfftn(x.numpy(), axes=dims, norm="ortho")
    f = real_fft(x, dims)
    np.testing.assert_allclose(f.numpy(), np.concatenate([expected.real, expected.imag], axis=1), atol=1e-12)
    torch.testing.assert_close(inverse_real_fft(f, dims, size), x)


def test_float32_inside_autocast():
    x = torch.rand(1, 2, 9, 8)
    with torch.autocast("cpu", torch.bfloat16):
        f = real_fft(x.bfloat16(), (-2, -1))
        assert inverse_real_fft(f.bfloat16(), (-2, -1), (9, 8)).dtype == torch.float32
    assert f.dtype == torch.float32
