import h5py
import numpy as np
import pytest

from hrn.checkpoint import save_checkpoint
from hrn.data.h5 import H5Pairs
from hrn.errors import HRNError
from hrn.inference.upscale import load_model, upscale
from hrn.model import build_model
from tests.conftest import SMALL, smooth_image


@pytest.fixture
def teacher(root, load_script):
    return load_script(root / "datasets/teacher.py")


@pytest.fixture
def checkpoint(tmp_path):
    save_checkpoint(tmp_path / "small.pth", SMALL, build_model(SMALL).state_dict(), info={})
    return tmp_path / "small.pth"


@pytest.fixture
def flags(h5_path, checkpoint, tmp_path):
    return ["--data", str(h5_path), "--ckpt_path", str(checkpoint), "--out", str(tmp_path / "t.h5"), "--device", "cpu"]


def test_hr_is_the_enlargement_of_lr(teacher, flags, h5_path, checkpoint, tmp_path):
    with h5py.File(h5_path, "r+") as file:
        file["HR/2"].attrs["name"] = "0003_0.8.png"
    teacher.main(flags)
    network = load_model(checkpoint, device="cpu")
    source, pairs = H5Pairs(h5_path, (2,)), H5Pairs(tmp_path / "t.h5", (2,))
    assert len(pairs) == 12
    assert pairs.name(2) == "0003_0.8"
    for i in range(12):
        lr = source.read("X2", i)
        assert (pairs.read("X2", i) == lr).all()
        assert (pairs.read("HR", i) == upscale(network, lr)).all()
    with h5py.File(tmp_path / "t.h5") as file:
        assert set(file) == {"HR", "X2"}


def test_a_random_choice_and_copied_pairs(teacher, flags, h5_path, tmp_path, rng):
    """The images keep their order. Another seed chooses others."""
    with h5py.File(tmp_path / "more.h5", "w") as file:
        hr = smooth_image(rng, 64, 64)
        file["HR/0"], file["X2/0"] = hr, hr[::2, ::2]
    source = H5Pairs(h5_path, (2,))
    lr = [source.read("X2", i).tobytes() for i in range(12)]
    found = []
    for seed in ("0", "0", "1"):
        teacher.main([*flags, "--count", "5", "--seed", seed, "--add", *2 * [str(tmp_path / "more.h5")]])
        pairs = H5Pairs(tmp_path / "t.h5", (2,))
        assert len(pairs) == 7
        for i in (5, 6):
            assert (pairs.read("HR", i) == hr).all()
            assert (pairs.read("X2", i) == hr[::2, ::2]).all()
        found.append([lr.index(pairs.read("X2", i).tobytes()) for i in range(5)])
    assert found[0] == found[1] == sorted(found[0]) != found[2]


@pytest.mark.parametrize(("group", "crop"), [("HR", 90), ("LR", 40)])
def test_random_parts(teacher, flags, h5_path, checkpoint, tmp_path, group, crop):
    """Each lies in its image, and they start at different places."""
    teacher.main([*flags, "--enlarge", group, "--crop", str(crop), "--count", "10"])
    network = load_model(checkpoint, device="cpu")
    source, pairs = H5Pairs(h5_path, (2,)), H5Pairs(tmp_path / "t.h5", (2,))
    images = [source.read("HR" if group == "HR" else "X2", i) for i in range(12)]
    windows = [np.lib.stride_tricks.sliding_window_view(image, (crop, crop, 3)) for image in images]
    places = set()
    for i in range(10):
        lr = pairs.read("X2", i)
        found = [np.argwhere((w == lr).all((-3, -2, -1)))[:, :2] for w in windows]
        assert sum(map(len, found)) == 1
        places.add(tuple(np.concatenate(found)[0]))
        assert (pairs.read("HR", i) == upscale(network, lr)).all()
    assert len(places) > 5


def test_targets_are_averaged_over_flips_and_rotations(teacher, flags, h5_path, checkpoint, tmp_path):
    teacher.main([*flags, "--self_ensemble", "--count", "1"])
    network, pairs = load_model(checkpoint, device="cpu"), H5Pairs(tmp_path / "t.h5", (2,))
    lr, hr = pairs.read("X2", 0), pairs.read("HR", 0)
    assert (hr == upscale(network, lr, ensemble=True)).all()
    assert (hr != upscale(network, lr)).any()


def test_names_and_sizes_select_images(teacher, flags, h5_path, tmp_path, rng):
    with h5py.File(h5_path, "r+") as file:
        for i in (1, 4, 5):
            file[f"HR/{i}"].attrs["name"] = f"000{i}_0.6.png"
        for i, side in ((12, 90), (13, 88)):
            file[f"HR/{i}"], file[f"X2/{i}"] = (smooth_image(rng, n, n) for n in (side, side // 2))
            file[f"HR/{i}"].attrs["name"] = f"{i}_0.6.png"
    teacher.main([*flags, "--match", "*_0.6", "--crop", "45"])
    pairs = H5Pairs(tmp_path / "t.h5", (2,))
    assert [pairs.name(i) for i in range(len(pairs))] == ["0001_0.6", "0004_0.6", "0005_0.6", "12_0.6"]


def test_hr_images_need_no_lr_images(teacher, flags, h5_path, tmp_path):
    with h5py.File(h5_path, "r+") as file:
        del file["X2"]
        hr = file["HR/0"][...]
    teacher.main([*flags, "--enlarge", "HR"])
    assert (H5Pairs(tmp_path / "t.h5", (2,)).read("X2", 0) == hr).all()


def test_a_file_of_hr_larger_than_the_lr_images_cover(teacher, flags, tmp_path, rng):
    """A file for several scales has HR images of one size. The written HR has the size of LR times the scale."""
    with h5py.File(tmp_path / "carn.h5", "w") as file:
        file["HR/0"], file["X2/0"] = np.zeros((97, 96, 3), np.uint8), smooth_image(rng, 48, 48)
    teacher.main(flags)
    assert H5Pairs(tmp_path / "t.h5", (2,)).read("HR", 0).shape == (96, 96, 3)


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        (["--count", "13"], r"carn.h5: 12 images match '\*', but 13 are needed"),
        (["--crop", "49"], "carn.h5: 0 images of at least 49x49 pixels match"),
        (["--match", "a*"], r"carn.h5: 0 images match 'a\*'"),
        (["--scale", "3"], "x3"),
        (["--add", "missing.h5"], "no such h5 file: missing.h5"),
        (["--ckpt_path", "missing.pth"], "no such checkpoint: missing.pth"),
    ],
)
def test_errors(teacher, flags, tmp_path, extra, match):
    with pytest.raises(HRNError, match=match):
        teacher.main([*flags, *extra])
    assert not (tmp_path / "t.h5").exists()


def test_its_input_is_not_replaced(teacher, flags, h5_path, tmp_path):
    before = h5_path.read_bytes()
    for extra in (["--out", str(h5_path)], ["--add", str(h5_path), "--out", f"{h5_path.parent}/./{h5_path.name}"]):
        with pytest.raises(HRNError, match="input"):
            teacher.main([*flags, *extra])
    assert h5_path.read_bytes() == before


@pytest.mark.parametrize("extra", [["--count", "0"], ["--crop", "0"], ["--seed", "-1"], ["--data", ""]])
def test_bad_flags(teacher, flags, extra):
    with pytest.raises(SystemExit) as error:
        teacher.main([*flags, *extra])
    assert error.value.code == 2


def test_an_error_keeps_the_old_file(teacher, flags, h5_path, tmp_path):
    """HR and LR are checked first, but damage shows only when an image is read."""
    teacher.main(flags)
    before = (tmp_path / "t.h5").read_bytes()
    with h5py.File(h5_path, "r+") as file:
        size = file["X2/7"].shape
        del file["X2/7"]
        file.create_dataset("X2/7", size, np.uint8, chunks=size, compression="gzip", data=np.ones(size, np.uint8))
        offset = file["X2/7"].id.get_chunk_info(0).byte_offset
    with open(h5_path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(8))
    with pytest.raises(HRNError, match="cannot read X2/7"):
        teacher.main(flags)
    assert (tmp_path / "t.h5").read_bytes() == before
    assert not list(tmp_path.glob(".*part"))
