"""The web demo as a running server: bad uploads, a stop during an enlargement, and use from a browser."""

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrn.data.image_writer import write_image
from hrn.data.images import read_rgb

pytestmark = pytest.mark.slow


class Server:
    """`python -m hrn.demo` in a process of its own, whose temporary files go to `temporary`."""

    def __init__(self, root: Path, temporary: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hrn.demo", "--port", self.port, "--ckpt_path", "hrn_light_x4"],
            cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment(temporary),
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert self.url in line, line + self.process.stdout.read()

    def resident(self) -> int:
        """Resident memory in bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

    def stop(self) -> None:
        """Stop by SIGTERM; all files must be gone."""
        self.process.send_signal(signal.SIGTERM)
        output = self.process.communicate(timeout=90)[0]
        assert self.process.returncode == 0, output
        assert not list(self.temporary.iterdir())

    def enlarge(self, name: str, content: bytes) -> tuple[bool, str | None]:
        """Upload a file and request its enlargement as the page does. Returns success and the error message."""
        response = self.upload(name, content)
        return self.request(response.json()[0]) if response.status_code == 200 else (False, response.text)

    def upload(self, name: str, content: bytes):
        import httpx

        return httpx.post(f"{self.url}/gradio_api/upload", files={"files": (name, content)}, timeout=60)

    def request(self, path: str) -> tuple[bool, str | None]:
        """Request the enlargement of a path on the server."""
        import httpx

        functions = httpx.get(f"{self.url}/config").json()["dependencies"]
        index = next(i for i, function in enumerate(functions) if function["api_name"] == "enlarge")
        session = uuid.uuid4().hex
        body = {"data": [file_data(path), "hrn_light", 4.0], "fn_index": index, "session_hash": session}
        joined = httpx.post(f"{self.url}/gradio_api/queue/join", json=body, timeout=60)
        if joined.status_code != 200:
            return False, joined.text
        stream = httpx.stream("GET", f"{self.url}/gradio_api/queue/data?session_hash={session}", timeout=120)
        with stream as events:
            for line in events.iter_lines():
                event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if event.get("msg") == "process_completed":
                    return event["success"], event["output"].get("error")
        raise AssertionError("no response")


def environment(temporary: Path) -> dict[str, str]:
    """Environment variables for a CPU server whose temporary files, except for PyTorch's cache, go to `temporary`."""
    cache = str(temporary.with_name(f"{temporary.name}_inductor"))
    return {**os.environ, "TMPDIR": str(temporary), "TORCHINDUCTOR_CACHE_DIR": cache, "CUDA_VISIBLE_DEVICES": ""}


def file_data(path: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    server = Server(Path(__file__).resolve().parents[2], tmp_path_factory.mktemp("demo"))
    yield server
    server.stop()


def encode(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def png_of_size(width, height):
    """A PNG with a megabyte of zeros whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def bad_upload(number, rng):
    """(name, content) of one of nine kinds of invalid uploads."""
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    png, jpeg = encode(image), encode(image, "JPEG")
    return [
        ("cut.png", png[: rng.integers(100, len(png) - 60)]),
        ("cut.jpg", jpeg[: rng.integers(1, 150)]),
        ("nothing.png", b""),
        ("page.png", b"<html>" + rng.bytes(500)),
        ("script.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
        ("bomb.png", png_of_size(20_000, 15_000)),
        ("wide.png", png_of_size(30_000_000, 1)),
        ("deep.png", encode(rng.integers(0, 60_000, (32, 32), dtype=np.uint16))),
        ("float.tif", encode(rng.random((32, 32), dtype=np.float32), "TIFF")),
    ][number % 9]


def test_two_hundred_bad_uploads(server, rng):
    good = encode(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    assert server.enlarge("good.png", good) == (True, None)
    before, errors = server.resident(), Counter()
    for number in range(200):
        name, content = bad_upload(number, rng)
        success, error = server.enlarge(name, content)
        assert not success
        assert error.startswith(f"{name}: "), error  # an HRNError, without the server's paths
        errors[name] += 1
    assert len(errors) == 9
    assert server.resident() - before < 64 * 2**20
    assert server.enlarge("good.png", good) == (True, None)
    assert server.upload("large.png", bytes(40 * 2**20)).status_code == 413


def test_only_uploads_are_read(server, root, image_server):
    url, requests = image_server
    for path in (str(root / "Figs/comparison.png"), "/etc/passwd", url, "https://example.org/a.png"):
        success, error = server.request(path)
        assert not success
        assert "root:" not in str(error)
    assert requests == []


def test_queue_cannot_be_bypassed(server):
    import httpx

    body = {"data": [file_data("/none"), "hrn_light", 4]}
    for path in ("run/enlarge", "api/enlarge"):  # "call" uses the queue
        response = httpx.post(f"{server.url}/gradio_api/{path}", json=body, timeout=60)
        assert response.status_code in (401, 404), (path, response.text)


def test_stop_during_an_enlargement(root, rng, tmp_path):
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    import httpx

    server = Server(root, tmp_path)
    content = encode(rng.integers(0, 255, (900, 900, 3), dtype=np.uint8))
    path = server.upload("large.png", content).json()[0]

    def request():
        with suppress(httpx.HTTPError):  # the server goes away
            server.request(path)

    threading.Thread(target=request, daemon=True).start()
    files = Path(path).parents[1]
    deadline = time.monotonic() + 60
    while not [p for p in files.glob("*/*") if p.name != "large.png"]:  # the unfinished result
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.stop()


def test_taken_port(server, root):
    ended = subprocess.run(
        [sys.executable, "-m", "hrn.demo", "--port", server.port, "--ckpt_path", "hrn_light_x4"],
        cwd=root, capture_output=True, text=True, env=environment(server.temporary), check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert server.port in ended.stderr
    assert len(list(server.temporary.iterdir())) == 1  # of the running server


@pytest.fixture
def page(server, chromium):
    """The page in a browser. It must not send requests to other hosts."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(server.url)
    page.get_by_role("button", name="Enlarge").wait_for()
    yield page
    page.close()
    assert {url for url in requests if not url.startswith((server.url, "data:", "blob:"))} == set()


def test_example(page):
    page.locator(".gallery-item").nth(2).click()
    page.locator("[data-testid='image'] img").first.wait_for()
    page.get_by_role("button", name="Enlarge").click()
    page.get_by_text("112x75 -> 448x300").wait_for()


def enlarge(page, path):
    page.set_input_files("input[type=file]", str(path))
    page.locator("button[aria-label='Remove Image'], button[aria-label='Clear']").first.wait_for()
    page.get_by_role("button", name="Enlarge").click()


def test_from_upload_to_download(page, rng, tmp_path):
    write_image(tmp_path / "photo.png", rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    enlarge(page, tmp_path / "photo.png")
    page.get_by_text("80x60 -> 320x240").wait_for()
    handle = page.locator("[data-testid='image-slider'] .inner, .slider-wrap .inner, .inner").first
    before = handle.bounding_box()
    centre = (before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.move(*centre)
    page.mouse.down()
    page.mouse.move(centre[0] - 100, centre[1], steps=5)
    page.mouse.up()
    assert handle.bounding_box()["x"] == pytest.approx(before["x"] - 100, abs=15)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download at full size").click()
    assert download.value.suggested_filename == "photo_x4.png"
    download.value.save_as(tmp_path / "result.png")
    assert read_rgb(tmp_path / "result.png").shape == (240, 320, 3)


@pytest.mark.parametrize("number", [0, 5])
def test_errors_are_shown(page, rng, tmp_path, number):
    name, content = bad_upload(number, rng)
    (tmp_path / name).write_bytes(content)
    enlarge(page, tmp_path / name)
    page.get_by_text(f"{name}: ").wait_for()
