"""Writing files so that a reader never sees half of one, and their hashes."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hrn.errors import HRNError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`; what was written there is synced and renamed to `path` at the end, or removed.

    Raises:
        HRNError: the folder cannot be made, or the file cannot be written (no permission, disk full).
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise HRNError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # the folder itself could not be reached; the error above says so
            beside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file as :func:`atomic_write` does."""
    with atomic_write(path) as beside:
        beside.write_text(text, encoding="utf-8")


def file_hash(path: str | Path, kind: str = "sha256") -> str:
    """The hash of a file in hexadecimal digits; `kind` as :mod:`hashlib` names it."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
