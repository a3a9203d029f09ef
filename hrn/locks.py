"""File locks between processes. On systems and file systems without locks, nothing waits and nothing is refused."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from hrn.errors import HRNError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a temporary file. If another process or thread holds it, wait for it."""
    with _locked(path, _wait):
        yield


@contextmanager
def lock_or_refuse(path: Path, refusal: str) -> Iterator[None]:
    """Hold an exclusive lock on a temporary file. Unlike with :func:`wait_for_lock`, forked workers do not hold it.

    The process must not open the file again meanwhile, because closing it would release the lock (POSIX).

    Raises:
        HRNError: another process holds the lock. The message is `refusal`.
    """
    with _locked(path, lambda file: _refuse(file, fcntl.LOCK_EX, refusal)):
        yield


def check_unlocked(path: Path, refusal: str) -> None:
    """Check that no other process is in :func:`lock_or_refuse`. Raises HRNError with the message `refusal`."""
    if fcntl and path.is_file():
        with suppress(FileNotFoundError), path.open() as file:
            _refuse(file, fcntl.LOCK_SH, refusal)


@contextmanager
def _locked(path: Path, lock: Callable[[IO], None]) -> Iterator[None]:
    if not fcntl:
        yield
        return
    while True:
        with path.open("a") as file:
            lock(file)
            if not _is_at(path, file):
                continue  # the previous holder has deleted the file; create it again
            try:
                yield
                return
            finally:
                with suppress(OSError):  # the folder may be unreachable; an error inside reports that
                    path.unlink()


def _is_at(path: Path, file: IO) -> bool:
    """Return whether an open file is the one at `path`."""
    try:
        return os.path.samefile(path, file.fileno())
    except FileNotFoundError:
        return False


def _wait(file: IO) -> None:
    with suppress(OSError):  # the file system does not support locks
        fcntl.flock(file, fcntl.LOCK_EX)


def _refuse(file: IO, kind: int, refusal: str) -> None:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):  # others: the file system does not support locks
            raise HRNError(refusal) from None
