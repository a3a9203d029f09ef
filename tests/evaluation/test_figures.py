import json

import numpy as np
import pytest
from PIL import Image

from hrn.data.images import write_image
from hrn.errors import HRNError
from hrn.evaluation.figures import Comparison, compare, main, telling_crop


def test_crop_is_where_the_gain_is():
    hr = np.full((100, 150, 3), 128, np.uint8)
    worse, better = hr.copy(), hr.copy()
    worse[60:70, 100:110] = 0
    better[:, :50] = 140  # worse there, and not to be shown
    x, y, w, h = telling_crop(hr, worse, better, side=20)
    assert (w, h) == (20, 20)
    assert x <= 100
    assert x + w >= 110
    assert y <= 60
    assert y + h >= 70
    assert telling_crop(hr[:9], worse[:9], better[:9])[2:] == (9, 9)


def test_compare_draws_a_picture(tmp_path, image):
    for suffix in ("png", "pdf"):
        path = tmp_path / f"figure.{suffix}"
        compare(path, Comparison("a", image, {"b": image // 2}, crop=(8, 8, 24, 24), shave=4))
        assert path.stat().st_size > 1000
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 2 * figure.height
        assert len(figure.convert("RGB").getcolors(1 << 24)) > 100


def test_named_images_of_a_run(tmp_path, image):
    for name, picture in (("one", image), ("two", image[::-1].copy())):
        for path in (tmp_path / f"set/{name}.png", tmp_path / f"sample/net/set/x2/SR/{name}.png"):
            write_image(path, picture)
    args = [
        "compare",
        str(tmp_path / "sample/net"),
        "--test_data_dir",
        str(tmp_path / "set"),
        "--scale",
        "2",
        "--images",
    ]
    heights = []
    for names in (["one"], ["two", "one"]):
        assert main([*args, *names, "--out", str(tmp_path / "c.png")]) == 0
        with Image.open(tmp_path / "c.png") as figure:
            heights.append(figure.height)
    assert heights[1] > 1.4 * heights[0]
    with pytest.raises(HRNError, match="no image three in"):
        main([*args, "three"])
    write_image(tmp_path / "sample/net/set/x2/SR/one.png", image[:9])
    with pytest.raises(HRNError, match=r"one\.png: is \(9, 64\), but the original \(48, 64\)"):
        main([*args, "one"])


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
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two: a line for each log
        assert (abs(picture - colour).max(axis=2) < 20).sum() > 200
    assert capsys.readouterr().out == f"wrote {out}\n"


def test_schedules_are_drawn(tmp_path):
    main(["schedules", "--max_steps", "1000", "--decay", "400", "--warmup", "50", "--out", str(tmp_path / "s.pdf")])
    assert (tmp_path / "s.pdf").read_bytes().startswith(b"%PDF")


def test_tradeoff_shows_ours_among_the_published(tmp_path):
    main(["tradeoff", "--scale", "4", "--out", str(tmp_path / "t.svg")])
    text = (tmp_path / "t.svg").read_text()
    for name in ("hrn_light_x4", "CARN", "RCAN"):
        assert f"<!-- {name}" in text  # matplotlib notes each text that it draws as outlines
    assert "<!-- DRRN" not in text  # 6,797 G


def test_what_cannot_be_drawn(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "a.jsonl").write_text('{"step": 1, "loss": 1}\n')
    with pytest.raises(HRNError, match="holds no line yet"):
        main(["curve", str(tmp_path / "empty.jsonl"), "--out", str(tmp_path / "x.png")])
    with pytest.raises(HRNError, match="cannot be written as docx"):
        main(["curve", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "x.docx")])
    with pytest.raises(HRNError, match="must be positive"):
        main(["schedules", "--decay", "0"])
    assert not list(tmp_path.glob("x.*"))
