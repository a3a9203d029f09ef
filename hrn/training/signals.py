"""How a run is stopped: SIGTERM and SIGINT as requests to stop after the current step, and loading processes by a failure."""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """`signal` is the number of the signal that came while inside, else 0.

    Args:
        patient: hear further signals too; otherwise a second one does what it does by default, and stops at once.
    """

    HEARD = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, *, patient: bool) -> None:
        self.signal = 0
        self.patient = patient
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._hear) for number in self.HEARD}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if not self.patient:
            self.__exit__()


def ignore_signals(worker: int) -> None:
    """For loading processes: the training process alone decides when to stop, and kills them if it fails."""
    for number in StopSignal.HEARD:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def kill_loaders_on_error() -> Iterator[None]:
    """If what is inside fails, kill them: they are deaf to the SIGTERM that they would get at the end."""
    try:
        yield
    except BaseException:
        if loading := multiprocessing.active_children():
            main = threading.current_thread() is threading.main_thread()
            # PyTorch's handler would raise another error over this one
            before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if main else None
            for process in loading:
                process.kill()
            for process in loading:
                process.join()
            if before is not None:
                signal.signal(signal.SIGCHLD, before)
        raise
