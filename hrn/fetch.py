"""Download files from public URLs and unpack archives.

A download is written to a temporary file beside its target and renamed when it is complete and its checksum matches. An
interrupted download is resumed if the server still has the same file. If several processes want the same file, one of them
downloads it and the others wait.
"""

import http.client
import logging
import lzma
import re
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from hrn.errors import HRNError
from hrn.files import file_hash
from hrn.locks import wait_for_lock

logger = logging.getLogger(__name__)

BLOCK = 1 << 20
TRIES = 3
"""The number of attempts for each URL. Each attempt resumes where the last one stopped."""
MAX_BYTES = 16 << 30
"""The largest accepted download, and the largest accepted unpacked size. DIV2K's largest archive is under 4 GiB."""
USER_AGENT = "hrn-download/1"
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    RuntimeError,
    ValueError,
    OverflowError,
)
"""The exceptions raised for damaged, unsafe or (RuntimeError) encrypted archives."""


class ArchiveError(HRNError):
    """The archive is damaged, unsafe or too large."""


class _Unusable(Exception):
    """A URL does not have the file, so another attempt is pointless. The message states the reason."""


def fetch(
    urls: Sequence[str], target: Path, *, checksum: str | None = None, timeout: float = 30, wait: float = 2
) -> bool:
    """Download a file from the first URL that has it.

    Args:
        urls: http or https URLs of the same file.
        target: the file to write. An existing file is kept if its checksum is right or `checksum` is None.
        checksum: `md5:` or `sha256:` followed by hexadecimal digits.
        timeout: seconds without data after which an attempt fails.
        wait: seconds between two attempts.

    Returns:
        Whether anything was downloaded.

    Raises:
        HRNError: no URL has the file (the message lists the reason for each), or it cannot be written.
    """
    if _is_complete(target, checksum):
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(target.with_name(f".{target.name}.lock")):
            if _is_complete(target, checksum):  # another process has downloaded it meanwhile
                return False
            if target.is_file():
                logger.warning("%s has the wrong checksum; downloading it again", target)
            _fetch(urls, target, checksum, timeout, wait)
    except OSError as error:
        raise HRNError(f"cannot write {target}: {error.strerror or error}") from None
    return True


def _is_complete(target: Path, checksum: str | None) -> bool:
    """Return whether the file exists and has the checksum, if one is known."""
    return target.is_file() and (not checksum or _hash(target, checksum) == checksum)


def _fetch(urls: Sequence[str], target: Path, checksum: str | None, timeout: float, wait: float) -> None:
    """Implement :func:`fetch` while the lock is held."""
    part, source = (target.with_name(f".{target.name}.{end}") for end in ("part", "from"))
    reasons = []
    for url in urls:
        for attempt in range(TRIES):
            if attempt:
                time.sleep(wait)
            try:
                _receive(url, part, source, timeout)
                if checksum and (found := _hash(part, checksum)) != checksum:
                    part.unlink()
                    raise _Unusable(f"wrong checksum: {found}, expected {checksum}")
            except _Unusable as error:
                reasons.append(f"{url}: {error}")
                break
            except (OSError, http.client.HTTPException) as error:
                reason = f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}"
                logger.warning("%s", reason)
                reasons.append(reason)
            else:
                part.replace(target)
                source.unlink(missing_ok=True)
                return
    if not part.exists():
        source.unlink(missing_ok=True)
    raise HRNError(f"cannot download {target.name}:\n  " + "\n  ".join(dict.fromkeys(reasons)))


def _receive(url: str, part: Path, source: Path, timeout: float) -> None:
    """Download a URL into `part`, resuming if possible.

    Args:
        url: an http or https URL.
        part: the partial file.
        source: the file that records the URL and the validator (ETag or date) that `part` was downloaded from.
        timeout: seconds without data.

    Raises:
        OSError: another attempt may succeed.
        _Unusable: another attempt is pointless.
        HRNError: `part` cannot be written.
    """
    response, resumed_at = _open(url, part, source, timeout)
    with response:
        if response.headers.get_content_type() == "text/html":
            raise _Unusable("the server returned a web page instead of the file")
        start = _range_start(response.headers.get("Content-Range")) if response.status == 206 else 0
        if start not in (0, resumed_at):
            raise _Unusable(f"the response starts at byte {start}, requested {resumed_at}")
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and re.fullmatch("[0-9]{1,18}", length) else None
        if total and total > MAX_BYTES:
            raise _Unusable(f"the file has {total / 2**30:.1f} GiB, more than the limit of {MAX_BYTES >> 30} GiB")
        tag = response.headers.get("ETag", "W/")
        validator = response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
        source.write_text(f"{url}\n{validator}", encoding="utf-8")
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.name[1:-5], disable=None, leave=False
        )
        with part.open("ab" if start else "wb") as file, bar:
            while block := response.read(BLOCK):
                try:
                    file.write(block)
                    file.flush()
                except OSError as error:
                    raise HRNError(f"cannot write {part}: {error.strerror}") from None
                bar.update(len(block))
                if file.tell() > MAX_BYTES:
                    file.truncate(0)
                    raise _Unusable(f"the response exceeds {MAX_BYTES >> 30} GiB")
    if total is not None and part.stat().st_size < total:
        raise OSError(f"connection closed after {part.stat().st_size:,} of {total:,} bytes")


def _open(url: str, part: Path, source: Path, timeout: float) -> tuple[http.client.HTTPResponse, int]:
    """Send the request; the second result is the byte from which the answer may resume. Raises the errors of :func:`_receive`."""
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise _Unusable("not an http or https URL")
        request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT})
    except ValueError as error:
        raise _Unusable(f"not a valid URL ({error})") from None
    start = 0
    if part.exists() and source.exists():
        known, _, validator = source.read_text(encoding="utf-8").partition("\n")
        if known == url and validator:
            start = part.stat().st_size
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator)
    try:
        return urllib.request.urlopen(request, timeout=timeout), start
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to send, or the file has changed: start again
            part.unlink()
            raise OSError("the server could not resume the download") from None
        if error.code >= 500 or error.code == 429:
            raise
        raise _Unusable(f"HTTP {error.code} {error.reason}") from None
    except (ValueError, http.client.InvalidURL) as error:  # the host or path contains characters that cannot be sent
        raise _Unusable(f"not a valid URL ({error})") from None


def _range_start(text: str | None) -> int:
    match = re.match(r"bytes (\d+)-", text or "")
    return int(match[1]) if match else -1


def _hash(path: Path, like: str) -> str:
    """Return a file's hash in the notation, and with the algorithm, of the checksum `like`."""
    kind = like.split(":")[0]
    return f"{kind}:{file_hash(path, kind)}"


def unpack(archive: Path, folder: Path, place: Callable[[str], str | None]) -> int:
    """Unpack files from a zip or tar archive; links and devices are skipped.

    Args:
        archive: the archive, which may come from an untrusted source.
        folder: the folder that receives the files. It stays unchanged if the archive cannot be unpacked.
        place: maps a member's path to its path in `folder`, or to None to skip it.

    Returns:
        The number of files.

    Raises:
        ArchiveError: the archive is damaged or too large, or, in a tar archive, a member's path leads out of the folder. In a
            zip archive, `..` is removed from paths.
        HRNError: a file cannot be written.
    """
    temporary = folder / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        extract = _extract_zip if zipfile.is_zipfile(archive) else _extract_tar
        extract(archive, temporary, lambda name: place(name) is not None)
        count = 0
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            if name := place(file.relative_to(temporary).as_posix()):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                file.replace(folder / name)
                count += 1
        return count
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, _DAMAGED) or error.errno is None:  # gzip and bz2 raise OSError for damaged files
            raise ArchiveError(f"{archive}: damaged, unsafe, or neither zip nor tar ({error})") from None
        raise HRNError(f"cannot unpack {archive} into {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract_zip(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Extract regular files; `zipfile` removes `..` and drive letters from their names."""

    def is_regular(info: zipfile.ZipInfo) -> bool:
        kind = stat.S_IFMT(info.external_attr >> 16)
        return not info.is_dir() and kind in (0, stat.S_IFREG)  # 0: made on a system without file types

    with zipfile.ZipFile(archive) as file:
        members = [info for info in file.infolist() if is_regular(info) and wanted(info.filename)]
        _check_size(archive, sum(info.file_size for info in members))
        file.extractall(folder, members)


def _extract_tar(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Extract regular files; the filter "data" refuses paths outside the folder."""
    if not hasattr(tarfile, "data_filter"):
        raise HRNError(f"{archive}: unpacking tar archives needs Python 3.11.4 or later")
    with tarfile.open(archive) as file:
        size = 0
        for member in file:
            if member.isfile() and wanted(member.name):
                size += member.size
                _check_size(archive, size)
                file.extract(member, folder, filter="data")


def _check_size(archive: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise ArchiveError(f"{archive}: unpacks to more than {MAX_BYTES >> 30} GiB")
