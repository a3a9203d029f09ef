"""What the README claims must be what the code wrote."""

import importlib.util
import re

import pytest

from hrn.checkpoint import load_checkpoint
from hrn.evaluation.tables import SETS, ours
from hrn.files import file_hash
from hrn.model.config import SCALES
from hrn.pretrained import read_manifest

SHIPPED = tuple(read_manifest()["checkpoints"])


@pytest.fixture
def make(root):
    """tools/make_figures.py."""
    spec = importlib.util.spec_from_file_location("make", root / "tools/make_figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_tables_are_the_generated_ones(root, make):
    for name in make.PAGES:
        text = (root / name).read_text()
        assert make.fill(text) == text
        tables = re.findall(r"^(\|.*\|)\n\|---", make.TABLE.sub("", text), re.MULTILINE)
        assert all("PSNR" not in header and "| s |" not in header for header in tables), tables  # none by hand


def test_filling_changes_what_is_between_the_marks_only(make):
    page = "a\n<!-- from checkpoint/hrn_light/summary.md -->\nold | table\n<!-- end -->\nb"
    filled = make.fill(page)
    assert filled.startswith("a\n<!-- from checkpoint/hrn_light/summary.md -->\n| PSNR-Y")
    assert filled.endswith("\n<!-- end -->\nb")
    assert "old" not in filled
    assert make.fill(filled) == filled
    with pytest.raises(make.HRNError, match="no file of results nothing"):
        make.fill(page.replace("checkpoint/hrn_light/summary.md", "nothing.md"))


def test_what_the_pages_show_is_there(root, make):
    for name in (*make.PAGES, "checkpoint/hrn_light/README.md"):
        page = root / name
        for link, anchor in re.findall(r"\]\((?!http)([^)#]+)#?([^)]*)", page.read_text()):
            assert (page.parent / link).exists(), f"{name}: {link}"
            if anchor:
                titles = re.findall(r"^#+ (.*)", (page.parent / link).read_text(), re.MULTILINE)
                assert anchor in [title.lower().replace(" ", "-") for title in titles], f"{name}: {link}#{anchor}"


def test_the_manifest_has_what_sample_wrote(root):
    """Rounded to what the summary shows."""
    summary = (root / "checkpoint/hrn_light/summary.md").read_text()
    for scale in SCALES:
        found = {result.method: result for result in ours(scale)}
        for name in SETS:
            psnr_y, ssim_y = found[f"hrn_light_x{scale}"].scores[name]
            assert f"{psnr_y:.2f} / {ssim_y:.4f}" in summary


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_names_the_checkpoint(root, name):
    path = root / "checkpoint" / read_manifest()["checkpoints"][name]["file"]
    card = (path.parent / "README.md").read_text()
    assert file_hash(path) in card
    checkpoint = load_checkpoint(path)
    assert f"{checkpoint.info['validation']['psnr_y']:.3f} dB at step {checkpoint.info['steps']:,}" in card


@pytest.mark.parametrize("scale", SCALES)
def test_a_shipped_light_checkpoint_scores_what_the_readme_says(root, shared, scale):
    from hrn import load_model
    from hrn.data.benchmark import find_test_set
    from hrn.evaluation.evaluate import evaluate, mean_scores
    from hrn.inference.enlarger import Enlarger

    model = load_model(f"hrn_light_x{scale}", device="cpu")
    results = evaluate(Enlarger(model), find_test_set(shared / "data/benchmark/Set5", scale))
    mean = mean_scores([r.scores for r in results])
    lines = (root / "README.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith(f"| hrn_light_x{scale} | x{scale} |"))
    psnr_y, ssim_y = (float(x) for x in row.split("|")[3].split("/"))
    assert mean["psnr_y"] == pytest.approx(psnr_y, abs=0.006)
    assert mean["ssim_y"] == pytest.approx(ssim_y, abs=1e-4)
    assert psnr_y > {2: 36.8, 3: 33.0, 4: 31.2, 8: 25.9}[scale]
