"""What the README claims must be what the code wrote."""

import pytest

from hrn.checkpoint import load_checkpoint
from hrn.evaluation.results import ours, results_table
from hrn.files import file_hash


def test_results_are_the_summary_that_sample_wrote(root):
    summary = (root / "checkpoint/hrn_light/summary.md").read_text()
    assert "| hrn_light_x4 | x4 |" in summary
    assert summary.strip() in (root / "README.md").read_text()


def test_the_results_table_is_the_generated_one(root):
    for scale in (2, 4):
        assert results_table(scale) in (root / "README.md").read_text()


def test_the_manifest_has_what_sample_wrote(root):
    """Rounded to what the summary shows."""
    summary = (root / "checkpoint/hrn_light/summary.md").read_text()
    for scale in (2, 4):
        (light,) = ours(scale)
        for name in ("Set5", "Set14", "B100", "Urban100"):
            assert f"{light.scores[name][0]:.2f} / {light.scores[name][1]:.4f}" in summary


@pytest.mark.parametrize("scale", [2, 4])
def test_the_card_names_the_checkpoint(root, scale):
    path = root / f"checkpoint/hrn_light/hrn_light_x{scale}.pth"
    card = (root / "checkpoint/hrn_light/README.md").read_text()
    assert file_hash(path) in card
    checkpoint = load_checkpoint(path)
    assert f"{checkpoint.info['validation']['psnr_y']:.3f} dB at step {checkpoint.info['steps']:,}" in card


def test_the_shipped_light_checkpoint_scores_what_the_readme_says(root, shared):
    from hrn import load_model
    from hrn.data.benchmark import find_test_set
    from hrn.evaluation.evaluate import evaluate, mean_scores
    from hrn.inference.enlarger import Enlarger

    model = load_model(root / "checkpoint/hrn_light/hrn_light_x4.pth", device="cpu")
    results = evaluate(Enlarger(model), find_test_set(shared / "data/benchmark/Set5", 4))
    mean = mean_scores([r.scores for r in results])
    row = next(
        line for line in (root / "README.md").read_text().splitlines() if line.startswith("| hrn_light_x4 | x4 |")
    )
    psnr_y, ssim_y = (float(x) for x in row.split("|")[3].split("/"))
    assert mean["psnr_y"] == pytest.approx(psnr_y, abs=0.006)
    assert mean["ssim_y"] == pytest.approx(ssim_y, abs=1e-4)
    assert psnr_y > 30.0
