"""Tables of published results and ours."""

import csv
import json

import pytest

from hrn.errors import HRNError
from hrn.evaluation.metrics import PROTOCOL
from hrn.evaluation.tables import PUBLISHED, SETS, main, ours, published, results_table
from hrn.model import preset
from hrn.model.summary import summarise


def test_published_rows_are_complete_and_have_sources():
    for scale, count in ((2, 20), (3, 19), (4, 28), (8, 7)):
        rows = published(scale)
        assert len({r.method for r in rows}) == len(rows) == count
        for r in rows:
            assert r.source
            assert set(r.scores) in (set(SETS), {"Set5", "Set14"})
            assert all(20 < psnr < 40 and 0.5 < ssim < 1 for psnr, ssim in r.scores.values())
            assert r.scores["Set5"][0] > r.scores["Set14"][0] > r.scores.get("Urban100", (0, 0))[0]


def test_well_known_published_rows():
    """Well-known rows of CARN's and RCAN's tables."""
    x4 = {r.method: r for r in published(4)}
    assert (x4["CARN"].scores["Set5"], x4["CARN"].multi_adds) == ((32.13, 0.8937), 90.9)
    assert x4["RCAN"].scores["Urban100"] == (26.82, 0.8087)
    assert [r.scores["Set5"][0] for s in (2, 3, 4) for r in published(s) if r.method == "Bicubic"] == [
        33.66,
        30.39,
        28.42,
    ]
    assert {r.method: r for r in published(2)}["VDSR"].scores["Set5"] == (37.53, 0.9587)
    assert {r.method: r for r in published(8)}["RCAN"].scores["Set5"] == (27.31, 0.7878)


def test_published_scales():
    with PUBLISHED.open() as file:
        assert {row["scale"] for row in csv.DictReader(file)} == {"2", "3", "4", "8"}


def test_our_cost_is_that_of_the_summary():
    (light,) = [r for r in ours(4) if r.method == "hrn_light_x4"]
    total = summarise(preset("hrn_light", [4]), 4)[-1]
    assert (light.parameters, light.multi_adds) == (total.parameters, total.multi_adds / 1e9)
    assert set(light.scores) >= set(SETS)
    assert light.scores["Set5"][0] > 31.2


def test_the_table_is_in_the_order_of_multi_adds(capsys):
    assert main(["--scale", "4"]) == 0
    out = capsys.readouterr().out
    assert out.strip() == results_table(4)
    costs = [float(line.split("|")[3].strip(" G").replace(",", "")) for line in out.splitlines() if " G | " in line]
    assert costs == sorted(costs)
    assert "| **hrn_light_x4** |" in out
    assert "[2] table of CARN" in out
    assert "| Bicubic [1] |  |  | 28.42 / 0.8104 |" in out


def test_results_of_a_file_are_added(tmp_path, capsys):
    header = PUBLISHED.read_text().splitlines()[0]
    rows = "MINE,4,90000,5.0,31.00,0.8700,,,,,,,DIV2K,this paper\nOTHER,4,,,30.00,0.8600,27,,,,,,,\n"
    (tmp_path / "mine.csv").write_text(f"{header}\n{rows}", encoding="utf-8-sig")  # as spreadsheets write it
    main(["--scale", "4", "--add", str(tmp_path / "mine.csv")])
    out = capsys.readouterr().out
    (row,) = [line for line in out.splitlines() if "MINE" in line]
    assert row.split("|")[2:5] == [" 90 K ", " 5.0 G ", " 31.00 / 0.8700 "]
    assert "] this paper" in out
    (row,) = [line for line in out.splitlines() if "OTHER" in line]
    assert "**" not in row
    assert "] mine.csv" in out
    for text in (None, "a,b\n1,2\n", f"{header}\nMINE,4,many\n"):
        if text is not None:
            (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(HRNError, match=r"bad\.csv.*published\.csv"):
            main(["--scale", "4", "--add", str(tmp_path / "bad.csv")])


def test_scores_of_a_folder_are_added(tmp_path, capsys):
    protocol = PROTOCOL.format(shave=4)
    for name, psnr in (("Set5", 32.0), ("Set14", 28.5)):
        header = {"set": name, "scale": 4, "protocol": protocol, "parameters": 90_000, "multi_adds": 5_000_000_000}
        path = tmp_path / "mine_x4" / name / "x4/scores.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({**header, "mean": {"psnr_y": psnr, "ssim_y": 0.9}}))
    for folder in (tmp_path, tmp_path / "mine_x4"):
        main(["--scale", "4", "--add", str(folder)])
        (row,) = [line for line in capsys.readouterr().out.splitlines() if "mine_x4 [" in line]
        assert row.split("|")[2:6] == [" 90 K ", " 5.0 G ", " 32.00 / 0.9000 ", " 28.50 / 0.9000 "]
    assert main(["--scale", "2", "--add", str(tmp_path)]) == 0
    text = path.read_text()
    path.write_text(text.replace('"parameters"', '"self_ensemble": true, "parameters"'))
    with pytest.raises(HRNError, match="self_ensemble"):
        main(["--scale", "4", "--add", str(tmp_path)])
    path.write_text(text.replace("4 pixels", "5 pixels"))
    with pytest.raises(HRNError, match="protocol"):
        main(["--scale", "4", "--add", str(tmp_path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(HRNError, match=r"no scores\.json"):
        main(["--scale", "4", "--add", str(tmp_path / "empty")])


def test_unpublished_cells_stay_empty():
    """At x8, methods of unknown cost come last, sorted by PSNR."""
    assert "| AWSRN [2] | 2,348 K |  | 26.97 / 0.7747 |" in results_table(8)
    methods = [line.split("|")[1].split()[0] for line in results_table(8).splitlines()[2:-2]]
    assert methods[0] == "Bicubic"
    assert methods[-4:] == ["LapSRN", "EDSR", "AWSRN", "RCAN"]


def test_chosen_methods():
    methods = [line.split("|")[1].split()[0] for line in results_table(4, methods=["CARN"]).splitlines()[2:-2]]
    assert [m for m in methods if "**" not in m] == ["CARN"]
    assert "**hrn_x4**" in methods


def test_light_peers_and_their_cost():
    """EFDN: 16.7 G for a 256x256 input are 14.7 G for a 1280x720 output, whose input at x4 is 320x180."""
    efdn = next(r for r in published(4) if r.method.startswith("EFDN"))
    assert efdn.parameters == 276_000
    assert round(16.7 * 320 * 180 / 256**2, 1) == efdn.multi_adds
    assert set(efdn.scores) == {"Set5", "Set14"}
    row = next(line for line in results_table(4).splitlines() if line.startswith("| EFDN"))
    assert "| 32.08 / 0.8931 | 28.59 / 0.7809 |  |  |" in row


def test_manga109_has_a_column_if_there_are_results(tmp_path, root):
    manifest = json.loads((root / "checkpoint/manifest.json").read_text())
    scores = manifest["checkpoints"]["hrn_light_x4"]["scores"]
    scores.pop("Manga109", None)
    for present in (False, True):
        if present:
            scores["Manga109"] = {"x4": {"psnr_y": 30.25, "ssim_y": 0.9}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        table = results_table(4, tmp_path)
        assert ("Urban100 | Manga109 |" in table) == ("| 30.25 / 0.9000 |" in table) == present
