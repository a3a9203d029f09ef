import numpy as np
import pytest

from hrn.data.benchmark import find_test_set
from hrn.data.image_writer import write_image
from hrn.data.images import read_rgb
from hrn.data.resize import bicubic_lr
from hrn.errors import HRNError


@pytest.fixture
def lr_images(root, load_script):
    return load_script(root / "datasets/lr_images.py")


@pytest.mark.parametrize("subfolder", ["HR", ""])
def test_the_images_are_those_that_scoring_uses(lr_images, tmp_path, image, subfolder):
    write_image(tmp_path / "Set" / subfolder / "a.png", image[:41, :50])
    before = find_test_set(tmp_path / "Set", 3).images[0].load(3)
    lr_images.main([str(tmp_path / "Set"), "--scales", "3", "4"])
    lr = read_rgb(tmp_path / "Set/LR_bicubic/X3/ax3.png")
    assert np.array_equal(lr, bicubic_lr(image[:39, :48], 3))
    assert np.array_equal(lr, before.lr)
    after = find_test_set(tmp_path / "Set", 3).images[0].load(3)
    assert np.array_equal(after.lr, before.lr)
    assert np.array_equal(after.hr, before.hr)
    with pytest.raises(HRNError, match="already has LR" if subfolder else "X3 already exists"):
        lr_images.main([str(tmp_path / "Set"), "--scales", "2", "3"])
    assert not (tmp_path / "Set/LR_bicubic/X2").exists()


def test_another_folder(lr_images, tmp_path, image):
    write_image(tmp_path / "Set/a.png", image)
    lr_images.main([str(tmp_path / "Set"), "--scales", "2", "--out", str(tmp_path / "out")])
    assert (tmp_path / "out/Set/LR_bicubic/X2/ax2.png").is_file()
    assert [p.name for p in (tmp_path / "Set").iterdir()] == ["a.png"]


def test_hr_images_have_the_size_of_the_results(lr_images, tmp_path, image):
    write_image(tmp_path / "Set/a.png", image[:41, :50])
    lr_images.main([str(tmp_path / "Set"), "--scales", "3", "--hr"])
    assert np.array_equal(read_rgb(tmp_path / "Set/HR_cropped/X3/a.png"), image[:39, :48])
    assert find_test_set(tmp_path / "Set", 3).images[0].load(3).hr.shape == (39, 48, 3)
    with pytest.raises(HRNError, match="X3 already exists"):
        lr_images.main([str(tmp_path / "Set"), "--scales", "3", "--hr"])


def test_an_error_leaves_no_folder(lr_images, tmp_path, image):
    write_image(tmp_path / "Set/a.png", image)
    write_image(tmp_path / "Set/b.png", image[:1])
    with pytest.raises(HRNError, match="too small"):
        lr_images.main([str(tmp_path / "Set"), "--scales", "2", "--hr"])
    left = sorted(p.name for p in (tmp_path / "Set").rglob("*"))
    assert left == ["HR_cropped", "LR_bicubic", "a.png", "b.png"]


def test_sets_with_lr_images_or_equal_names_are_refused(lr_images, tmp_path, image):
    write_image(tmp_path / "Set/GTmod12/a.png", image)
    write_image(tmp_path / "Set/LRbicx4/a.png", image[::4, ::4])
    with pytest.raises(HRNError, match="already has LR images"):
        lr_images.main([str(tmp_path / "Set")])
    write_image(tmp_path / "Other/a.png", image)
    write_image(tmp_path / "Other/a.bmp", image)
    with pytest.raises(HRNError, match="two images are called a"):
        lr_images.main([str(tmp_path / "Other")])

    write_image(tmp_path / "b/Set/a.png", image)
    with pytest.raises(HRNError, match="twice"):
        lr_images.main([str(tmp_path / "b/Set"), "--scales", "2", "2"])


def test_lr_images_of_an_h5_file_are_copied(lr_images, h5_path, tmp_path):
    with pytest.raises(SystemExit):
        lr_images.main([str(h5_path), "--scales", "2"])
    lr_images.main([str(h5_path), "--scales", "2", "--out", str(tmp_path / "out")])
    image = find_test_set(h5_path, 2).images[0]
    copy = read_rgb(tmp_path / f"out/{h5_path.stem}/LR_bicubic/X2/{image.name}x2.png")
    assert np.array_equal(copy, image.load(2).lr)
