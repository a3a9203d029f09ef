import csv
import json

import numpy as np

from hrn.data.benchmark import find_test_set
from hrn.data.resize import imresize
from hrn.evaluation.evaluate import evaluate
from hrn.evaluation.metrics import score
from hrn.evaluation.report import image_table, provenance, set_report, summary_table, write_reports


def nearest(lr):
    return lr.repeat(2, axis=0).repeat(2, axis=1)


def test_tables_and_files_say_the_same(hr_folder, tmp_path):
    test_set = find_test_set(hr_folder, 2)
    results = list(evaluate(nearest, test_set, shave=5, bicubic=lambda lr: imresize(lr, scale=2)))
    report = set_report(test_set, "nearest", results, shave=5)
    expected = [score(r.sr, r.hr, 5)["psnr_y"] for r in results]
    assert report.mean()["psnr_y"] == np.mean(expected)
    write_reports(report, tmp_path, {"checkpoint": "a.pth", **provenance("cpu")})

    document = json.loads((tmp_path / "scores.json").read_text())
    assert document["checkpoint"] == "a.pth"
    assert "5 pixels of border left out" in document["protocol"]
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
