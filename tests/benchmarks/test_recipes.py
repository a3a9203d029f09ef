"""benchmarks/recipes.py: finished runs are read, not repeated, and the table holds their means."""

import json

from benchmarks import recipes
from benchmarks.runs import Outcome
from hrn.training.flags import parse_args

VALIDATIONS = [(100, 24.0), (200, 25.0), (300, 26.0), (400, 26.5), (500, 26.75), (600, 27.0)]


def test_table_and_figure_of_a_results_file(tmp_path):
    outcomes = []
    for number, runs in enumerate(recipes.runs_of("growth", (0, 1), 600).values()):
        for run in runs:
            added = number + 0.5 * run.seed
            validations = [{"step": step, "psnr_y": psnr + added, "ssim_y": 0.7} for step, psnr in VALIDATIONS]
            outcomes.append(Outcome(run.flags, run.seed, 600, "2.14", 160.0, validations, {}))
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(vars(outcome)) + "\n" for outcome in outcomes))
    arguments = ["growth", "--train_data_path", "t.h5", "--valid_data_path", "v.h5", "--steps", "600"]
    files = ["--results", str(path), "--table", str(tmp_path / "table.md"), "--figure", str(tmp_path / "curve.png")]
    assert recipes.main([*arguments, *files]) == 0
    rows = (tmp_path / "table.md").read_text().splitlines()
    assert rows[0].split("|")[2].strip() == "step 200"
    cells = [cell.strip() for cell in rows[3].split("|")]
    assert cells[2:] == ["26.250", "27.750", "28.250 dB", "0.7000", "28.000, 28.500", "0.100", ""]
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_every_recipe_is_a_valid_command():
    for comparison in recipes.VARIANTS:
        for runs in recipes.runs_of(comparison, (0,), 100).values():
            args = parse_args([*runs[0].flags.split(), "--scale", "4", "--ckpt_name", "run"])
            assert (args.patch_size, args.batch_size) == (32, recipes.BATCH)
