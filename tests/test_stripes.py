import numpy as np
import pytest

from hrn.data.images import list_images, read_rgb
from hrn.errors import HRNError


@pytest.fixture
def stripes(root, load_script):
    return load_script(root / "datasets/stripes.py")


def local_periods(line: np.ndarray) -> np.ndarray:
    """Distances between neighbouring rising edges of a line of grey levels."""
    light = line > (line.min() + line.max()) / 2
    return np.diff(np.flatnonzero(light[1:] & ~light[:-1]))


def test_images_are_reproducible_and_differ(stripes, tmp_path):
    stripes.main(["--out", str(tmp_path / "a"), "--count", "6", "--size", "48"])
    stripes.main(["--out", str(tmp_path / "b"), "--count", "3", "--size", "48"])
    stripes.main(["--out", str(tmp_path / "c"), "--count", "3", "--size", "48", "--seed", "1"])
    a, b, c = ([read_rgb(p) for p in list_images(tmp_path / name)] for name in "abc")
    assert [p.name for p in list_images(tmp_path / "a")] == [f"000{i}.png" for i in range(1, 7)]
    assert all((x == y).all() for x, y in zip(a, b, strict=False))  # more images do not change the first ones
    assert len({image.tobytes() for image in [*a, *c]}) == 9


def test_images_have_two_colours(stripes):
    for seed in range(20):
        image = stripes.draw(np.random.default_rng(seed), 96, 4)
        assert (image.shape, image.dtype) == ((96, 96, 3), np.uint8)
        # every pixel lies on the line between the two colours, except for rounding
        pixels = image.reshape(-1, 3).astype(float)
        off_line = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False)[1] / np.sqrt(len(pixels))
        assert off_line < 0.5


@pytest.mark.parametrize("scale", [2, 4])
def test_waves_have_periods_of_2_to_10_lr_pixels(stripes, scale):
    size = 100 * scale
    samples = (np.arange(size * stripes.OVERSAMPLING) + 0.5) / stripes.OVERSAMPLING
    position = np.tile(samples, (8, 1))
    means = []
    for seed in range(50):
        line = stripes.wave(np.random.default_rng(seed), position, scale)[0]
        assert 0 <= line.min() <= line.max() <= 1
        periods = local_periods(line) / stripes.OVERSAMPLING / scale
        assert np.ptp(periods) <= 1
        means.append(periods.mean())
    assert min(means) >= 1.9
    assert max(means) <= 10.1
    assert max(means) > 4 * min(means)


def test_dense_stripes_fade(stripes):
    """The contrast of a chirp: full at periods over 3 LR pixels, none at periods under 2."""
    scale, size = 4, 400
    samples = (np.arange(size * stripes.OVERSAMPLING) + 0.5) / stripes.OVERSAMPLING
    for seed in range(20):
        # the period of the wave is 1 to 5 times scale * 10 at the left end, and shrinks by a factor of 30
        chirp = np.tile(samples + 29 * samples**2 / (2 * size), (8, 1))
        line = stripes.wave(np.random.default_rng(seed), chirp, scale)[0]
        period = np.exp(np.random.default_rng(seed).uniform(np.log(2), np.log(10))) / (1 + 29 * samples / size)
        dense, coarse = line[period < 1.95], line[period > 3.05]
        assert np.ptp(dense) < 1e-6
        assert set(np.unique(coarse.round(6))) <= {0, 1}


@pytest.mark.parametrize("flags", [["--count", "0"], ["--size", "0"], ["--scale", "0"], ["--seed", "-1"], []])
def test_bad_flags(stripes, tmp_path, flags):
    with pytest.raises(SystemExit) as error:
        stripes.main([*flags, *(["--out", str(tmp_path)] if flags else [])])
    assert error.value.code == 2
    assert not list(tmp_path.iterdir())


def test_out_must_be_a_folder(stripes, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HRNError, match="file"):
        stripes.main(["--out", str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "mine"
