"""tools/make_figures.py: which tables and figures it makes."""

import copy

import pytest

from hrn.pretrained import read_manifest
from tools import make_figures


def test_fill_replaces_only_the_text_between_the_comments():
    page = "a\n<!-- from checkpoint/hrn_light/summary.md -->\nold | table\n<!-- end -->\nb"
    filled = make_figures.fill(page)
    assert filled.startswith("a\n<!-- from checkpoint/hrn_light/summary.md -->\n| PSNR-Y")
    assert filled.endswith("\n<!-- end -->\nb")
    assert "old" not in filled
    assert make_figures.fill(filled) == filled


def test_fill_keeps_the_text_of_a_missing_results_file():
    page = "<!-- from benchmarks/results/missing.md -->\nbeing measured\n<!-- end -->\n"
    assert make_figures.fill(page) == page


def test_preset_seconds_come_from_the_rows_of_mode_local(tmp_path, monkeypatch):
    path = tmp_path / "presets.md"
    path.write_text("| preset | mode | s |\n|---|---|---|\n| hrn | full | 1.5 |\n| hrn | local | 2.5 |\n\nnote\n")
    monkeypatch.setattr(make_figures, "TIMINGS", path)
    assert make_figures.preset_seconds() == {"hrn": "2.5"}


def test_training_logs_are_grouped_by_checkpoint_in_the_order_of_stages(tmp_path):
    for name in ("a/hrn_x4_stage10.jsonl", "a/hrn_x4_stage2.jsonl", "b/other_x2x3_stage1.jsonl", "b/other_x2x3.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    logs = make_figures.training_logs(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in logs.items()} == {
        "hrn_x4": ["hrn_x4_stage2.jsonl", "hrn_x4_stage10.jsonl"],
        "other_x2x3": ["other_x2x3_stage1.jsonl"],
    }


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_comparisons_show_single_scale_checkpoints(scale):
    names = make_figures.single_scale_checkpoints(scale)
    assert f"hrn_light_x{scale}" in names
    assert all(name.endswith(f"_x{scale}") for name in names)


def test_every_training_log_has_its_figure():
    for name in make_figures.training_logs():
        assert (make_figures.FIGS / f"curve_{name}.png").is_file()


def test_the_table_of_models_lists_variants_last(monkeypatch):
    manifest = copy.deepcopy(read_manifest())
    variant = copy.deepcopy(manifest["checkpoints"]["hrn_light_x4"])
    variant["config"]["channels"] = 20
    manifest["checkpoints"] = {"a_variant_x4": variant, **manifest["checkpoints"]}
    monkeypatch.setattr(make_figures, "read_manifest", lambda: manifest)
    assert "a_variant_x4" in make_figures.models_table().splitlines()[-1]
