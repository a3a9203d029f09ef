"""A local web server that can fail in several ways, and the archives that it serves."""

import hashlib
import io
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

DATA = bytes(range(256)) * 4000
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()
PNG = b"not decoded"


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data)  # with a fixed date, so that its MD5 sum is always the same


def zipped(members):
    buffer = io.BytesIO()
    make_zip(buffer, members)
    return buffer.getvalue()


class Server(BaseHTTPRequestHandler):
    """The path selects the method that answers. The class records the requests."""

    asked: ClassVar[list[tuple[str, str | None]]] = []
    release: ClassVar = threading.Event()
    """Ends the answers of :meth:`slow`."""

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

    def oddlength(self, wanted, count):
        self.send(DATA, length="²")

    def endless(self, wanted, count):
        """A response of unknown length."""
        self.send_response(200)
        self.send_header("Content-Type", "application/zip")
        self.end_headers()
        self.wfile.write(DATA)

    def slow(self, wanted, count):
        self.send(DATA[:10], length=len(DATA))
        self.wfile.flush()
        self.release.wait(30)

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
