"""Reports as Markdown, CSV and JSON."""

import csv
import json
import math
from dataclasses import replace

import numpy as np

from hrn.data.benchmark import find_test_set
from hrn.data.resize import imresize
from hrn.evaluation.evaluate import evaluate
from hrn.evaluation.metrics import score
from hrn.evaluation.report import image_table, provenance, set_report, summary_table, write_reports
from hrn.evaluation.score_files import read_scores


def test_tables_and_files_agree(hr_folder, nearest, tmp_path):
    test_set = find_test_set(hr_folder, 2)
    results = list(evaluate(nearest, test_set, shave=5, bicubic=lambda lr: imresize(lr, scale=2)))
    report = set_report(test_set, "nearest", results, shave=5)
    expected = [score(r.sr, r.hr, 5)["psnr_y"] for r in results]
    assert report.mean()["psnr_y"] == np.mean(expected)
    write_reports(report, tmp_path, {"checkpoint": "a.pth", **provenance("cpu")})

    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["checkpoint"] == "a.pth"
    assert "5 pixels" in document["protocol"]
    assert document["versions"]["torch"]
    assert [row["psnr_y"] for row in document["images"]] == expected

    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert "# checkpoint: a.pth" in lines
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [float(row["psnr_y"]) for row in rows] == expected
    assert [row["name"] for row in rows] == ["0000", "0001", "0002", "0003"]

    mean = f"{np.mean(expected):.2f} / {report.mean()['ssim_y']:.4f}"
    assert mean in image_table(report).splitlines()[-1]
    assert mean in summary_table([report]).splitlines()[-1]
    assert len(image_table(report).splitlines()) == 2 + 4 + 1


def test_summary_has_a_row_per_method_and_scale(hr_folder, nearest):
    test_set = find_test_set(hr_folder, 2)
    results = list(evaluate(nearest, test_set, bicubic=lambda lr: imresize(lr, scale=2)))
    first = set_report(test_set, "a", results, shave=2)
    other_set = replace(first, name="Set14", label="b")
    lines = summary_table([first, replace(first, label="b"), other_set, replace(first, scale=3)]).splitlines()
    assert [line.split("|")[1:3] for line in lines[2:]] == [
        [" bicubic ", " x2 "],
        [" a ", " x2 "],
        [" b ", " x2 "],
        [" bicubic ", " x3 "],
        [" a ", " x3 "],
    ]
    assert lines[3].endswith("|  |")  # a has no scores of Set14


def test_seconds_are_left_out_if_they_were_not_measured(hr_folder, nearest, tmp_path):
    test_set = find_test_set(hr_folder, 2)
    results = [replace(result, seconds=None) for result in evaluate(nearest, test_set)]
    report = set_report(test_set, "theirs", results, shave=2)
    assert report.seconds is None
    assert all(line.endswith("|  |") for line in image_table(report).splitlines()[2:])
    write_reports(report, tmp_path, {})
    assert json.loads((tmp_path / "scores.json").read_text())["mean"]["seconds"] is None


def test_perfect_and_tiny_images_are_standard_json(hr_folder, nearest, tmp_path):
    """A perfect image has an infinite PSNR, and a tiny one no SSIM."""

    def refuse(name):
        raise ValueError(name)

    results = [
        replace(r, scores={**r.scores, "psnr_y": math.inf, "ssim_y": math.nan})
        for r in evaluate(nearest, find_test_set(hr_folder, 2))
    ]
    write_reports(set_report(find_test_set(hr_folder, 2), "a", results, shave=2), tmp_path, {"set": "HR", "scale": 2})
    document = json.loads((tmp_path / "scores.json").read_text(), parse_constant=refuse)
    for row in (document["mean"], *document["images"]):
        assert (row["psnr_y"], row["ssim_y"]) == ("Infinity", "NaN")
    (found,) = read_scores(tmp_path)
    assert found.psnr_y == math.inf
    assert math.isnan(found.ssim_y)
