"""Signal handling: SIGTERM, SIGINT and SIGHUP stop a run after the current step. On an error, its DataLoader workers are killed."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Context manager that records SIGTERM, SIGINT and SIGHUP in `signal` instead of stopping. `signal` is 0 before the first one.

    SIGHUP, which the end of a terminal sends, stays ignored under nohup.

    Args:
        repeated: keep recording after the first signal. Otherwise the previous handlers are restored, so that a second
            signal takes effect at once.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name))

    def __init__(self, *, repeated: bool) -> None:
        self.signal = 0
        self.repeated = repeated
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        handled = [number for number in self.SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if not self.repeated:
            self.__exit__()


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
