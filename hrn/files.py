"""Atomic writes of files and folders, and file hashes."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hrn.errors import HRNError

SCORES, UNFINISHED = "scores.json", ".unfinished"
"""Files in the folder of a test set: its scores, and one that exists while it is scored."""
MAX_NAME_BYTES = 255
"""The longest file name on common file systems."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, then sync it and rename it to `path`.

    Readers see the old file or the complete new one. On an error the temporary file is removed and `path` is unchanged.
    If `path` is a link, its target is written.

    Raises:
        HRNError: `path` is a folder, its folder cannot be created, or the file cannot be written (no permission, disk full).
    """
    path = Path(os.path.realpath(path))
    if os.path.isdir(path):  # fail before the work, not after it
        raise HRNError(f"cannot write {path}: it is a folder; give the path of a file")
    name, end = (
        path.name,
        f".{secrets.token_hex(4)}.part",
    )  # random: processes of two containers may have the same number
    while len(os.fsencode(f".{name}{end}")) > MAX_NAME_BYTES:
        name = name[:-1]
    temporary = path.with_name(f".{name}{end}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise HRNError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # the folder may be unreachable; the error above reports that
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, then rename it to `path`. On an error it is removed.

    Raises:
        HRNError: `path` exists or cannot be written.
    """
    if path.exists():
        raise HRNError(f"{path} already exists; give a new folder, or delete it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
            folder = Path(temporary) / "files"  # with ordinary permissions, unlike the temporary folder
            folder.mkdir()
            yield folder
            folder.rename(path)
    except OSError as error:
        raise HRNError(f"cannot write {path}: {error.strerror or error}") from error


def is_disk_full(error: Exception) -> bool:
    """Return whether an error of :func:`atomic_write` means that the disk is full or a quota exhausted."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


def check_not_input(target: Path, sources: Iterable[Path]) -> None:
    """Check that writing `target` would not replace a file that is read. Raises HRNError."""
    for source in sources:
        if os.path.exists(target) and os.path.exists(source) and os.path.samefile(target, source):
            raise HRNError(f"{target} would replace its own input {source}; write to another file")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file atomically. Raises HRNError as :func:`atomic_write` does.

    What UTF-8 cannot encode, such as a file name in another encoding, is escaped.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def file_hash(path: str | Path, kind: str = "sha256") -> str:
    """Return the hash of a file as hexadecimal digits. `kind` is an algorithm name of :mod:`hashlib`."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
