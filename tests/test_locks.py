"""hrn/locks.py, with a second process."""

import subprocess
import sys
import threading

import pytest

from hrn.errors import HRNError
from hrn.locks import check_unlocked, lock_or_refuse, wait_for_lock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no file locks")

HOLD = """
import pathlib, sys
from hrn.locks import lock_or_refuse, wait_for_lock
with {call}:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """A function that starts a process which holds the lock until its input is closed."""
    processes = []

    def start(call):
        command = [
            sys.executable,
            "-c",
            HOLD.format(call=call.format(path=f"pathlib.Path({str(tmp_path / 'lock')!r})")),
        ]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_held_lock_is_refused_and_then_free(hold, tmp_path):
    other = hold("lock_or_refuse({path}, '')")
    for take in (check_unlocked, lambda *args: lock_or_refuse(*args).__enter__()):
        with pytest.raises(HRNError, match=r"^in use$"):
            take(tmp_path / "lock", "in use")
    other.communicate("")
    check_unlocked(tmp_path / "lock", "in use")
    with lock_or_refuse(tmp_path / "lock", "in use"):
        assert (tmp_path / "lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_waits_for_the_holder(hold, tmp_path):
    other = hold("wait_for_lock({path})")
    order = []

    def wait():
        with wait_for_lock(tmp_path / "lock"):
            order.append("held")

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.2)
    order.append("freed")
    other.communicate("")
    waiting.join(30)
    assert order == ["freed", "held"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["lock_or_refuse({path}, '')", "wait_for_lock({path})"])
def test_a_killed_holder_does_not_keep_the_lock(hold, tmp_path, call):
    other = hold(call)
    other.kill()
    other.wait()
    assert (tmp_path / "lock").exists()
    take = wait_for_lock if "wait" in call else lambda path: lock_or_refuse(path, "in use")
    with take(tmp_path / "lock"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_frees_the_lock(tmp_path):
    for take in (wait_for_lock, lambda path: lock_or_refuse(path, "in use")):
        with pytest.raises(KeyError), take(tmp_path / "lock"):
            raise KeyError
    assert list(tmp_path.iterdir()) == []
