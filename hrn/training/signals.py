"""Signal handling: SIGTERM, SIGINT and SIGHUP stop a run after the current step. On an error, its DataLoader workers are killed."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGHUP = getattr(signal, "SIGHUP", None)
"""The signal of a closed terminal; None on Windows."""


class StopSignal:
    """Context manager that records SIGTERM, SIGINT and SIGHUP in `signal` instead of stopping. `signal` is 0 before the first one.

    SIGHUP stays ignored under nohup. It is always recorded repeatedly, because the end of a terminal may send it twice.

    Args:
        repeated: keep recording after the first signal. Otherwise the previous handlers are restored, so that a second
            signal takes effect at once.
    """

    SIGNALS = tuple(n for n in (signal.SIGTERM, signal.SIGINT, SIGHUP) if n is not None)

    def __init__(self, *, repeated: bool) -> None:
        self.signal = 0
        self.repeated = repeated
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        handled = [n for n in self.SIGNALS if n != SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore(*self._previous)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            signal.signal(number, self._previous[number])

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if not self.repeated:
            self._restore(*(n for n in self._previous if n != SIGHUP))


def ignore_signals(worker: int) -> None:
    """Ignore SIGTERM, SIGINT and SIGHUP in a DataLoader worker. The training process decides when to stop."""
    for number in StopSignal.SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def kill_workers_on_error() -> Iterator[None]:
    """Kill the DataLoader workers that the body started if it raises. They ignore SIGTERM, which would otherwise end them at exit."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        if workers := set(multiprocessing.active_children()) - before:
            in_main_thread = threading.current_thread() is threading.main_thread()
            # PyTorch's SIGCHLD handler would raise another error over this one
            replace = in_main_thread and hasattr(signal, "SIGCHLD")  # not on Windows
            previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if replace else None
            for process in workers:
                process.kill()
            for process in workers:
                process.join()
            if previous is not None:
                signal.signal(signal.SIGCHLD, previous)
        raise
