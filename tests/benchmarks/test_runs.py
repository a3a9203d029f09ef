"""benchmarks/runs.py: a results file replaces training, other runs are resumed, and several train at a time."""

import argparse
import json
import threading
from pathlib import Path

import pytest

from benchmarks import runs
from benchmarks.runs import Outcome, Run
from hrn.checkpoint import save_checkpoint
from hrn.data.benchmark import find_test_set
from hrn.errors import HRNError
from hrn.model import build_model
from hrn.model.config import preset, with_settings

RUN = Run("tiny", "--model hrn_light --set channels=8", 3, 100)
VALIDATED = {"step": 100, "images_per_second": 40.0, "psnr_y": 26.5, "ssim_y": 0.75, "loss": 0.04}


@pytest.fixture
def args(tmp_path):
    """The values of the flags of a series with two jobs."""
    parser = argparse.ArgumentParser()
    runs.add_flags(parser, steps=100, seeds=(3,), work=tmp_path / "work")
    return parser.parse_args(["--train_data_path", "t.h5", "--valid_data_path", "v.h5", "--jobs", "2"])


def write_run(run, work):
    """Write log and weights of a finished run."""
    config = with_settings(preset("hrn_light", [4]), ["channels=8"])
    run.folder(work).mkdir(parents=True)
    save_checkpoint(
        run.weights(work), config, build_model(config).state_dict(), info={"train_data": "t.h5", "valid_data": ["v.h5"]}
    )
    lines = [{"step": 20, "images_per_second": 1.0}, {"step": 60, "images_per_second": 20.0}, VALIDATED]
    (run.folder(work) / "run_x4.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_trained_run_is_scored_once_and_its_folder_is_then_unnecessary(args, monkeypatch, hr_folder):
    monkeypatch.setattr(runs.subprocess, "run", lambda *a, **k: pytest.fail("a finished run was trained again"))
    write_run(RUN, args.work)
    test_set = find_test_set(hr_folder, 4)
    (outcome,) = runs.finish([RUN], args, validations=1, test_sets=[test_set])
    assert outcome.images_per_second == 30.0  # median without the first entry
    assert outcome.validations == [{"step": 100, "psnr_y": 26.5, "ssim_y": 0.75}]
    assert 5 < outcome.psnr[test_set.name] < 60
    RUN.weights(args.work).unlink()
    assert runs.finish([RUN], args, validations=1, test_sets=[test_set]) == [outcome]


def test_results_of_other_data_are_not_reused(args):
    write_run(RUN, args.work)
    runs.finish([RUN], args, validations=1)
    for results in (None, args.work / "new.jsonl"):
        args.results = results
        for flag, before in (("train_data_path", "t.h5"), ("valid_data_path", "v.h5")):
            setattr(args, flag, Path("u.h5"))
            with pytest.raises(HRNError, match=rf"{before}.*u\.h5"):
                runs.finish([RUN], args, validations=1)
            setattr(args, flag, Path(before))


def test_another_test_set_is_added_to_a_result(args, hr_folder):
    write_run(RUN, args.work)
    first = find_test_set(hr_folder, 4)
    (before,) = runs.finish([RUN], args, validations=1, test_sets=[first])
    second = find_test_set(hr_folder.rename(hr_folder.with_name("other")), 4)
    (after,) = runs.finish([RUN], args, validations=1, test_sets=[second])
    assert after.psnr == {first.name: before.psnr[first.name], second.name: before.psnr[first.name]}


def test_only_missing_runs_are_trained(args, monkeypatch):
    stored = [Outcome(RUN.flags, seed, 100, "2.14", 30.0, [], {}) for seed in (0, 1)]
    args.results = args.work / "results.jsonl"
    args.work.mkdir()
    args.results.write_text("".join(json.dumps(vars(outcome)) + "\n" for outcome in stored))
    commands = []

    def train(command, **_):
        commands.append(command)
        write_run(Run("tiny", RUN.flags, int(command[command.index("--seed") + 1]), 100), args.work)
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(runs.subprocess, "run", train)
    outcomes = runs.finish([Run("tiny", RUN.flags, seed, 100) for seed in (1, 2)], args, validations=1)
    assert [outcome.seed for outcome in outcomes] == [1, 2]
    assert len(commands) == 1
    assert [outcome.seed for outcome in runs.read_outcomes(args.results)] == [0, 1, 2]


@pytest.fixture
def variables(args, monkeypatch):
    """The environment variables of each training, two of which must run at a time."""
    both_started = threading.Barrier(2)
    used = []

    def train(command, check, env):
        both_started.wait(timeout=30)
        used.append(env)
        write_run(Run("tiny", RUN.flags, int(command[command.index("--seed") + 1]), 100), args.work)
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(runs.subprocess, "run", train)
    return used


def test_jobs_run_side_by_side_and_share_the_threads(args, monkeypatch, variables):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runs, "cpu_count", lambda: 8)
    assert len(runs.finish([Run("tiny", RUN.flags, seed, 100) for seed in (0, 1)], args, validations=1)) == 2
    assert [env["OMP_NUM_THREADS"] for env in variables] == ["4", "4"]


@pytest.mark.parametrize(("visible", "expected"), [(None, {"0", "1"}), ("5,GPU-a", {"5", "GPU-a"})])
def test_jobs_are_distributed_over_the_gpus(args, monkeypatch, variables, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(runs.torch.cuda, "device_count", lambda: 2)
    runs.finish([Run("tiny", RUN.flags, seed, 100) for seed in range(4)], args, validations=1)
    used = [env["CUDA_VISIBLE_DEVICES"] for env in variables]
    assert set(used[:2]) == set(used[2:]) == expected


def test_a_failed_run_is_reported(args, monkeypatch):
    monkeypatch.setattr(runs.subprocess, "run", lambda *a, **k: argparse.Namespace(returncode=2))
    with pytest.raises(HRNError, match="tiny, seed 3"):
        runs.finish([RUN], args, validations=1)
    assert not (args.work / "results.jsonl").exists()


@pytest.mark.parametrize("text", ["not json\n", '{"flags": ""}\n', "[1]\n"])
def test_a_damaged_results_file_is_an_error(text, tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(HRNError, match=r"results\.jsonl"):
        runs.read_outcomes(path)


def test_the_folder_depends_on_all_settings(tmp_path):
    different = [
        Run("a", "--lr 1e-3", 0, 5),
        Run("a", "--lr 2e-3", 0, 5),
        Run("a", "--lr 1e-3", 1, 5),
        Run("a", "--lr 1e-3", 0, 6),
    ]
    assert len({run.folder(tmp_path) for run in different}) == 4
