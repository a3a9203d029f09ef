import errno
import subprocess
import sys

import pytest

from hrn.cli import run_cli, split_label
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
