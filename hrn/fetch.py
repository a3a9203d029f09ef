"""Fetching files from public addresses, and unpacking them, so that what is broken leaves nothing behind.

A download is written beside its target and renamed when it is whole and right. One that broke off is gone on with, if the
server still has the same file. Of several processes that want one file, one fetches it and the others wait.
"""

import http.client
import logging
import lzma
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from tqdm import tqdm

from hrn.errors import HRNError
from hrn.files import file_hash

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
TRIES = 3
"""For each address; each goes on where the last one broke off."""
MOST_BYTES = 16 << 30
"""The largest download, and the largest sum of an archive's files; DIV2K's largest archive has under 4 GiB."""
USER_AGENT = "hrn-download/1"
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, RuntimeError)
"""What an archive that is damaged or, the last one, encrypted ends in."""


class ArchiveError(HRNError):
    """An archive that is damaged, or that would do harm."""


class _Unusable(Exception):
    """What one address answered cannot be used; the message says why."""


def fetch(
    addresses: Sequence[str], target: Path, *, checksum: str | None = None, timeout: float = 30, wait: float = 2
) -> bool:
    """Fetch a file from the first of its addresses that gives it.

    Args:
        addresses: http or https, all of the same file.
        target: where it goes; one that is there already, and is right as far as is known, is kept.
        checksum: `md5:` or `sha256:` and hexadecimal digits.
        timeout: seconds without a byte after which an address counts as dead.
        wait: seconds before another try.

    Returns:
        Whether anything was fetched.

    Raises:
        HRNError: no address gave the file, with the reason of each; or it cannot be written.
    """
    if _is_right(target, checksum):
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.with_name(f".{target.name}.lock")):
            if _is_right(target, checksum):  # another process was quicker
                return False
            if target.is_file():
                logger.warning("%s is there, but is not the file that is wanted; fetching it again", target)
            _fetch(addresses, target, checksum, timeout, wait)
    except OSError as error:
        raise HRNError(f"cannot write {target}: {error.strerror or error}") from None
    return True


def _is_right(target: Path, checksum: str | None) -> bool:
    """Whether a file is there, and is the one that is wanted, as far as is known."""
    return target.is_file() and (not checksum or _hash(target, checksum) == checksum)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is here; the lock is a file for that time. Where there are no locks, nobody waits."""
    if not fcntl:
        yield
        return
    while True:
        with lock.open("a") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_open(lock, file):
                continue  # the process that was here has deleted it: make another
            try:
                yield
                return
            finally:
                lock.unlink(missing_ok=True)


def _is_open(path: Path, file: IO) -> bool:
    """Whether the open file is the one at that path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetch(addresses: Sequence[str], target: Path, checksum: str | None, timeout: float, wait: float) -> None:
    """:func:`fetch`, in one process at a time."""
    part, source = (target.with_name(f".{target.name}.{end}") for end in ("part", "from"))
    reasons = []
    for address in addresses:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(wait)
            try:
                _receive(address, part, source, timeout)
                if checksum and (got := _hash(part, checksum)) != checksum:
                    part.unlink()
                    raise _Unusable(f"wrong file: {got}, not {checksum}")
            except _Unusable as error:
                reasons.append(f"{address}: {error}")
                break
            except (OSError, http.client.HTTPException) as error:
                reason = f"{address}: {getattr(error, 'reason', None) or error or type(error).__name__}"
                logger.warning("%s", reason)
                reasons.append(reason)
            else:
                part.replace(target)
                source.unlink(missing_ok=True)
                return
    if not part.exists():
        source.unlink(missing_ok=True)
    raise HRNError(f"could not fetch {target.name}:\n  " + "\n  ".join(dict.fromkeys(reasons)))


def _receive(address: str, part: Path, source: Path, timeout: float) -> None:
    """Bring `part` to its full length. OSError: try again; _Unusable: do not."""
    try:
        if urlsplit(address).scheme not in ("http", "https"):
            raise _Unusable("not an http or https address")
        request = urllib.request.Request(address, headers={"User-Agent": USER_AGENT})
    except ValueError as error:
        raise _Unusable(f"not a web address ({error})") from None
    have = part.stat().st_size if part.exists() and source.exists() else 0
    validator = ""
    if have:
        known, _, validator = source.read_text(encoding="utf-8").partition("\n")
        if known != address or not validator:
            have = 0
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        answer = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is left to send, or the file has changed: start again
            part.unlink()
            raise OSError("the server could not go on where it broke off") from None
        if error.code >= 500 or error.code == 429:
            raise
        raise _Unusable(f"HTTP {error.code} {error.reason}") from None
    except (ValueError, http.client.InvalidURL) as error:  # a character or a name that cannot be sent
        raise _Unusable(f"not a web address ({error})") from None
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise _Unusable("answered with a web page instead of the file")
        start = _range_start(answer.headers.get("Content-Range")) if answer.status == 206 else 0
        if start not in (0, have):
            raise _Unusable(f"sent from byte {start}, not {have}")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if total and total > MOST_BYTES:
            raise _Unusable(f"{total / 2**30:.1f} GiB, which is more than any file that is wanted")
        tag = answer.headers.get("ETag", "W/")
        validator = answer.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
        source.write_text(f"{address}\n{validator}", encoding="utf-8")
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.name[1:-5], disable=None, leave=False
        )
        with part.open("ab" if start else "wb") as file, bar:
            while block := answer.read(BLOCK):
                try:
                    file.write(block)
                    file.flush()
                except OSError as error:
                    raise HRNError(f"cannot write {part}: {error.strerror}") from None
                bar.update(len(block))
                if file.tell() > MOST_BYTES:
                    raise _Unusable("it does not end")
    if total is not None and part.stat().st_size < total:
        raise OSError(f"broke off after {part.stat().st_size:,} of {total:,} bytes")


def _range_start(text: str | None) -> int:
    found = re.match(r"bytes (\d+)-", text or "")
    return int(found[1]) if found else -1


def _hash(path: Path, like: str) -> str:
    kind = like.split(":")[0]
    return f"{kind}:{file_hash(path, kind)}"


def unpack(archive: Path, folder: Path, place: Callable[[str], str | None]) -> int:
    """Unpack files of a zip or tar archive.

    Args:
        archive: may come from anyone: links, devices and paths that lead out of `folder` are refused.
        folder: that everything goes into.
        place: the path in `folder` of a member's path, or None to leave it out.

    Returns:
        How many files were unpacked; nothing is there before all are.

    Raises:
        ArchiveError: damaged, refused, or too large.
        HRNError: it cannot be written.
    """
    building = folder / f".{archive.name}.unpacking"
    shutil.rmtree(building, ignore_errors=True)
    placed: list[Path] = []
    size = 0
    try:
        for name, stream in _members(archive):
            to = place(name)
            if to is None:
                continue
            relative = PurePosixPath(to)
            if relative.is_absolute() or ".." in relative.parts or "\\" in to or re.match(r"[A-Za-z]:", to):
                raise ArchiveError(f"{archive}: refused, because {name!r} leads out of its folder")
            path = building / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while block := stream.read(BLOCK):
                    size += len(block)
                    if size > MOST_BYTES:
                        raise ArchiveError(
                            f"{archive}: refused, because it unpacks to more than {MOST_BYTES >> 30} GiB"
                        )
                    file.write(block)
            placed.append(path)
        for path in placed:
            target = folder / path.relative_to(building)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    except (*DAMAGE, OSError) as error:
        if isinstance(error, DAMAGE) or error.errno is None:  # gzip and bz2 say by an OSError that a file is damaged
            raise ArchiveError(f"{archive}: damaged, or neither zip nor tar ({error})") from None
        raise HRNError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return len(placed)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the files in an archive. Raises ArchiveError for what is neither a file nor a folder."""
    with ExitStack() as stack:
        if zipfile.is_zipfile(archive):
            file = stack.enter_context(zipfile.ZipFile(archive))
            for info in file.infolist():
                if (info.external_attr >> 16) & 0o170000 == 0o120000:
                    raise ArchiveError(f"{archive}: refused, because {info.filename!r} is a link")
                if not info.is_dir():
                    with file.open(info) as stream:
                        yield info.filename, stream
            return
        tar = stack.enter_context(tarfile.open(archive))
        for member in tar:
            if not (member.isfile() or member.isdir()):
                raise ArchiveError(f"{archive}: refused, because {member.name!r} is a link or a device")
            if member.isfile():
                yield member.name, tar.extractfile(member)
