"""Figures: their files, and errors."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image

from hrn.checkpoint import save_checkpoint
from hrn.data.image_writer import write_image
from hrn.errors import HRNError
from hrn.evaluation.crops import Crop
from hrn.evaluation.figures.__main__ import main
from hrn.evaluation.figures.compare import Comparison, compare, comparisons_of
from hrn.evaluation.metrics import score
from hrn.model import build_model, preset


def test_compare_draws_a_picture(tmp_path, image):
    for suffix in ("png", "pdf"):
        path = tmp_path / f"figure.{suffix}"
        compare(path, Comparison("$5_$6", image, {"b": image // 2}, crop=Crop(8, 8, 24, 24), shave=4))
        assert path.stat().st_size > 1000
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 2 * figure.height
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 100


@pytest.fixture
def results(tmp_path, image):
    """A test set of two images, and results in the layout of hrn/sample.py at x2."""
    for name, picture in (("one", image), ("two", image[::-1].copy())):
        for path in (tmp_path / f"set/{name}.png", tmp_path / f"sample/net/set/x2/SR/{name}.png"):
            write_image(path, picture)
    return tmp_path / "sample/net"


def compare_args(results, *more, out="c.png"):
    folder = results.parents[1]
    args = ["compare", "--scale", "2", "--test_data_dir", folder / "set", "--out", folder / out, *more]
    return [str(a) for a in args]


def test_images_by_name_and_by_file(results):
    folder, heights = results.parents[1], []
    for images in (["one"], ["two", folder / "set/one.png"]):
        assert main(compare_args(results, "--methods", "bicubic", results, "--image", *images)) == 0
        with Image.open(folder / "c.png") as figure:
            heights.append(figure.height)
    assert heights[1] > 1.4 * heights[0]


def test_methods_of_every_kind(results, image):
    """A folder of another program's results, a label, and a checkpoint file."""
    folder = results.parents[1]
    write_image(folder / "theirs/one_x2_NET.png", image // 2)
    write_image(folder / "theirs/one_x4_NET.png", image // 4)
    config = preset("hrn_light", [2])
    save_checkpoint(folder / "mine.pth", config, build_model(config).state_dict(), info={})
    methods = ["bicubic", str(folder / "theirs"), f"exact={results}", str(folder / "mine.pth")]
    (comparison,) = comparisons_of(["one"], [folder / "set"], methods, 2, [Crop(1, 2, 30, 20)])
    assert list(comparison.methods) == ["bicubic", "theirs", "exact", "mine"]
    assert np.array_equal(comparison.methods["theirs"], image // 2)
    assert np.array_equal(comparison.methods["exact"], image)
    assert score(comparison.methods["mine"], image, 2)["psnr_y"] > 20
    assert comparison.crop == Crop(1, 2, 30, 20)


def test_a_model_comes_before_a_folder_of_its_name(results, root, monkeypatch):
    """The package folder is called hrn."""
    monkeypatch.chdir(root)
    (comparison,) = comparisons_of(["one"], [results.parents[1] / "set"], ["hrn_light"], 2, [Crop(1, 2, 30, 20)])
    monkeypatch.chdir(results)
    (results / "hrn_light").mkdir()
    (same,) = comparisons_of(["one"], [results.parents[1] / "set"], ["hrn_light"], 2, [Crop(1, 2, 30, 20)])
    assert np.array_equal(same.methods["hrn_light"], comparison.methods["hrn_light"])


def test_names_that_are_not_utf_8_are_escaped(tmp_path, image):
    name = os.fsdecode(b"caf\xe9")
    compare(tmp_path / "a.png", Comparison(name, image, {name: image}, crop=Crop(8, 8, 24, 24), shave=4))


def test_bad_comparisons_are_refused(results, image):
    folder = results.parents[1]
    write_image(folder / "second/one.png", image)
    (folder / "empty").mkdir()
    write_image(folder / "small.png", image[:4])
    write_image(folder / "wrong/one.png", image[:9])
    for flags, word in (
        (["--image", "three"], "three"),
        (["--image", "one", "--crop", "0,0,99,9"], "one"),
        (["--image", "one", "--crop", "0,0,99"], "--crop"),
        (["--image", "one", "--crop", "0,0,9,9", "0,0,9,9"], "2 crops"),
        (["--image", "one", "--methods", "nothing"], "nothing"),
        (["--image", "one", "--methods", "bicubic", "bicubic"], "bicubic"),
        (["--image", "one", "--methods", folder / "empty"], "empty"),
        (["--image", folder / "small.png"], "small"),
        (["--image", "one", "--test_data_dir", folder / "set", folder / "second"], "second"),
        (["--image", "one", "--methods", folder / "wrong"], "one.png"),
    ):
        with pytest.raises(HRNError) as refused:
            main(compare_args(results, *flags, out="never.png"))
        assert word in str(refused.value)
    assert not (folder / "never.png").exists()


def test_spectrum_is_drawn_for_each_dem(tmp_path, root):
    out = tmp_path / "s.svg"
    image = tmp_path / "a.png"
    write_image(image, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    main(
        [
            "spectrum",
            "--ckpt_path",
            str(root / "checkpoint/hrn_light/hrn_light_x4.pth"),
            "--image",
            str(image),
            "--out",
            str(out),
        ]
    )
    text = out.read_text()
    for title in ("DEM 1", "DEM 2", "frequency", "spatial 2"):
        assert f"<!-- {title}" in text
    assert "<!-- DEM 3" not in text


@pytest.mark.parametrize("validations", [1, 2])
def test_a_single_validation_is_a_dot(tmp_path, validations):
    log = [{"step": i, "psnr_y": 30 + i} for i in range(validations)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    assert main(["curve", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "a.svg")]) == 0
    dots = re.findall(r'<g clip-path="[^"]*">\s*<use', (tmp_path / "a.svg").read_text())
    assert len(dots) == (validations == 1)


def test_curves_of_logs(tmp_path, capsys):
    for name, steps in (("a", 40), ("b", 20)):
        lines = [
            {"step": s, "loss": 1 / s, "lr": 1e-4, **({"psnr_y": 26 + s / 40} if s % 10 == 0 else {})}
            for s in range(1, steps)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "curve.png"
    assert main(["curve", str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "--out", str(out)]) == 0
    picture = np.asarray(Image.open(out).convert("RGB")).astype(int)
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two colours: a line for each log
        assert (abs(picture - colour).max(axis=2) < 20).sum() > 200
    assert capsys.readouterr().out == f"wrote {out}\n"


def test_schedules_are_drawn(tmp_path):
    main(["schedules", "--max_steps", "1000", "--decay", "400", "--warmup", "50", "--out", str(tmp_path / "s.pdf")])
    assert (tmp_path / "s.pdf").read_bytes().startswith(b"%PDF")


def test_tradeoff_shows_ours_among_the_published(tmp_path):
    main(["tradeoff", "--scale", "4", "--out", str(tmp_path / "t.svg")])
    text = (tmp_path / "t.svg").read_text()
    for name in ("hrn_light_x4", "CARN", "RCAN"):
        assert f"<!-- {name}" in text  # matplotlib adds a comment for each text
    assert "<!-- DRRN" not in text  # 6,797 G


def test_figures_that_cannot_be_drawn(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "a.jsonl").write_text('{"step": 1, "loss": 1}\n')
    with pytest.raises(HRNError, match=r"empty\.jsonl"):
        main(["curve", str(tmp_path / "empty.jsonl"), "--out", str(tmp_path / "x.png")])
    with pytest.raises(HRNError, match=r"x\.docx"):
        main(["curve", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "x.docx")])
    with pytest.raises(HRNError, match="--decay"):
        main(["schedules", "--decay", "0"])
    assert not list(tmp_path.glob("x.*"))
