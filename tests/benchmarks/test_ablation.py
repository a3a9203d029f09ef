"""benchmarks/ablation.py: equal Multi-Adds, the table of finished runs, and the commands of the others."""

import argparse
import json
import statistics

import pytest

from benchmarks import ablation, runs
from benchmarks.runs import Outcome
from hrn.checkpoint import save_checkpoint
from hrn.model import HRNConfig, build_model
from hrn.model.summary import summarise
from hrn.training.flags import parse_args

PSNR = {0: 26.0, 1: 26.2, 2: 26.1}
SMALL = HRNConfig(channels=8, n_dem=1, n_wrab=1, expansion=1, scales=(4,), reduction=4, upsampler="direct")
GAINS = {"full": (0.0, 0.0, 0.0), "se": (-0.1, -0.2, -0.3), "no-skip": (0.1, 0.1, 0.1)}


def multi_adds(variant):
    return summarise(ablation.config_of(variant))[-1].multi_adds


@pytest.mark.parametrize("variant", ablation.VARIANTS)
def test_multi_adds_agree(variant):
    assert multi_adds(variant) == pytest.approx(multi_adds("full"), rel=0.02)


@pytest.mark.parametrize("variant", ["full", "fft"])
def test_multi_adds_of_a_variant_by_hand(variant):
    """The FFT variant has one WRDB of 2 C channels and half the width."""
    config = ablation.config_of(variant)
    part = next(p for p in summarise(config) if p.name == "DEM 1")
    h, w, c = 180, 320, config.channels

    def wrdb(c, pixels, size):
        squeezed = c // config.reduction
        wrab = 2 * 9 * 2 * c * c * pixels + c * squeezed * size + c * squeezed * size
        return 2 * wrab + (2 + 3) * c * c * pixels

    half = w // 2 + 1
    in_image = wrdb(c, h * w, h + w)
    in_frequency = wrdb(2 * c, h * half, h + half) if variant == "fft" else in_image
    assert part.multi_adds == 2 * in_image + in_frequency + (2 + 4) * c * c * h * w


def test_every_variant_can_be_built_and_is_a_valid_command():
    for variant in ablation.VARIANTS:
        assert build_model(ablation.config_of(variant)).config == ablation.config_of(variant)
        flags = ablation.run_of(variant, 0, 100).flags.split()
        args = parse_args([*flags, "--scale", "4", "--ckpt_name", "run"])
        assert " ".join(args.set) == ablation.VARIANTS[variant]
    assert len({ablation.run_of(variant, 0, 100).flags for variant in ablation.VARIANTS}) == len(ablation.VARIANTS)


def write_results(path):
    """Write the results file of 9 runs."""
    outcomes = []
    for variant, gains in GAINS.items():
        for seed, gain in enumerate(gains):
            validations = [{"step": 100, "psnr_y": PSNR[seed] + gain, "ssim_y": 0.7}]
            flags = ablation.run_of(variant, seed, 100).flags
            outcomes.append(Outcome(flags, seed, 100, "2.14", 40.0, validations, {"B100": 27 + gain}))
    path.write_text("".join(json.dumps(vars(outcome)) + "\n" for outcome in outcomes))


def cells(row):
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_table_and_figure_of_a_results_file(tmp_path, monkeypatch, hr_folder):
    write_results(tmp_path / "results.jsonl")
    monkeypatch.setattr(runs.subprocess, "run", lambda *a, **k: pytest.fail("a finished run was trained again"))
    b100 = tmp_path / "B100"
    hr_folder.rename(b100)
    data = ["--train_data_path", "t.h5", "--valid_data_path", "v.h5", "--test_data_dir", str(b100)]
    files = ["--results", str(tmp_path / "results.jsonl"), "--work", str(tmp_path / "work")]
    outputs = ["--table", str(tmp_path / "table.md"), "--figure", str(tmp_path / "figure.png")]
    assert ablation.main([*data, *files, *outputs, "--steps", "100", "--variants", "se", "no-skip"]) == 0
    head, _, *rows, _, note = (cells(row) for row in (tmp_path / "table.md").read_text().splitlines())
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(table) == ["full", "se", "no-skip"]
    assert table["full"]["validation PSNR-Y, seeds 0, 1, 2"] == "26.100 (26.000, 26.200, 26.100)"
    assert table["full"]["parameters"] == "288,600"
    assert table["se"]["s per step"] == "0.200"  # 8 / 40
    by_position = {row[0]: row for row in rows}
    assert by_position["full"][7] == ""
    error = statistics.stdev(GAINS["se"]) / 3**0.5
    assert by_position["se"][7] == by_position["se"][9] == f"-0.200 ± {error:.3f}"
    assert by_position["no-skip"][7] == "+0.100 ± 0.000"
    pooled = (error**2 / 2) ** 0.5  # no-skip has no error
    assert note[0].endswith(f"{pooled:.3f} dB (validation), {pooled:.3f} dB (B100).")
    assert head[8] == "B100 PSNR-Y, seeds 0, 1, 2"
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_one_seed_has_no_standard_error():
    assert ablation.difference([2.0], [1.5]) == (0.5, None)


def test_unfinished_runs_are_resumed_with_their_flags(tmp_path, monkeypatch):
    commands = []
    full, fft = (ablation.run_of(variant, 3, 100).folder(tmp_path) for variant in ("full", "fft"))
    full.mkdir(parents=True)
    (full / "run_x4.jsonl").write_text('{"step": 90, "images_per_second": 1.0}\n')
    (full / "run_x4.00000090.train.pth").write_bytes(b"")

    def train(command, check, env):
        folder = full if not commands else fft
        commands.append(command)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [{"step": step, "images_per_second": 160.0, "psnr_y": 26.0, "ssim_y": 0.7} for step in (50, 100)]
        (folder / "run_x4.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        save_checkpoint(folder / "run_x4.pth", SMALL, build_model(SMALL).state_dict(), info={})
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(runs.subprocess, "run", train)
    arguments = ["--train_data_path", "t.h5", "--valid_data_path", "v.h5", "--steps", "100", "--seeds", "3"]
    assert ablation.main([*arguments, "--variants", "fft", "--work", str(tmp_path)]) == 0
    full, fft = (parse_args(command[2:]) for command in commands)
    assert (full.auto_resume, full.set, full.seed, full.valid_interval, full.save_interval) == (True, [], 3, 100, 8)
    assert (fft.auto_resume, fft.set) == (True, ["frequency=fft", "channels=21"])
    assert (fft.optimizer, fft.lr, fft.batch_size, fft.scale) == ("muon", 5e-3, 8, 4)
