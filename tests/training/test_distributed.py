"""Runs of two gloo processes on the CPU, started as on the command line."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from hrn import train
from hrn.errors import HRNError
from hrn.training.run_files import RunFiles, load_state, read_log
from tests.training.conftest import log_of


@pytest.fixture
def start(root, h5_path, tmp_path):
    """Start a training of hrn_light in a folder of its own."""
    started = []

    def run(name, *more, torchrun=(), **changes):
        flags = {
            "model": "hrn_light", "ckpt_name": "a", "ckpt_dir": tmp_path / name, "scale": 2, "train_data_path": h5_path,
            "patch_size": 12, "batch_size": 8, "norm_batch": 4, "max_steps": 20, "print_interval": 5,
            "save_interval": 5, "ema": 0.9, "device": "cpu", **changes,
        }  # fmt: skip
        script = (
            ["-m", "torch.distributed.run", *torchrun, str(root / "hrn/train.py")]
            if torchrun
            else [str(root / "hrn/train.py")]
        )
        command = [sys.executable, *script, *(str(x) for k, v in flags.items() for x in (f"--{k}", v)), *more]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        started.append((name, subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)))
        return started[-1][1]

    yield run
    for name, process in started:
        kill(process, RunFiles(tmp_path / name, "a_x2"))


@pytest.fixture
def files(tmp_path):
    return lambda name: RunFiles(tmp_path / name, "a_x2")


def finish(process, code=0):
    """Wait for an exit code, and return stderr."""
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == code, stderr
    return stderr


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(process, files):
    """Send SIGKILL to all processes of a run."""
    process.kill()
    for worker in workers(files):
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_two_processes_equal_one(start, files, h5_path):
    """Half the batch each: the same parameters, scores and log as one process with the whole batch, or with it in two parts.

    The whole batch is summed in another order. Adam can amplify this rounding, by an amount that depends on the CPU.
    """
    runs = start("one", valid_data_path=h5_path), start("two", num_gpu=2, valid_data_path=h5_path)
    stderr = [finish(run) for run in runs]
    finish(start("parts", accumulate=2, valid_data_path=h5_path))
    assert "1 process(es) on cpu, 8 of 8 patches" in stderr[0]
    assert "2 process(es) on cpu, 4 of 8 patches" in stderr[1]
    assert stderr[1].count("step 20/20") == 1  # only the main process logs
    two = load_state(files("two").state_path(20)).weights
    for name, parameters, log in (("parts", 1e-6, 1e-4), ("one", 2e-5, 1e-3)):  # 20 steps can move a weight by 2e-3
        other = load_state(files(name).state_path(20)).weights
        gaps = [float((v - two[k]).abs().max()) for k, v in other.items() if v.is_floating_point()]
        assert max(gaps) < parameters
        for a, b in zip(log_of(files(name)), log_of(files("two")), strict=True):
            assert a == pytest.approx(b, rel=log)
    assert "psnr_y" in log_of(files("two"))[-1]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_killed_and_resumed_by_two_processes_bit_for_bit(start, files, same, optimizer):
    flags = {"num_gpu": 2, "save_interval": 1, "optimizer": optimizer}
    killed = start("killed", **flags, max_steps=100_000)
    wait_for(lambda: len(files("killed").states()) >= 2)
    kill(killed, files("killed"))
    step = files("killed").load_newest_state().training["step"]
    straight = start("straight", **flags, max_steps=step + 4)
    resumed = start("killed", "--resume", **flags, max_steps=step + 4)
    stderr = finish(resumed)
    finish(straight)
    assert f"from step {step} to {step + 4}" in stderr
    a, b = (files(name).load_newest_state() for name in ("straight", "killed"))
    assert a.training["step"] == b.training["step"] == step + 4
    same(dict(a.weights), dict(b.weights))
    same({**a.training, "recipe": 0}, {**b.training, "recipe": 0})
    assert log_of(files("straight")) == log_of(files("killed"))


def workers(files):
    """Find the worker processes of a run. torchrun starts each in its own session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    command = file.read().decode().split("\0")
            except OSError:
                continue
            if str(files.folder) in command and "-u" in command:  # as torchrun starts them
                found.append(int(entry))
    return found


@pytest.mark.slow
def test_workers_are_restarted_and_resume(start, files):
    """torchrun restarts both after one has died, and they resume without --resume."""
    torchrun = ("--standalone", "--nproc_per_node=2", "--max_restarts=1")
    run = start("elastic", torchrun=torchrun, save_interval=2, max_steps=150, print_interval=50)
    wait_for(lambda: files("elastic").states())
    os.kill(workers(files("elastic"))[-1], signal.SIGKILL)
    stderr = finish(run)
    assert stderr.count("from step 0 to 150") == 1
    assert stderr.count(" to 150; writing") == 2
    assert files("elastic").load_newest_state().training["step"] == 150
    assert [line["step"] for line in read_log(files("elastic").log)] == list(range(50, 151, 50))


@pytest.mark.slow
def test_a_stop_of_all_processes_saves_once_and_prints_the_command(start, files):
    run = start("stopped", num_gpu=2, max_steps=100_000, save_interval=50_000, print_interval=1)
    wait_for(lambda: files("stopped").log.exists())
    os.kill(run.pid, signal.SIGTERM)
    stderr = finish(run, 128 + signal.SIGTERM)
    step = files("stopped").load_newest_state().training["step"]
    assert f"SIGTERM at step {step}" in stderr
    assert stderr.count("--resume") == 1
    finish(start("stopped", "--resume", num_gpu=1, max_steps=step + 2))  # another number of processes
    assert files("stopped").load_newest_state().training["step"] == step + 2


def test_wrong_flags_fail_before_any_process_is_started(h5_path, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "launch", None)
    flags = f"--model hrn_light --ckpt_name a --ckpt_dir {tmp_path}/bad --scale 2 --train_data_path {h5_path} --batch_size 8"
    for more, name in (
        ("--num_gpu 3 --device cpu", "--batch_size 8"),
        ("--num_gpu 2 --device cpu --train_data_path nowhere.h5", "nowhere.h5"),
        ("--num_gpu 64 --batch_size 64", "--num_gpu 64"),
    ):
        with pytest.raises(HRNError, match=name):
            train.main(f"{flags} {more}".split())
    assert not (tmp_path / "bad").exists()
