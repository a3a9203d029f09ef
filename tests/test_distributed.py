"""Processes, one or several, without a training run."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from hrn import distributed
from hrn.cli import run_cli
from hrn.distributed import Processes, check_process_count, join_processes
from hrn.errors import HRNError, ReportedError


def test_processes_and_gpus_must_match(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, word in (("cuda", "at least 2 processes.*GPUs: 1"), ("cuda:0", "--device cuda:0")):
        with pytest.raises(HRNError, match=word), join_processes(device):
            pass


def test_torchrun_and_num_gpu_must_agree(monkeypatch):
    check_process_count(4)  # not started by torchrun
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for count in (0, 1, 2):
        check_process_count(count)
    with pytest.raises(HRNError, match=r"--num_gpu 4.*=2"):
        check_process_count(4)


def test_a_single_process():
    alone = Processes()
    assert alone.is_main
    assert alone.gather([1, 2]) == [1, 2]
    assert alone.max(15) == 15
    values = torch.ones(2)
    alone.average_([values])
    assert torch.equal(values, torch.ones(2))


def test_shards_of_different_lengths_are_merged_in_order(monkeypatch):
    def gather(received, mine):
        received[:] = [mine, ["b"]]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert Processes(rank=0, count=2).gather(["a", "c"]) == ["a", "b", "c"]


def test_an_error_in_one_process_is_raised_in_all(monkeypatch):
    """The other process would wait for this one forever."""

    def gather(received, mine):
        received[:] = [mine, ["the disk of rank 1"]]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    two = Processes(rank=0, count=2)
    done = []
    with pytest.raises(HRNError, match="the disk of rank 1"):
        two.run_on_all(lambda: done.append(True))
    assert done


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 128 + 9)])
def test_the_exit_code_of_a_failed_process(tmp_path, ending, code):
    (tmp_path / "fail.py").write_text(f"import os, sys; {ending}")
    script = f"import sys; from hrn.distributed import launch; sys.exit(launch({str(tmp_path / 'fail.py')!r}, [], 2))"
    assert subprocess.run([sys.executable, "-c", script], stderr=subprocess.DEVNULL).returncode == code


@pytest.mark.slow
def test_a_worker_skips_interpreter_teardown():
    script = "import atexit, os; from hrn.distributed import exit_process; atexit.register(os.abort); print('done', end=''); exit_process(3)"
    env = {**os.environ, "TORCHELASTIC_RUN_ID": "1"}
    ended = subprocess.run([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (3, "done")


def test_an_error_of_all_processes_is_printed_once(monkeypatch, capsys):
    """By the main process, and by the one that it happened in."""
    monkeypatch.setattr(Processes, "gather", lambda self, mine: ["", "damaged"])

    def fail():
        raise HRNError("damaged")

    printed = []
    for rank, action in ((0, list), (1, fail), (2, list)):
        process = Processes(rank=rank, count=3)
        assert run_cli(lambda process=process, action=action: process.run_on_all(action)) == 2
        printed.append(capsys.readouterr().err)
    assert printed == ["error: damaged\n", "error: damaged\n", ""]
    with pytest.raises(ReportedError):
        Processes(rank=2, count=3).run_on_all(list)


@pytest.fixture
def launch(monkeypatch):
    """A function that starts four processes with the variables `given` and a handler of SIGHUP, and returns the variables."""
    before = signal.getsignal(signal.SIGHUP)

    def launch(given, handler):
        started = []
        signal.signal(signal.SIGHUP, handler)
        monkeypatch.setattr(os, "environ", dict(given))
        monkeypatch.setattr(distributed, "cpu_count", lambda: 8)
        monkeypatch.setattr("torch.distributed.run.main", started.append)
        assert distributed.launch("a.py", ["--x"], 4) == 0
        assert started == [["--standalone", "--nproc_per_node=4", "a.py", "--x"]]
        return dict(os.environ)

    yield launch
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("given", "threads"), [({}, "2"), ({"OMP_NUM_THREADS": "5"}, "5")])
def test_started_processes_share_the_cpu_and_get_time_to_save(launch, given, threads):
    variables = launch(given, signal.SIG_DFL)
    assert variables == {"OMP_NUM_THREADS": threads, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}


def test_torchrun_ignores_the_end_of_the_terminal_under_nohup(launch):
    """Its own handler would send SIGHUP to the processes, which ignore it, and kill them later."""
    assert launch({}, signal.SIG_IGN)["PET_SIGNALS_TO_HANDLE"] == "SIGTERM,SIGINT,SIGQUIT"
