"""Names and sizes of results that other programs wrote."""

import numpy as np
import pytest

from hrn.data.image_writer import write_image
from hrn.errors import HRNError
from hrn.evaluation.sr_folder import SRFolder, read_result

PIXELS = np.zeros((8, 8, 3), np.uint8)


def folder_of(tmp_path, *files):
    for file in files:
        write_image(tmp_path / file, PIXELS)
    return SRFolder(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "baby.png", "babyx4.png", "baby_x4.png", "baby_x4_SR.png", "baby_HRN.png", "baby-x4.png", "babyX4_HRN.png",
        "baby_RCAN_x4.png", "baby_4x_ESRGAN.png", "Set5/x4/baby.png", "SR/BI/Set5/x4/baby_RCAN_x4.png", "set5_x4/baby.jpg",
    ],
)  # fmt: skip
def test_common_file_names_are_matched(tmp_path, file):
    assert folder_of(tmp_path, file).match(["baby", "bird"], 4, "Set5") == {"baby": tmp_path / file}


@pytest.mark.parametrize(
    "file",
    ["baby_x2.png", "x2/baby.png", "baby_LR.png", "baby_x4_HR.png", "baby_GT.png", "babylon.png", "a_baby.png", "bab.png"],
)  # fmt: skip
def test_files_that_are_not_results_at_this_scale(tmp_path, file):
    folder = folder_of(tmp_path, file)
    assert folder.match(["baby"], 4, "Set5") == {}
    assert folder.unused([]) == [file]
    with pytest.raises(HRNError):
        folder.find("baby", ["baby"], 4)


@pytest.mark.parametrize("name", ["img_001_SRF_4_HR", "baby_HR_x4", "baby_HR"])
def test_names_of_originals_that_state_hr_or_the_scale(tmp_path, name):
    bare = name.removesuffix("_x4").removesuffix("_HR")
    for i, file in enumerate((f"{name}.png", f"{bare}.png", f"{bare}_SR.png", f"{bare}_RCAN_x4.png")):
        path = tmp_path / str(i)
        assert folder_of(path, file).match([name], 4) == {name: path / file}


@pytest.mark.parametrize(
    ("name", "file"), [("img001", "img_001_SRF_4_SR"), ("img_001", "img001x4"), ("img001", "img_001_HRN")]
)
def test_both_names_of_images_of_urban100(tmp_path, name, file):
    assert folder_of(tmp_path, f"{file}.png").match([name], 4) == {name: tmp_path / f"{file}.png"}


def test_the_longest_name_owns_a_file(tmp_path):
    folder = folder_of(tmp_path, "img_1.png", "img_1_2_x4.png", "img_12.png")
    found = folder.match(["img_1", "img_1_2", "img_12"], 4)
    assert {name: path.name for name, path in found.items()} == {
        "img_1": "img_1.png",
        "img_1_2": "img_1_2_x4.png",
        "img_12": "img_12.png",
    }


def test_subfolders_of_sets_and_scales_distinguish_equal_names(tmp_path):
    files = [f"{name}/x{scale}/img.png" for name in ("Set5", "Set14") for scale in (2, 4)]
    folder = folder_of(tmp_path, *files)
    for name, scale in (("Set5", 2), ("Set14", 4)):
        file = tmp_path / name / f"x{scale}" / "img.png"
        assert folder.match(["img"], scale, name) == {"img": file}
    assert folder.unused([tmp_path / files[0]]) == sorted(files[1:])


def test_two_files_for_one_image_are_refused(tmp_path):
    folder = folder_of(tmp_path, "baby.png", "baby_x4.png", "bird.png")
    with pytest.raises(HRNError) as refused:
        folder.match(["baby", "bird"], 4)
    assert "baby.png" in str(refused.value)
    assert "baby_x4.png" in str(refused.value)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "text.txt").touch()
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(HRNError):
            SRFolder(path)


def test_slightly_larger_results_are_cropped(tmp_path, rng):
    sr = rng.integers(0, 255, (11, 14, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", sr)
    for size in ((11, 14), (8, 12), (11, 11)):
        assert np.array_equal(read_result(tmp_path / "a.png", size, 4), sr[: size[0], : size[1]])
    for size in ((7, 14), (11, 10), (12, 14), (11, 15)):
        with pytest.raises(HRNError) as refused:
            read_result(tmp_path / "a.png", size, 4)
        assert "a.png" in str(refused.value)
