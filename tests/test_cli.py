import errno
import signal
import subprocess
import sys

import pytest

from hrn.cli import interrupt_on_signals, run_cli, split_label
from hrn.errors import HRNError

MAIN = """
import sys
from hrn.cli import run_cli

def main():
    print("caf\\udce9.png")  # Python's form of a file name that is not valid UTF-8

sys.exit(run_cli(main))
"""


def test_characters_that_cannot_be_encoded_are_escaped():
    done = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, r"caf\udce9.png", "")


def test_without_stdout_and_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run_cli(lambda: 3) == 3


def test_exit_codes(capsys):
    def fail(error):
        raise error

    assert run_cli(lambda: None) == 0
    assert run_cli(lambda: fail(HRNError("no such file"))) == 2
    assert run_cli(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "error: no such file\ninterrupted\n"


@pytest.mark.parametrize("number", [errno.ENAMETOOLONG, errno.EACCES])
def test_a_path_that_cannot_be_looked_up(capsys, number):
    def fail(*args):
        raise OSError(*args)

    assert run_cli(lambda: fail(number, "not possible", "a")) == 2
    assert capsys.readouterr().err == "error: a: not possible\n"
    for args in ((errno.EIO, "broken", "a"), (number, "broken")):
        with pytest.raises(OSError, match="broken"):
            run_cli(lambda args=args: fail(*args))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("results/edsr", ("", "results/edsr")),
        ("EDSR=results/edsr", ("EDSR", "results/edsr")),
        ("EDSR=results/lr=1/edsr", ("EDSR", "results/lr=1/edsr")),
        ("lr=1/a.pth", ("", "lr=1/a.pth")),
        ("lr=1", ("", "lr=1")),
        ("lr=2/a.pth", ("lr", "2/a.pth")),
        ("a=b=lr=1", ("a=b", "lr=1")),
    ],
)
def test_labels(tmp_path, monkeypatch, text, expected):
    """A path that exists may contain `=`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1").mkdir()
    (tmp_path / "lr=1/a.pth").touch()
    assert split_label(text) == expected


@pytest.mark.parametrize("text", ["", "EDSR="])
def test_labels_without_a_path(text):
    """An unset shell variable must not stand for the current folder."""
    with pytest.raises(HRNError):
        split_label(text)


PRINTS = """
import sys
from hrn.cli import run_cli

def main():
    for _ in range({lines}):
        print("x" * 100)

sys.exit(run_cli(main))
"""


@pytest.mark.parametrize("lines", [1, 3000])
def test_a_reader_that_has_ended(lines):
    """Short output is written when the program ends, and long output before."""
    command = [sys.executable, "-c", PRINTS.format(lines=lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == 141


def test_a_reader_of_stderr_that_has_ended(tmp_path):
    program = "import sys\nfrom hrn.cli import run_cli\nsys.exit(run_cli(lambda: print('x' * 100, file=sys.stderr, flush=True)))"
    with (tmp_path / "out").open("w") as out:
        command = [sys.executable, "-c", f"import time; time.sleep(0.5)\n{program}"]
        with subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE) as running:
            running.stderr.close()
    assert running.returncode == 141
    assert (tmp_path / "out").read_text() == ""


def test_another_broken_pipe_is_an_error():
    def main():
        raise BrokenPipeError("a worker has died")

    with pytest.raises(BrokenPipeError, match="worker"):
        run_cli(main)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
def test_signals_interrupt(monkeypatch):
    for number in (signal.SIGTERM, signal.SIGHUP):
        before = signal.signal(number, signal.SIG_DFL)
        try:
            interrupt_on_signals()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        finally:
            signal.signal(number, before)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    try:
        interrupt_on_signals()  # as under nohup
        signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGTERM, before[1])
