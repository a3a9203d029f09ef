"""Scores of test sets, also of SR images that other programs made (--sr_dir)."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from hrn import sample
from hrn.data.benchmark import find_test_set
from hrn.data.image_writer import write_image
from hrn.data.images import read_rgb
from hrn.data.resize import imresize
from hrn.evaluation.score_sets import warm_up
from hrn.inference.enlarger import Enlarger


def main(*args):
    return sample.main([str(arg) for arg in args])


@pytest.fixture
def bicubic_results(hr_folder, tmp_path):
    """Bicubic results at x2 of the four images of HR, as another program would name them."""
    folder = tmp_path / "theirs"
    for name, file in zip(
        ("0000", "0001", "0002", "0003"),
        ("HR/x2/0000.png", "HR/x2/0001x2.png", "HR/x2/0002_x2_SR.png", "HR/x2/0003_HRN.png"),
        strict=True,
    ):
        hr = read_rgb(hr_folder / f"{name}.png")
        hr = hr[: len(hr) // 2 * 2, : hr.shape[1] // 2 * 2]
        write_image(folder / file, imresize(imresize(hr, scale=0.5), scale=2))
    return folder


def test_sr_images_score_like_the_method_that_made_them(bicubic_results, hr_folder, tmp_path, capsys):
    args = ("--test_data_dir", hr_folder, "--scale", 2, "--sample_dir", tmp_path / "s", "--report")
    assert main(*args[:-1], "--model", "bicubic") == 0
    copy = tmp_path / "copy"
    shutil.copytree(bicubic_results, copy)
    (copy / "notes.png").write_bytes((copy / "HR/x2/0000.png").read_bytes())
    capsys.readouterr()
    assert main(*args, "--sr_dir", bicubic_results, f"COPY={copy}") == 0
    out = capsys.readouterr().out
    assert "notes.png" in out
    read = {label: tmp_path / "s" / label / "HR/x2/scores.json" for label in ("bicubic", "theirs", "COPY")}
    documents = {label: json.loads(path.read_text()) for label, path in read.items()}
    for label in ("theirs", "COPY"):
        document = documents[label]
        assert document["checkpoint"] is None
        assert document["mean"]["seconds"] is None
        assert document["protocol"] == documents["bicubic"]["protocol"]
        for metric in ("psnr_y", "ssim_y", "psnr_rgb"):
            assert document["mean"][metric] == documents["bicubic"]["mean"][metric]
        assert (tmp_path / "s" / label / "report.html").stat().st_size > 10_000
    summary = (tmp_path / "s/COPY/summary.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in summary[2:5]] == ["bicubic", "theirs", "COPY"]
    assert not list((tmp_path / "s/theirs").rglob("SR"))


def test_sr_images_that_do_not_fit(bicubic_results, hr_folder, tmp_path, image, fails):
    args = ("--test_data_dir", hr_folder, "--scale", 2, "--sr_dir")
    fails(*args, bicubic_results, bicubic_results)
    fails(*args, tmp_path / "none")
    assert "NAME=FOLDER" in fails(*args, f"bicubic={bicubic_results}")
    assert "--sample_dir" in fails(*args, bicubic_results, sample_dir=tmp_path)
    write_image(bicubic_results / "HR/x2/0001x2.png", image)
    assert "0001x2.png" in fails(*args, bicubic_results)
    for name in ("0001x2.png", "0003_HRN.png"):
        (bicubic_results / "HR/x2" / name).unlink()
    message = fails(*args, bicubic_results)
    assert "0001" in message
    assert "0003" in message
    assert "0002" not in message


@pytest.mark.parametrize(
    ("device", "compiled", "expected"),
    [("cuda", False, [(24, 30), (30, 24)]), ("cpu", True, [(24, 30), (30, 24)]), ("cpu", False, [])],
)
def test_each_size_is_enlarged_once_before_times_are_measured(tmp_path, device, compiled, expected):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i, (h, w) in enumerate([(24, 30), (30, 24), (24, 30)]):
            file[f"HR/{i}"] = np.zeros((2 * h, 2 * w, 3), np.uint8)
            file[f"X2/{i}"] = np.zeros((h, w, 3), np.uint8)
    sizes = []

    class Recorder(Enlarger):
        def __init__(self):
            self.device, self.compiled = torch.device(device), compiled

        def __call__(self, lr):
            sizes.append(lr.shape[:2])

    warm_up(Recorder(), find_test_set(tmp_path / "a.h5", 2))
    warm_up(None, find_test_set(tmp_path / "a.h5", 2))
    assert sizes == expected


def test_unusable_images_are_found_before_scoring(hr_folder, tmp_path, image, fails):
    folder = tmp_path / "set"
    write_image(folder / "a.png", image)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:200])
    args = ("--model", "bicubic", "--scale", 2, "--test_data_dir", hr_folder, folder)
    assert "b.png" in fails(*args)
    write_image(folder / "b.png", image[:4])
    assert "set: b: 64x4" in fails(*args)
    assert not (tmp_path / "s").exists()
    assert main(*args, "--shave", 1, "--sample_dir", tmp_path / "s") == 0
