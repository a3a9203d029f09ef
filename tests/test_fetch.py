"""hrn/fetch.py and datasets/download.py, tested with a local server that can fail in several ways."""

import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from hrn import fetch as fetch_module
from hrn.errors import HRNError
from hrn.fetch import ArchiveError, fetch, unpack
from hrn.model import build_model, preset

DATA = bytes(range(256)) * 4000
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()
PNG = b"not decoded"


def zipped(members):
    buffer = io.BytesIO()
    make_zip(buffer, members)
    return buffer.getvalue()


class Server(BaseHTTPRequestHandler):
    """The path selects the method that answers. The class records the requests."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).asked.append((self.path, wanted))
        count = sum(path == self.path for path, _ in self.asked)
        getattr(self, self.path.strip("/").split("/")[0].split(".")[0])(wanted, count)

    def send(self, body, status=200, length=None, **headers):
        self.send_response(status)
        for name, value in {"Content_Type": "application/zip", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def good(self, wanted, count):
        self.send(DATA)

    def ranges(self, wanted, count, etag='"1"', cut=300_000):
        """The first answer is cut. A range is sent if the file is still the same."""
        if wanted and self.headers.get("If-Range") in (None, etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send(DATA[start:], 206, Content_Range=f"bytes {start}-{len(DATA) - 1}/{len(DATA)}", ETag=etag)
        else:
            self.send(DATA[:cut] if count == 1 else DATA, length=len(DATA), ETag=etag)

    def changed(self, wanted, count):
        self.ranges(wanted, count, etag=f'"{count}"')

    def noranges(self, wanted, count):
        self.send(DATA[:1000] if count == 1 else DATA, length=len(DATA))

    def short(self, wanted, count):
        self.send(DATA[:1000], length=len(DATA))

    def wrong(self, wanted, count):
        self.send(DATA[::-1])

    def page(self, wanted, count):
        self.send(b"<html>sign in</html>", Content_Type="text/html; charset=utf-8")

    def gone(self, wanted, count):
        self.send(b"", 404)

    def busy(self, wanted, count):
        self.send(b"", 503) if count == 1 else self.send(DATA)

    def huge(self, wanted, count):
        self.send(b"", length=10**12)

    def slow(self, wanted, count):
        self.send(DATA[:10], length=len(DATA))
        self.wfile.flush()
        time.sleep(1)

    def elsewhere(self, wanted, count):
        self.send_response(302)
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def moved(self, wanted, count):
        self.send_response(302)
        self.send_header("Location", "/good")
        self.end_headers()

    def DIV2K(self, wanted, count):
        """An archive of DIV2K with two images."""
        name = self.path.rsplit("/", 1)[1].removesuffix(".zip")
        folder = name.replace("_X2", "/X2")
        suffix = "x2" if "X2" in name else ""
        self.send(zipped({f"{folder}/000{i}{suffix}.png": PNG for i in (1, 2)} | {f"{folder}/": b""}))

    def set(self, wanted, count):
        """A test set in the layout of SelfExSR."""
        self.send(
            zipped(
                {
                    f"Set/image_SRF_{s}/img_00{i}_SRF_{s}_{k}.png": PNG
                    for s in (2, 4)
                    for i in (1, 2)
                    for k in ("HR", "LR")
                }
            )
        )

    def authors(self, wanted, count):
        self.send(self.weights)

    def past(self, wanted, count):
        """Refuses every range."""
        self.send(b"", 416) if wanted else self.send(DATA[:5] if count == 1 else DATA, length=len(DATA))

    def steady(self, wanted, count):
        """Sends slowly, so that other requests overlap."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        for start in range(0, len(DATA), 100_000):
            self.wfile.write(DATA[start : start + 100_000])
            time.sleep(0.02)


@pytest.fixture
def site():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    Server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def get(site, tmp_path):
    """A function that downloads paths of the site, without waiting between attempts."""

    def run(*paths, checksum=MD5, **more):
        return fetch(
            [f"{site}/{p}" for p in paths], tmp_path / "got.zip", checksum=checksum, wait=0, timeout=0.3, **more
        )

    return run


def names_in(folder):
    return [p.name for p in folder.iterdir()]


@pytest.mark.parametrize("path", ["good", "ranges", "changed", "noranges", "busy", "moved", "past"])
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
    assert get("ranges")  # another address: starts again
    assert (tmp_path / "got.zip").read_bytes() == DATA
    assert names_in(tmp_path) == ["got.zip"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("wrong", "md5:"), ("page", "page"), ("gone", "404"), ("huge", "931"), ("slow", "slow"), ("elsewhere", "302")],
)
def test_other_answers_are_reported_and_the_next_address_is_tried(get, tmp_path, path, reason):
    with pytest.raises(HRNError, match=rf"{path}: .*{reason}|{reason}: "):
        get(path)
    assert not (tmp_path / "got.zip").exists()
    assert get(path, "good")
    assert (tmp_path / "got.zip").read_bytes() == DATA


def test_an_existing_file_is_kept_if_its_checksum_matches(get, tmp_path):
    (tmp_path / "got.zip").write_bytes(DATA)
    assert not get("good")
    assert Server.asked == []
    (tmp_path / "got.zip").write_bytes(DATA[:-1])
    assert get("good")
    (tmp_path / "got.zip").write_bytes(b"anything")
    assert not get("good", checksum=None)


def test_one_of_several_threads_downloads_the_file(site, tmp_path):
    results = []

    def run():
        results.append(fetch([f"{site}/steady"], tmp_path / "got.zip", checksum=MD5, wait=0, timeout=5))
        assert (tmp_path / "got.zip").read_bytes() == DATA

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [False, False, False, True]
    assert Server.asked == [("/steady", None)]
    assert names_in(tmp_path) == ["got.zip"]


def test_a_waiting_thread_continues_after_a_failure(site, tmp_path):
    results = []

    def run():
        with suppress(HRNError):
            results.append(fetch([f"{site}/short"], tmp_path / "got.zip", checksum=MD5, wait=0.1, timeout=5))

    failing = threading.Thread(target=run)
    failing.start()
    while not Server.asked:
        time.sleep(0.01)
    assert fetch([f"{site}/good"], tmp_path / "got.zip", checksum=MD5, wait=0, timeout=5)
    failing.join(30)
    assert results == []
    assert [path for path, _ in Server.asked] == ["/short"] * 3 + ["/good"]
    assert names_in(tmp_path) == ["got.zip"]


def test_a_killed_process_does_not_hold_the_lock(site, tmp_path):
    """The lock file stays, but the operating system releases the lock."""
    script = (
        f"import pathlib, hrn.fetch\nhrn.fetch.fetch(['{site}/slow'], pathlib.Path({str(tmp_path / 'got.zip')!r}))\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    while not Server.asked:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert ".got.zip.lock" in names_in(tmp_path)
    assert fetch([f"{site}/good"], tmp_path / "got.zip", checksum=MD5)
    assert (tmp_path / "got.zip").read_bytes() == DATA
    assert names_in(tmp_path) == ["got.zip"]


def test_a_target_that_cannot_be_written(site, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HRNError, match=r"file/got\.zip"):
        fetch([f"{site}/good"], tmp_path / "file/got.zip")


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "https://[bad", "http://..a/x", "{site}/ü.pth", "{site}/a b"]
)
def test_only_valid_web_addresses(site, tmp_path, address):
    with pytest.raises(HRNError, match=r"cannot download x"):
        fetch([address.format(site=site)], tmp_path / "x")
    assert Server.asked == []


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)


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


def test_links_in_zips_become_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as file:
        info = zipfile.ZipInfo("x")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc/passwd")
    unpack(tmp_path / "a", tmp_path / "out", str)
    assert not (tmp_path / "out/x").is_symlink()
    assert (tmp_path / "out/x").read_text() == "/etc/passwd"


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archives_that_unpack_to_too_much_are_refused(tmp_path, monkeypatch, make):
    monkeypatch.setattr(fetch_module, "MAX_BYTES", 3 << 20)
    make(tmp_path / "a", {f"{i}": bytes(1 << 20) for i in range(4)})
    with pytest.raises(ArchiveError):
        unpack(tmp_path / "a", tmp_path / "out", str)
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_archives(tmp_path):
    make_tar(tmp_path / "a", {"x": DATA})
    whole = (tmp_path / "a").read_bytes()
    make_zip(tmp_path / "z", {"x": DATA})
    zipped = bytearray((tmp_path / "z").read_bytes())
    zipped[5000] ^= 1
    others = []
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


@pytest.fixture
def script(root, load_script):
    return load_script(root / "datasets/download.py")


def test_div2k_is_unpacked_where_div2h5_looks_for_it(script, site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "DIV2K", (f"{site}/gone", f"{site}/DIV2K"))
    monkeypatch.setattr(script, "MD5", {"DIV2K_train_HR": hashlib.md5(div2k_archive("DIV2K_train_HR")).hexdigest()})
    whole = script.div2k
    monkeypatch.setitem(
        script.SETS, "div2k", lambda scales: replace(whole(scales), counts=dict.fromkeys(whole(scales).counts, 2))
    )
    command = ["div2k", "--scales", "2", "--root", str(tmp_path)]
    assert script.main(command) == 0
    found = sorted(str(p.relative_to(tmp_path / "DIV2K")) for p in tmp_path.rglob("*.png"))
    assert found == [
        f"DIV2K_{part}_{kind}" for part in ("train", "valid") for kind in ("HR/0001.png", "HR/0002.png", "LR_bicubic/X2/0001x2.png", "LR_bicubic/X2/0002x2.png")
    ]  # fmt: skip
    assert not list(tmp_path.rglob("*.zip"))
    asked = len(Server.asked)
    assert script.main(command) == 0
    assert len(Server.asked) == asked
    assert str(tmp_path / "DIV2K") in capsys.readouterr().out


def div2k_archive(name):
    return zipped({f"{name}/000{i}.png": PNG for i in (1, 2)} | {f"{name}/": b""})


def test_a_wrong_checksum_is_reported_with_manual_instructions(script, site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "DIV2K", (f"{site}/DIV2K",))
    with pytest.raises(HRNError, match="div2k"):
        script.main(["div2k", "--scales", "2", "--root", str(tmp_path)])
    printed = capsys.readouterr().err
    assert "md5:" in printed
    assert f"{site}/DIV2K/DIV2K_train_HR.zip" in printed
    assert f"{tmp_path}/DIV2K/DIV2K_train_LR_bicubic/X2/" in printed
    assert not list(tmp_path.rglob("*.png"))


def test_a_test_set_from_its_second_address(script, site, tmp_path, monkeypatch):
    source = script.test_set("Set5", 2, "Set5", "box")
    dead, other = (alternative[0] for alternative in source.alternatives)
    alternatives = ((replace(dead, addresses=(f"{site}/gone",)),), (replace(other, addresses=(f"{site}/set",)),))
    monkeypatch.setitem(script.SETS, "set5", lambda scales: replace(source, alternatives=alternatives))
    assert script.main(["set5", "--root", str(tmp_path)]) == 0
    assert sorted(p.name for p in (tmp_path / "Set5/HR").iterdir()) == ["img_001.png", "img_002.png"]


def test_an_incomplete_set_is_reported(script, site, tmp_path, monkeypatch, capsys):
    source = script.test_set("Set5", 5, "Set5", "box")
    alternatives = ((replace(source.alternatives[1][0], addresses=(f"{site}/set",)),),)
    monkeypatch.setitem(script.SETS, "set5", lambda scales: replace(source, alternatives=alternatives))
    with pytest.raises(HRNError, match="set5"):
        script.main(["set5", "--root", str(tmp_path)])
    assert "2 of 5" in capsys.readouterr().err


def test_two_sources_are_not_mixed(script, site, tmp_path, monkeypatch):
    source = script.test_set("Set5", 5, "Set5", "box")
    archive = replace(source.alternatives[1][0], addresses=(f"{site}/set",))  # two of five images
    other = replace(archive, addresses=(f"{site}/set",), place=lambda name: f"HR/other_{Path(name).name}")
    monkeypatch.setitem(script.SETS, "set5", lambda scales: replace(source, alternatives=((archive,), (other,))))
    with pytest.raises(HRNError):
        script.main(["set5", "--root", str(tmp_path)])
    assert sorted(p.name for p in (tmp_path / "Set5/HR").iterdir()) == ["img_001.png", "img_002.png"]


@pytest.mark.parametrize("good", [True, False])
def test_the_authors_weights_are_checked(script, site, tmp_path, monkeypatch, capsys, good):
    buffer = io.BytesIO()
    weights = build_model(preset("hrn_released", [4])).state_dict()
    torch.save(weights if good else {"conv.weight": torch.zeros(1)}, buffer)
    monkeypatch.setattr(Server, "weights", buffer.getvalue(), raising=False)
    monkeypatch.setitem(script.CHECKPOINTS, "authors", ("hrn_released/hrn_x4.pth", (f"{site}/authors",)))
    command = ["checkpoint", "authors", "--ckpt_dir", str(tmp_path)]
    if good:
        assert script.main(command) == 0
        assert "hrn_x4.pth: hrn_released, x4" in capsys.readouterr().out
    else:
        with pytest.raises(HRNError, match="authors"):
            script.main(command)
        assert "hrn_x4.pth" in capsys.readouterr().err
    assert (tmp_path / "hrn_released/hrn_x4.pth").exists() == good


@pytest.mark.parametrize("words", [["set6"], ["checkpoint"], ["checkpoint", "mine"]])
def test_unknown_names(script, words):
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2


def test_addresses_and_counts(script):
    for make in script.SETS.values():
        source = make([2, 3, 4])
        assert sum(source.counts.values()) in (3600, 5, 14, 100)
        for archive in (a for alternative in source.alternatives for a in alternative):
            assert all(
                address.startswith(("https://", "http://data.vision.ee.ethz.ch/")) for address in archive.addresses
            )
