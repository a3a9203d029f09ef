import numpy as np
import pytest

from hrn.data.image_writer import write_image
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
        along, across, _ = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False) / np.sqrt(len(pixels))
        assert along > 2
        assert across < 0.5


def test_scale_and_perspective_change_the_stripes(stripes):
    """Twice the scale doubles the periods, so that an image has fewer edges. Without perspective, horizontal stripes would have
    equal columns, and vertical ones equal rows."""
    edges = {2: 0, 4: 0}
    for scale in edges:
        for seed in range(20):
            grey = stripes.draw(np.random.default_rng(seed), 96, scale).astype(float).mean(2)
            light = grey > (grey.min() + grey.max()) / 2
            edges[scale] += np.sum(light[1:] != light[:-1]) + np.sum(light[:, 1:] != light[:, :-1])
    assert edges[2] > 1.4 * edges[4]
    for seed in range(20):
        image = stripes.draw(np.random.default_rng(seed), 96, 4)
        assert (image != image[:1]).any()
        assert (image != image[:, :1]).any()


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
        assert np.ptp(periods) <= 2 / (stripes.OVERSAMPLING * scale)
        means.append(periods.mean())
    assert min(means) >= 1.9
    assert max(means) <= 10.1
    assert max(means) > 4 * min(means)


def test_dense_stripes_fade_to_their_mean(stripes):
    """On a chirp, contrast is full down to a period of 3 LR pixels, and none below 2."""
    scale, lr_pixel = 4, 4 * stripes.OVERSAMPLING
    samples = (np.arange(12000) + 0.5) / stripes.OVERSAMPLING
    chirp = np.tile(0.5 * samples + samples**2 / 1000, (8, 1))  # periods shrink to a thirteenth
    for seed in range(20):
        line = stripes.wave(np.random.default_rng(seed), chirp, scale)[0]
        full = np.flatnonzero(np.minimum(line, 1 - line) > 1e-6)[0]  # the first sample of reduced contrast
        none = np.flatnonzero(np.abs(line - line[-1]) > 1e-6)[-1]  # the last one before the stripes end
        assert local_periods(line[:full])[-1] / lr_pixel == pytest.approx(3, abs=0.15)
        assert np.diff(np.flatnonzero(np.diff(line[: none + 1] > line[-1])))[-2:].sum() / lr_pixel == pytest.approx(
            2, abs=0.15
        )
        first, last = np.flatnonzero(np.diff(line[:full]) > 0.5)[[0, -1]]
        assert line[first:last].mean() == pytest.approx(line[-1], abs=0.03)


@pytest.mark.parametrize("flags", [["--count", "0"], ["--size", "0"], ["--scale", "0"], ["--seed", "-1"], []])
def test_bad_flags(stripes, tmp_path, flags):
    with pytest.raises(SystemExit) as error:
        stripes.main([*flags, *(["--out", str(tmp_path)] if flags else [])])
    assert error.value.code == 2
    assert not list(tmp_path.iterdir())


def test_images_in_the_folder_are_kept(stripes, tmp_path):
    write_image(tmp_path / "0801.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(HRNError, match=tmp_path.name):
        stripes.main(["--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["0801.png"]


def test_an_interruption_leaves_no_part_of_a_folder(stripes, tmp_path, monkeypatch):
    def interrupted(path, image):
        if path.name == "0003.png":
            raise KeyboardInterrupt
        write_image(path, image)

    monkeypatch.setattr(stripes, "write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stripes.main(["--out", str(tmp_path / "new/a"), "--count", "6", "--size", "16"])
    assert not list((tmp_path / "new").iterdir())


def test_out_must_be_a_folder(stripes, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(HRNError, match="file"):
        stripes.main(["--out", str(tmp_path / "file")])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_that_cannot_be_created(stripes, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HRNError, match="file/new"):
        stripes.main(["--out", str(tmp_path / "file/new"), "--count", "1", "--size", "16"])
