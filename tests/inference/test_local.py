import numpy as np
import pytest
import torch
from scipy.fft import dctn
from scipy.ndimage import uniform_filter1d

from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger
from hrn.inference.local import BlockTransform, local_mean, make_local
from hrn.inference.mode import Mode
from hrn.model import build_model, preset


def test_a_patch_of_the_training_size_is_enlarged_as_in_training(small):
    x = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(make_local(small, 24)(x), small(x))


def test_means_are_a_box_filter_inside_and_stay_inside(rng):
    x = rng.random((1, 2, 5, 40))
    found = local_mean(torch.from_numpy(x), 8, 3).numpy()
    expected = uniform_filter1d(x, 8, axis=3)  # the box of size 8 reaches from i - 4 to i + 3 in both
    np.testing.assert_allclose(found[..., 4:-4], expected[..., 4:-4], atol=1e-6)
    np.testing.assert_allclose(found[..., 0], x[..., :8].mean(-1), atol=1e-6)
    np.testing.assert_allclose(found[..., -1], x[..., -8:].mean(-1), atol=1e-6)
    np.testing.assert_allclose(local_mean(torch.from_numpy(x), 8, 2).numpy(), x.mean(2, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("size", [(16, 24), (17, 30), (3, 5), (1, 1)])
def test_blocks_are_transformed_one_by_one(rng, size):
    x = rng.random((2, 3, *size)).astype(np.float32)
    transform = BlockTransform((-2, -1), 8)
    f = transform.to_frequency(torch.from_numpy(x))
    mirrored = np.pad(x, [(0, 0), (0, 0), *((0, -n % 8) for n in size)], "symmetric")
    rows, columns = (n // 8 for n in mirrored.shape[2:])
    assert f.shape == (2 * rows * columns, 3, 8, 8)
    for b in range(2):
        for i in range(rows):
            for j in range(columns):
                block = mirrored[b, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                found = f[(b * rows + i) * columns + j].numpy()
                np.testing.assert_allclose(found, dctn(block, axes=(1, 2), norm="ortho"), atol=1e-5)
    np.testing.assert_allclose(transform.to_image(f, size).numpy(), x, atol=1e-5)


def test_tiles_give_nearly_the_whole_image_where_full_ones_do_not(small, rng):
    """Blocks of neighbouring tiles coincide, and distant pixels hardly matter."""
    lr = rng.integers(0, 256, (130, 150, 3), dtype=np.uint8)

    def error(name):
        whole, tiles = (Enlarger(small, mode=Mode(name, 16, tile=tile))(lr).astype(int) for tile in (752, 80))
        return abs(tiles - whole).mean()

    assert error("local") < error("full") / 5


def test_distant_pixels_do_not_matter(small, rng):
    near = torch.rand(1, 3, 40, 300)
    far = near.clone()
    far[..., 200:] = torch.rand(1, 3, 40, 100)
    network = make_local(small, 16)
    difference = (network(near) - network(far)).abs()[..., :200].amax((0, 1, 2))
    assert difference[:200].max() < 1e-5  # HR columns: 100 LR pixels away and more
    assert (small(near) - small(far)).abs()[..., :200].max() > 1e-4


def test_other_networks_are_rejected():
    with pytest.raises(HRNError):
        make_local(build_model(preset("hrn_released", [2])), 48)


def test_the_original_network_is_unchanged(small):
    x = torch.rand(1, 3, 30, 50)
    before = small(x)
    make_local(small, 8)
    assert torch.equal(small(x), before)
