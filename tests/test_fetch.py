"""hrn/fetch.py, with a local server that can fail in several ways."""

import io
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from hrn import fetch as fetch_module
from hrn.errors import HRNError
from hrn.fetch import ArchiveError, fetch, unpack
from tests.site import DATA, MD5, Server, make_zip


@pytest.fixture
def get(site, tmp_path, monkeypatch):
    """A function that downloads paths of the site, without waiting between attempts."""

    def run(*paths, checksum=MD5, **more):
        timeout = 30
        if "slow" in paths:
            monkeypatch.setattr(fetch_module, "TRIES", 1)
            timeout = 1
        return fetch(
            [f"{site}/{p}" for p in paths], tmp_path / "got.zip", checksum=checksum, wait=0, timeout=timeout, **more
        )

    return run


def names_in(folder):
    return [p.name for p in folder.iterdir()]


@pytest.mark.parametrize("path", ["good", "ranges", "changed", "noranges", "busy", "moved", "past", "oddlength"])
def test_answers_that_give_the_file(get, tmp_path, path):
    assert get(path)
    assert (tmp_path / "got.zip").read_bytes() == DATA
    assert names_in(tmp_path) == ["got.zip"]


def test_an_interrupted_download_is_resumed(get):
    get("ranges")
    assert Server.asked == [("/ranges", None), ("/ranges", "bytes=300000-")]


def test_a_later_run_resumes_or_starts_again(get, tmp_path):
    with pytest.raises(HRNError, match=r"1,000.*1,024,000"):
        get("short")
    assert sorted(names_in(tmp_path)) == [".got.zip.from", ".got.zip.part"]
    assert get("ranges")  # another URL: starts again
    assert (tmp_path / "got.zip").read_bytes() == DATA
    assert names_in(tmp_path) == ["got.zip"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("wrong", "md5:"),
        ("page", "web page"),
        ("gone", "404"),
        ("huge", "931"),
        ("slow", "timed out"),
        ("elsewhere", "302"),
    ],
)
def test_other_answers_are_reported_and_the_next_url_is_tried(get, tmp_path, path, reason):
    with pytest.raises(HRNError, match=rf"/{path}: .*{reason}"):
        get(path)
    assert not (tmp_path / "got.zip").exists()
    assert get(path, "good")
    assert (tmp_path / "got.zip").read_bytes() == DATA


def test_a_response_over_the_limit_is_not_kept(get, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_module, "MAX_BYTES", 100_000)
    with pytest.raises(HRNError, match="exceeds"):
        get("endless")
    assert (tmp_path / ".got.zip.part").stat().st_size == 0


def test_an_existing_file_is_kept_if_its_checksum_matches(get, tmp_path):
    (tmp_path / "got.zip").write_bytes(DATA)
    assert not get("good")
    assert Server.asked == []
    (tmp_path / "got.zip").write_bytes(DATA[:-1])
    assert get("good")
    (tmp_path / "got.zip").write_bytes(b"anything")
    assert not get("good", checksum=None)


def wait_for_request():
    deadline = time.monotonic() + 60
    while not Server.asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_of_several_threads_downloads_the_file(site, tmp_path):
    results = []

    def run():
        fetched = fetch([f"{site}/steady"], tmp_path / "got.zip", checksum=MD5, wait=0, timeout=5)
        results.append((fetched, (tmp_path / "got.zip").read_bytes() == DATA))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [(False, True)] * 3 + [(True, True)]
    assert Server.asked == [("/steady", None)]
    assert names_in(tmp_path) == ["got.zip"]


def test_a_waiting_thread_continues_after_a_failure(site, tmp_path):
    results = []

    def run():
        with suppress(HRNError):
            results.append(fetch([f"{site}/short"], tmp_path / "got.zip", checksum=MD5, wait=0.1, timeout=5))

    failing = threading.Thread(target=run)
    failing.start()
    wait_for_request()
    assert fetch([f"{site}/good"], tmp_path / "got.zip", checksum=MD5, wait=0, timeout=5)
    failing.join(30)
    assert results == []
    assert [path for path, _ in Server.asked] == ["/short"] * 3 + ["/good"]
    assert names_in(tmp_path) == ["got.zip"]


def test_a_target_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HRNError, match=r"file/got\.zip"):
        fetch([f"{site}/good"], tmp_path / "file/got.zip")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "https://[bad", "http://..a/x", "{site}/ü.pth", "{site}/a b"])
def test_only_valid_urls(site, tmp_path, url):
    with pytest.raises(HRNError, match=r"cannot download x"):
        fetch([url.format(site=site)], tmp_path / "x")
    assert Server.asked == []


def make_tar(path, members, **more):
    with tarfile.open(path, "w:gz") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in more.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unpacking(tmp_path, make):
    make(tmp_path / "a", {"top/0001.png": b"one", "top/sub/0002.png": b"two", "top/readme": b"no"})
    place = lambda name: name.removeprefix("top/") if name.endswith("png") else None  # noqa: E731
    assert unpack(tmp_path / "a", tmp_path / "out", place) == 2
    assert (tmp_path / "out/sub/0002.png").read_bytes() == b"two"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0001.png", "sub"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "/../evil", "a\\..\\evil", "C:evil"])
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_nothing_is_written_outside_the_folder(tmp_path, make, name):
    """Such paths are refused or made safe."""
    archive, out = tmp_path / "a", tmp_path / "one/two/out"
    make(archive, {"good": b"1", name: b"2"})
    with suppress(ArchiveError):
        unpack(archive, out, str)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and out not in p.parents] == [archive]
    assert not Path("/evil").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_skipped(tmp_path, kind):
    make_tar(tmp_path / "a", {"x": b""}, type=kind, linkname="/etc/passwd")
    assert unpack(tmp_path / "a", tmp_path / "out", str) == 0


def test_links_in_zips_are_skipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        for name, kind in (("link", 0o120777), ("file", 0o100644), ("of_another_system", 0)):
            info = zipfile.ZipInfo(name)
            info.external_attr = kind << 16
            file.writestr(info, "/etc/passwd")
    assert unpack(tmp_path / "a", tmp_path / "out", str) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["file", "of_another_system"]


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archives_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch, make):
    monkeypatch.setattr(fetch_module, "MAX_BYTES", 3 << 20)
    make(tmp_path / "a", {f"{i}": bytes(1 << 20) for i in range(4)})
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "a", tmp_path / "out", str)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("headers", [{"path": "a\0b"}, {"mtime": "nan"}, {"mtime": "1e30"}])
def test_archives_with_invalid_headers(tmp_path, headers):
    make_tar(tmp_path / "a", {"x": b"1"}, pax_headers=headers)
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "a", tmp_path / "out", str)
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_archives(tmp_path):
    make_tar(tmp_path / "a", {"x": DATA})
    whole = (tmp_path / "a").read_bytes()
    make_zip(tmp_path / "z", {"x": DATA})
    zipped = bytearray((tmp_path / "z").read_bytes())
    zipped[5000] ^= 1
    make_zip(tmp_path / "é", {"é.png": DATA})
    misnamed = (tmp_path / "é").read_bytes().replace("é".encode(), b"\xff\xff")  # the header says UTF-8
    others = [misnamed]
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).integers(0, 9, 1 << 19, np.uint8).tobytes())
    for kind, quick in (("bz2", {"compresslevel": 1}), ("xz", {"preset": 0})):
        with tarfile.open(tmp_path / kind, f"w:{kind}", **quick) as file:
            file.add(tmp_path / "noise", "noise")
        others.append(bytearray((tmp_path / kind).read_bytes()))
        middle = len(others[-1]) // 2  # the archive can still be opened
        others[-1][middle : middle + 99] = bytes(99)
    for broken in (whole[: len(whole) // 2], b"not an archive", b"", zipped, *others):
        (tmp_path / "b").write_bytes(broken)
        with pytest.raises(ArchiveError):
            unpack(tmp_path / "b", tmp_path / "out", str)
        assert list((tmp_path / "out").glob("*")) == []
