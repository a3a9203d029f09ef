import numpy as np
import pytest
from PIL import Image

from hrn.data.benchmark import find_lr, find_test_set, photographs
from hrn.data.resize import bicubic_lr, modcrop
from hrn.errors import HRNError


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


LAYOUTS = {  # for each layout: HR file, LR file, paths that find the test set
    "released": ("Set5/Set5_HRx4/baby.png", "Set5/Set5_LR_bicubic/X4/babyx4.png", ("Set5/Set5", "Set5")),
    "folders": ("Set5/HR/baby.png", "Set5/LR_bicubic/X4/babyx4.png", ("Set5",)),
    "carn": ("Set5/x4/baby_HR.png", "Set5/x4/baby_LR.png", ("Set5",)),
    "carn, one level deeper": ("Set5/baby_HR.png", "Set5/baby_LR.png", ("Set5",)),
    "BasicSR": ("Set5/GTmod12/baby.png", "Set5/LRbicx4/baby.png", ("Set5",)),
    "same name": ("Set5/HR/baby.png", "Set5/LR_bicubic/X4/baby.png", ("Set5",)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_with_lr(tmp_path, image, rng, layout):
    hr_name, lr_name, paths = LAYOUTS[layout]
    lr = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    save(tmp_path / hr_name, image)
    save(tmp_path / lr_name, lr)
    for path in paths:
        test_set = find_test_set(tmp_path / path, 4)
        assert test_set.name == "Set5"
        assert len(test_set.images) == 1
        pair = test_set.images[0].load(4)
        assert (pair.hr == image).all()
        assert (pair.lr == lr).all()


def test_hr_within_a_word_is_part_of_the_name(tmp_path, image, rng):
    lr = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    save(tmp_path / "x4/CHRIS_HR.png", image)
    save(tmp_path / "x4/CHRIS_LR.png", lr)
    (found,) = find_test_set(tmp_path, 4).images
    assert found.name == "CHRIS_HR"
    assert (found.load(4).lr == lr).all()


@pytest.mark.parametrize("folder", ["Set5/HR", "Set5/GTmod12", "Set5"])
def test_layouts_without_lr(tmp_path, image, folder):
    image = image[:47, :63]
    save(tmp_path / folder / "b.png", image)
    save(tmp_path / folder / "a.png", image[:, ::-1])
    test_set = find_test_set(tmp_path / "Set5", 4)
    assert [i.name for i in test_set.images] == ["a", "b"]
    pair = test_set.images[1].load(4)
    assert (pair.hr == modcrop(image, 4)).all()
    assert (pair.lr == bicubic_lr(pair.hr, 4)).all()


def test_names_with_hr_but_no_lr_files(tmp_path, image):
    save(tmp_path / "Set5/a_HR.png", image)
    (found,) = find_test_set(tmp_path / "Set5", 4).images
    assert (found.load(4).lr == bicubic_lr(image, 4)).all()


@pytest.mark.parametrize("folder", ["Manga109", "manga109", "Manga109/HR", "manga109/HR"])
def test_manga109(tmp_path, image, folder):
    save(tmp_path / folder / "ARMS.png", image)
    test_set = find_test_set(tmp_path / folder.removesuffix("/HR"), 4)
    assert test_set.name == "Manga109"
    assert [i.name for i in test_set.images] == ["ARMS"]
    assert (test_set.images[0].load(4).hr == image).all()


def test_h5(h5_path):
    test_set = find_test_set(h5_path, 3)
    assert [i.name for i in test_set.images] == [str(i) for i in range(12)]
    pair = test_set.images[4].load(3)
    assert (pair.lr == pair.hr[::3, ::3]).all()


def test_photographs_need_no_download():
    for image in photographs(4).images:
        pair = image.load(4)
        assert pair.hr.shape[0] == 4 * pair.lr.shape[0] > 200


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        ("0001", "0001x4"), ("0001", "0001"), ("a_HR", "a_LR"), ("a_HR", "a_LRx4"), ("a", "a_LRx4"), ("a_HR", "ax4"),
        ("aHR", "ax4"), ("ax1", "ax4"), ("ax1", "a"), ("ax4", "ax4"), ("a_HRx4", "a_LRx4"), ("a_HR_b", "a_bx4"),
        ("box1", "box1x4"), ("HR", "HRx4"),
    ],
)  # fmt: skip
def test_lr_files_by_any_of_their_names(tmp_path, hr, lr):
    (tmp_path / "X4").mkdir()
    (tmp_path / f"X4/{lr}.jpg").touch()
    assert find_lr(tmp_path / f"{hr}.png", tmp_path / "X4", 4) == tmp_path / f"X4/{lr}.jpg"


def test_relative_paths_of_dots(tmp_path, image, monkeypatch):
    save(tmp_path / "Set5/a.png", image)
    (tmp_path / "Set5/empty").mkdir()
    monkeypatch.chdir(tmp_path / "Set5")
    assert find_test_set(".", 4).name == "Set5"
    monkeypatch.chdir(tmp_path / "Set5/empty")
    assert find_test_set("..", 4).name == "Set5"
    for path in (".", "/"):
        with pytest.raises(HRNError, match="x4"):
            find_test_set(path, 4)


def test_nothing_found_lists_the_layouts(tmp_path):
    (tmp_path / "Set5").mkdir()
    for path in (tmp_path / "Set5", tmp_path / "Nowhere"):
        with pytest.raises(HRNError, match=rf"{path.name}/{path.name}_HRx4"):
            find_test_set(path, 4)


def test_lr_missing_for_an_image(tmp_path, image):
    save(tmp_path / "Set5/HR/a.png", image)
    save(tmp_path / "Set5/HR/b.png", image)
    save(tmp_path / "Set5/LR_bicubic/X4/ax4.png", image[::4, ::4])
    with pytest.raises(HRNError, match=r"b\.png.*X4.*bx4"):
        find_test_set(tmp_path / "Set5", 4)


def test_sizes_that_do_not_match(tmp_path, image):
    save(tmp_path / "Set5/HR/a.png", image)
    save(tmp_path / "Set5/LR_bicubic/X4/ax4.png", image[::3, ::3])
    with pytest.raises(HRNError, match=r"a: .*22x16.*64x48.*16x12.*x4"):
        find_test_set(tmp_path / "Set5", 4).images[0].load(4)


def test_fingerprints_tell_sets_apart(tmp_path, hr_folder, h5_path):
    first = find_test_set(hr_folder, 2).fingerprint()
    assert find_test_set(hr_folder.rename(tmp_path / "other"), 2).fingerprint() == first
    image = tmp_path / "other/0000.png"
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    save(image, pixels)
    second = find_test_set(tmp_path / "other", 2).fingerprint()
    image.rename(tmp_path / "other/0000b.png")
    third = find_test_set(tmp_path / "other", 2).fingerprint()
    assert len({first, second, third, find_test_set(h5_path, 2).fingerprint()}) == 4


def test_verifying(tmp_path, image):
    save(tmp_path / "a.png", image)
    save(tmp_path / "b.png", image[:20, :20])
    test_set = find_test_set(tmp_path, 4)
    test_set.verify(20)
    test_set.verify(21, first=0, every=2)  # b is in the share of the other process
    with pytest.raises(HRNError, match="b: 20x20"):
        test_set.verify(21, first=1, every=2)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:300])
    with pytest.raises(HRNError, match=r"b\.png"):
        test_set.verify(20)


def test_too_small(tmp_path, image):
    save(tmp_path / "Set5/a.png", image[:3])
    with pytest.raises(HRNError, match=r"a: 64x3.*x4"):
        find_test_set(tmp_path / "Set5", 4).images[0].load(4)
