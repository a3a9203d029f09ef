"""benchmarks/ablation.py: equal Multi-Adds, the table of finished runs, and the commands of the others."""

import json
import statistics

import pytest

from benchmarks import ablation, runs
from hrn.model import build_model
from hrn.model.summary import summarise
from hrn.training.flags import parse_args

PSNR = {0: 26.0, 1: 26.2, 2: 26.1}
GAINS = {"full": (0.0, 0.0, 0.0), "se": (-0.1, -0.2, -0.3), "no-skip": (0.1, 0.1, 0.1)}


def multi_adds(variant):
    return summarise(ablation.config_of(variant))[-1].multi_adds


@pytest.mark.parametrize("variant", ablation.VARIANTS)
def test_multi_adds_agree(variant):
    assert multi_adds(variant) == pytest.approx(multi_adds("full"), rel=0.02)


def test_multi_adds_of_a_variant_by_hand():
    """One WRDB of the FFT variant: 2 C channels, half the width."""
    config = ablation.config_of("fft")
    part = next(p for p in summarise(config) if p.name == "DEM 1")
    h, w, c = 180, 320, config.channels

    def wrdb(c, pixels, size):
        squeezed = c // config.reduction
        wrab = 2 * 9 * 2 * c * c * pixels + c * squeezed * size + c * squeezed * size
        return 2 * wrab + (2 + 3) * c * c * pixels

    half = w // 2 + 1
    expected = 2 * wrdb(c, h * w, h + w) + wrdb(2 * c, h * half, h + half) + (2 + 4) * c * c * h * w
    assert part.multi_adds == expected


def test_every_variant_can_be_built_and_is_a_valid_command(tmp_path):
    for variant in ablation.VARIANTS:
        assert build_model(ablation.config_of(variant)).config == ablation.config_of(variant)
        flags = ablation.run_of(variant, 0, 100, tmp_path).flags
        args = parse_args([*flags, "--scale", "4", "--ckpt_name", "run"])
        assert " ".join(args.set) == ablation.VARIANTS[variant]
    folders = {ablation.run_of(v, s, n, tmp_path).folder for v in ablation.VARIANTS for s in (0, 1) for n in (5, 6)}
    assert len(folders) == 4 * len(ablation.VARIANTS)


def write_runs(work, steps=100):
    for variant, gains in GAINS.items():
        for seed, gain in enumerate(gains):
            run = ablation.run_of(variant, seed, steps, work)
            run.folder.mkdir(parents=True)
            lines = [{"step": step, "images_per_second": 160.0} for step in (10, 50)]
            lines.append({"step": steps, "images_per_second": 80.0, "psnr_y": PSNR[seed] + gain, "ssim_y": 0.7})
            (run.folder / "run_x4.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (run.folder / "scores.json").write_text(json.dumps({"B100": 27 + gain}))


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_table_and_figure_of_finished_runs(tmp_path, monkeypatch, hr_folder):
    write_runs(tmp_path / "work")
    monkeypatch.setattr(runs.subprocess, "run", lambda *a, **k: pytest.fail("a finished run was trained again"))
    b100 = tmp_path / "B100"
    hr_folder.rename(b100)
    arguments = [
        "--train_data_path",
        "t.h5",
        "--valid_data_path",
        "v.h5",
        "--steps",
        "100",
        "--variants",
        "se",
        "no-skip",
    ]
    outputs = ["--table", str(tmp_path / "table.md"), "--figure", str(tmp_path / "figure.png")]
    work = ["--work", str(tmp_path / "work"), "--test_data_dir", str(b100)]
    assert ablation.main([*arguments, *outputs, *work]) == 0
    head, _, *rows = (cells(row) for row in (tmp_path / "table.md").read_text().splitlines())
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(table) == ["full", "se", "no-skip"]
    assert table["full"]["validation PSNR-Y, seeds 0, 1, 2"] == "26.100 (26.000, 26.200, 26.100)"
    assert table["full"]["parameters"] == "288,600"
    assert table["se"]["s per step"] == "0.150"  # median of 16/160 and 16/80
    by_position = {row[0]: row for row in rows}
    assert by_position["full"][7] == ""
    error = statistics.stdev(GAINS["se"]) / 3**0.5
    assert by_position["se"][7] == by_position["se"][9] == f"-0.200 ± {error:.3f}"
    assert by_position["no-skip"][7] == "+0.100 ± 0.000"
    assert head[8] == "B100 PSNR-Y, seeds 0, 1, 2"
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_one_seed_has_no_standard_error():
    assert ablation.difference([2.0], [1.5]) == (0.5, None)


def test_unfinished_runs_are_resumed_with_their_flags(tmp_path, monkeypatch):
    commands = []
    arguments = ["--train_data_path", "t.h5", "--valid_data_path", "v.h5", "--steps", "100", "--seeds", "3"]
    run = ablation.run_of("full", 3, 100, tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "run_x4.jsonl").write_text('{"step": 90, "images_per_second": 1.0}\n')
    (run.folder / "run_x4.00000090.train.pth").write_bytes(b"")

    def train(command, check):
        commands.append(command)
        folder = run.folder if len(commands) == 1 else ablation.run_of("fft", 3, 100, tmp_path).folder
        folder.mkdir(parents=True, exist_ok=True)
        lines = [{"step": step, "images_per_second": 160.0, "psnr_y": 26.0} for step in (50, 100)]
        (folder / "run_x4.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return type("Finished", (), {"returncode": 0})

    monkeypatch.setattr(runs.subprocess, "run", train)
    assert ablation.main([*arguments, "--variants", "fft", "--work", str(tmp_path)]) == 0
    full, fft = (parse_args(command[2:]) for command in commands)
    assert (full.resume, full.set, full.seed, full.valid_interval, full.save_interval) == (True, [], 3, 100, 10)
    assert (fft.resume, fft.set, fft.optimizer, fft.lr, fft.scale) == (
        None,
        ["frequency=fft", "channels=21"],
        "muon",
        5e-3,
        4,
    )
