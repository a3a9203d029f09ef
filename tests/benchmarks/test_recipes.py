"""benchmarks/recipes.py: finished runs are read, not repeated, and the table holds their means."""

import json

import pytest

from benchmarks import recipes, runs

LINES = [
    {"step": step, "psnr_y": psnr, "ssim_y": 0.7, "images_per_second": 160.0}
    for step, psnr in [(100, 24.0), (200, 25.0), (300, 26.0), (400, 26.5), (500, 26.75), (600, 27.0)]
]


@pytest.fixture
def finished(tmp_path):
    """A folder of growth runs with two seeds whose logs reach the last step."""
    for number, flags in enumerate(recipes.VARIANTS["growth"].values()):
        for seed in range(2):
            folder = recipes.folder_of(flags, 600, tmp_path) / f"seed{seed}"
            folder.mkdir(parents=True)
            lines = [{**line, "psnr_y": line["psnr_y"] + number + 0.5 * seed} for line in LINES]
            (folder / "run_x4.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_finished_runs_give_table_and_figure_without_training(finished, monkeypatch, tmp_path):
    monkeypatch.setattr(runs.subprocess, "run", lambda *a, **k: pytest.fail("a finished run was trained again"))
    arguments = ["growth", "--train_data_path", "t.h5", "--valid_data_path", "v.h5", "--steps", "600"]
    files = ["--table", str(tmp_path / "table.md"), "--figure", str(tmp_path / "curve.png")]
    assert recipes.main([*arguments, "--work", str(finished), *files]) == 0
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert rows[0].split("|")[2].strip() == "step 200"
    cells = [cell.strip() for cell in rows[3].split("|")]
    assert cells[2:] == ["26.250", "27.750", "28.250 dB", "0.7000", "28.000, 28.500", "0.100", ""]
    assert (tmp_path / "curve.png").stat().st_size > 1000
