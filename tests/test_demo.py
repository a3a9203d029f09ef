"""The page to try HRN on: what it makes, what it refuses, and how it behaves in a browser."""

import asyncio
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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from hrn import demo
from hrn.data.images import read_rgb, write_image
from hrn.data.resize import imresize
from hrn.demo import DemoSession, load_models, sweep
from hrn.errors import HRNError
from hrn.inference.upscale import load_model, upscale


@pytest.fixture
def studio(tmp_path):
    (tmp_path / "results").mkdir()
    return DemoSession(load_models(["hrn_light_x4"], torch.device("cpu")), tmp_path / "results")


def test_a_result_is_what_upscale_gives(studio, image, tmp_path):
    write_image(tmp_path / "a b.png", image)
    shares = []
    target, (low, high), told = studio.enlarge(tmp_path / "a b.png", "hrn_light", 2.5, shares.append)
    assert target.name == "a b_x2.5.png"
    assert np.array_equal(read_rgb(target), upscale(load_model("hrn_light_x4", device="cpu"), image, 2.5))
    assert low.size == high.size == (160, 120)
    assert np.array_equal(np.asarray(high), read_rgb(target))
    assert told.startswith("64x48 -> 160x120 (x4, then bicubic down). ")
    assert "MiB more than before, on cpu" in told
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_all_scales_of_a_model_serve_together():
    models = load_models(None, torch.device("cpu"))
    assert {2, 3, 4} <= {enlarger.scale for enlarger in models["hrn_light"]}


def test_no_file_is_dropped(root, tmp_path):
    shipped = root / "checkpoint/hrn_light/hrn_light_x4.pth"
    for name in ("mine_x4.pth", "mine_best.pth"):
        (tmp_path / name).write_bytes(shipped.read_bytes())
    files = [str(tmp_path / "mine_x4.pth"), str(tmp_path / "mine_best.pth"), "hrn_light_x4", "hrn_light_x2"]
    models = load_models(files, torch.device("cpu"))
    scales = {name: [e.scale for e in enlargers] for name, enlargers in models.items()}
    assert scales == {"mine": [4], "mine_best": [4], "hrn_light": [4, 2]}
    with pytest.raises(HRNError, match="two checkpoints are called mine_x4"):
        load_models([files[0]] * 3, torch.device("cpu"))


def test_of_large_results_the_middle_is_shown_pixel_for_pixel(studio, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SHOWN_SIDE", 50)
    lr = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", lr)
    target, (before, after), told = studio.enlarge(tmp_path / "a.png", "hrn_light", 4)
    assert "the slider shows its middle" in told
    middle = (slice(15, 65), slice(35, 85))
    assert np.array_equal(np.asarray(after), read_rgb(target)[middle])
    assert np.array_equal(np.asarray(before), imresize(lr, scale=4)[middle])


def test_transparency_is_shown_on_both_sides(studio, image, tmp_path):
    picture = Image.fromarray(image)
    picture.putalpha(Image.fromarray(image[..., 0]))
    picture.save(tmp_path / "a.png")
    _, pictures, _ = studio.enlarge(tmp_path / "a.png", "hrn_light", 2)
    assert [p.mode for p in pictures] == ["RGBA", "RGBA"]
    assert np.array_equal(*(np.asarray(p)[..., 3] for p in pictures))


def test_one_image_at_a_time(studio, image, tmp_path):
    write_image(tmp_path / "a.png", image)
    results: list[Path] = []
    waiting = threading.Thread(target=lambda: results.append(studio.enlarge(tmp_path / "a.png", "hrn_light", 2)[0]))
    with studio.busy:
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        assert not list(studio.folder.iterdir())
    waiting.join(30)
    assert results[0].is_file()


def test_stopping_ends_what_is_under_way(studio, image, tmp_path):
    write_image(tmp_path / "a.png", image)
    with pytest.raises(HRNError, match="being stopped"):
        studio.enlarge(tmp_path / "a.png", "hrn_light", 2, lambda share: studio.stopped.set())
    assert not list(studio.folder.rglob("*.png"))


def test_what_is_refused(studio, image, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, image)
    for words, args in {
        "no such model: edsr; there are hrn_light": (path, "edsr", 4),
        "the factor must be from 1 to 8, not 9": (path, "hrn_light", 9),
        "the factor must be from 1 to 8, not 4": (path, "hrn_light", "4"),
        "no such image file": (tmp_path / "none.png", "hrn_light", 4),
        "not an image": (Path(__file__), "hrn_light", 4),
    }.items():
        with pytest.raises(HRNError, match=words):
            studio.enlarge(*args)
    monkeypatch.setattr(demo, "MAX_PIXELS", 1000)
    with pytest.raises(HRNError, match=r"3,072 pixels, more than the limit of 1,000"):
        studio.enlarge(path, "hrn_light", 4)
    monkeypatch.undo()
    monkeypatch.setattr(demo, "MAX_RESULT_PIXELS", 64 * 48 * 2.9**2)
    with pytest.raises(HRNError, match=r"take a factor of 2\.5 or less"):
        studio.enlarge(path, "hrn_light", 4)
    studio.enlarge(path, "hrn_light", 2.5)
    assert len(list(studio.folder.rglob("*.*"))) == 1


def test_old_files_are_swept(tmp_path):
    for name in ("old/a.png", "young/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "new").mkdir()
    os.utime(tmp_path / "old/a.png", (0, 0))
    sweep(tmp_path, 60)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["b.png", "new", "old", "young"]
    os.utime(tmp_path / "old", (0, 0))
    sweep(tmp_path, 60)
    assert not (tmp_path / "old").exists()


def test_old_files_are_swept_by_each_enlargement(studio, image, tmp_path):
    """Also under a load under which it is never seen at rest."""
    old = studio.folder / "earlier/a.png"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))
    write_image(studio.folder / "b.png", image)
    target, *_ = studio.enlarge(studio.folder / "b.png", "hrn_light", 2)
    assert not old.exists()
    assert target.is_file()
    os.utime(studio.folder / "b.png", (0, 0))
    studio.enlarge(studio.folder / "b.png", "hrn_light", 2)  # an old upload is enlarged first
    assert not (studio.folder / "b.png").exists()


def test_the_disk_is_not_filled(studio, image, tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", image)
    target, *_ = studio.enlarge(tmp_path / "a.png", "hrn_light", 2)
    monkeypatch.setattr(demo, "MAX_STORED", 100)
    with pytest.raises(HRNError, match="no room for more images now; try again in 30 minutes"):
        studio.enlarge(tmp_path / "a.png", "hrn_light", 2)
    target.unlink()
    monkeypatch.setattr(demo, "MAX_STORED", 10_000)
    studio.enlarge(tmp_path / "a.png", "hrn_light", 2)


def test_uploads_wait_for_room(tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    async def take(request):
        return PlainTextResponse(str(len(await request.body())))

    door = Middleware(demo.AccessControl, folder=tmp_path)
    client = TestClient(Starlette(routes=[Route("/{path}", take, methods=["POST"])], middleware=[door]))

    def post(path, size, **more):
        answer = client.post(path, **{"files": {"files": ("a.png", bytes(size))}, **more})
        return answer.text if answer.status_code == 413 else answer.status_code

    assert post("/upload", 1000) == 200
    assert post("/upload", demo.MAX_UPLOAD + 2**20) == "more than the maximum allowed size of 32 MiB"
    assert post("/upload", 0, files=None, content=iter([b"a", b"b"])) == "an upload must tell its length"
    assert post("/elsewhere", 1000) == "files are not taken here"
    (tmp_path / "full.png").write_bytes(bytes(1000))
    monkeypatch.setattr(demo, "MAX_STORED", 999)
    assert post("/upload", 1000) == "there is no room for more images now; try again in 30 minutes"
    assert post("/elsewhere", 0, files=None, json={}) == 200


class Neighbour(BaseHTTPRequestHandler):
    """A server of a good image, which the page could fetch."""

    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(encoded(np.zeros((8, 8, 3), np.uint8)))

    def log_message(self, *args):
        pass


@pytest.fixture
def neighbour():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Neighbour)
    Neighbour.asked.clear()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.png"
    server.shutdown()
    server.server_close()


def test_addresses_are_not_fetched(studio, neighbour, tmp_path, monkeypatch):
    """Not even where Gradio itself would fetch them."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    gr = pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    from gradio import processing_utils

    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1"])
    page = demo.make_page(studio, [])
    (ours,) = (block for block in page.blocks.values() if isinstance(block, gr.Image))
    with pytest.raises(ValueError, match="addresses are not fetched; upload the file"):
        asyncio.run(ours.async_move_resource_to_block_cache(neighbour))
    assert Neighbour.asked == []
    assert Path(asyncio.run(gr.Image().async_move_resource_to_block_cache(neighbour))).is_file()
    assert Neighbour.asked == ["/a.png"]


class Server:
    """The page in a process of its own."""

    def __init__(self, root: Path, temporary: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        command = [
            sys.executable,
            "-m",
            "hrn.demo",
            "--port",
            self.url.rpartition(":")[2],
            "--ckpt_path",
            "hrn_light_x4",
        ]
        self.temporary = temporary
        self.process = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        said = self.process.stdout.readline()
        assert f"HRN is on {self.url}" in said, said + self.process.stdout.read()

    def resident(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=90)[0]
        return self.process.returncode, said

    def send(self, name: str, content: bytes, factor: float = 4.0) -> tuple[bool, str | None]:
        """Upload a file and ask for its enlargement, as the page does; whether it went well, and the error."""
        uploaded = self.upload(name, content)
        return self.ask(uploaded.json()[0], factor) if uploaded.status_code == 200 else (False, uploaded.text)

    def upload(self, name: str, content: bytes):
        import httpx

        return httpx.post(f"{self.url}/gradio_api/upload", files={"files": (name, content)}, timeout=60)

    def ask(self, path: str, factor: float = 4.0) -> tuple[bool, str | None]:
        """Ask for the enlargement of a path that is said to be uploaded."""
        import httpx

        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        session = uuid.uuid4().hex
        asked = {"data": [file, "hrn_light", factor], "fn_index": self.function, "session_hash": session}
        joined = httpx.post(f"{self.url}/gradio_api/queue/join", json=asked, timeout=60)
        if joined.status_code != 200:
            return False, joined.text
        stream = httpx.stream("GET", f"{self.url}/gradio_api/queue/data?session_hash={session}", timeout=120)
        with stream as events:
            for line in events.iter_lines():
                event = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
                if event.get("msg") == "process_completed":
                    return event["success"], event["output"].get("error")
        raise AssertionError("no answer")

    @property
    def function(self) -> int:
        import httpx

        functions = httpx.get(f"{self.url}/config").json()["dependencies"]
        return next(i for i, function in enumerate(functions) if function["api_name"] == "answer")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    server = Server(Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("demo"))
    yield server
    code, said = server.stop()
    assert code == 0, said
    assert not list(server.temporary.iterdir())  # nothing is left


def encoded(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def png_of_size(width, height):
    """A PNG of a megabyte or so of zeros that claims to be larger."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(10**6))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def bad_upload(number, rng):
    """(name, content, words of the answer) of an upload that is wrong in one of nine ways."""
    image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    png, jpeg = encoded(image), encoded(image, "JPEG")
    return [
        ("cut.png", png[: rng.integers(100, len(png) - 60)], "cut.png: damaged or truncated image"),
        ("cut.jpg", jpeg[: rng.integers(1, 150)], "cut.jpg: not an image"),
        ("nothing.png", b"", "not an image"),
        ("page.png", b"<html>" + rng.bytes(500), "not an image"),
        ("script.svg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not an image"),
        ("bomb.png", png_of_size(20_000, 15_000), "has 300,000,000 pixels, more than the limit of 16,000,000"),
        ("wide.png", png_of_size(30_000_000, 1), "has 30,000,000 pixels, more than the limit of 16,000,000"),
        ("deep.png", encoded(rng.integers(0, 60_000, (32, 32), dtype=np.uint16)), "more than 8 bits a channel"),
        ("float.tif", encoded(rng.random((32, 32), dtype=np.float32), "TIFF"), "more than 8 bits a channel"),
    ][number % 9]


def test_two_hundred_bad_uploads(server, rng):
    good = encoded(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
    assert server.send("good.png", good) == (True, None)
    before, answers = server.resident(), Counter()
    for number in range(200):
        name, content, words = bad_upload(number, rng)
        went_well, error = server.send(name, content)
        assert not went_well
        assert words in error, (name, error)
        assert str(server.temporary) not in error
        answers[name] += 1
    assert len(answers) == 9
    assert server.resident() - before < 64 * 2**20
    assert server.send("good.png", good) == (True, None)
    assert "maximum allowed size" in server.send("large.png", bytes(40 * 2**20))[1]


def test_what_was_not_uploaded_is_not_read(server, root, neighbour):
    for path in (str(root / "Figs/comparison.png"), "/etc/passwd", neighbour, "https://example.org/a.png"):
        went_well, error = server.ask(path)
        assert not went_well
        assert "root:" not in str(error)
    assert Neighbour.asked == []


def test_the_queue_cannot_be_gone_round(server):
    import httpx

    file = {"path": "/none", "meta": {"_type": "gradio.FileData"}}
    for way in ("run/answer", "api/answer"):  # "call" queues
        got = httpx.post(f"{server.url}/gradio_api/{way}", json={"data": [file, "hrn_light", 4]}, timeout=60)
        assert got.status_code in (401, 404), (way, got.text)


def test_stopped_during_an_enlargement(root, rng, tmp_path):
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")
    import httpx

    server = Server(root, tmp_path)
    content = encoded(rng.integers(0, 255, (900, 900, 3), dtype=np.uint8))
    path = server.upload("large.png", content).json()[0]

    def ask():
        with suppress(httpx.HTTPError):  # the server goes away
            server.ask(path)

    threading.Thread(target=ask, daemon=True).start()
    results = Path(path).parents[1]  # of the uploads, beside which results are written
    deadline = time.monotonic() + 60
    while not list(results.glob("tmp*/*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    code, said = server.stop()
    assert code == 0, said
    assert not list(tmp_path.iterdir())


@pytest.fixture
def view(server, chromium):
    """The page in a browser, which asks nothing of others."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server.url)
    page.get_by_role("button", name="Enlarge").wait_for()
    yield page
    page.close()
    assert {url for url in asked if not url.startswith((server.url, "data:", "blob:"))} == set()


def test_an_example_is_clicked_on(view):
    view.locator(".gallery-item").nth(2).click()
    view.locator("[data-testid='image'] img").first.wait_for()
    view.get_by_role("button", name="Enlarge").click()
    view.get_by_text("112x75 -> 448x300 (x4)").wait_for()


def upload(view, path):
    view.set_input_files("input[type=file]", str(path))
    view.locator("button[aria-label='Remove Image'], button[aria-label='Clear']").first.wait_for()
    view.get_by_role("button", name="Enlarge").click()


def test_an_image_from_drop_to_download(view, rng, tmp_path):
    write_image(tmp_path / "photo.png", rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    upload(view, tmp_path / "photo.png")
    view.get_by_text("80x60 -> 320x240 (x4)").wait_for()
    handle = view.locator("[data-testid='image-slider'] .inner, .slider-wrap .inner, .inner").first
    before = handle.bounding_box()
    middle = (before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    view.mouse.move(*middle)
    view.mouse.down()
    view.mouse.move(middle[0] - 100, middle[1], steps=5)
    view.mouse.up()
    assert handle.bounding_box()["x"] == pytest.approx(before["x"] - 100, abs=15)
    with view.expect_download() as download:
        view.get_by_role("button", name="Download at full size").click()
    assert download.value.suggested_filename == "photo_x4.png"
    download.value.save_as(tmp_path / "result.png")
    assert read_rgb(tmp_path / "result.png").shape == (240, 320, 3)


def test_a_broken_file_and_a_bomb_are_answered_in_words(view, rng, tmp_path):
    for number, words in ((0, "cut.png: damaged or truncated image"), (5, "pixels, more than the limit of 16,000,000")):
        name, content, _ = bad_upload(number, rng)
        (tmp_path / name).write_bytes(content)
        upload(view, tmp_path / name)
        view.get_by_text(words).wait_for()
        view.reload()
        view.get_by_role("button", name="Enlarge").wait_for()


def test_a_taken_port_is_said(server, root):
    port = server.url.rpartition(":")[2]
    ended = subprocess.run(
        [sys.executable, "-m", "hrn.demo", "--port", port, "--ckpt_path", "hrn_light_x4"],
        cwd=root, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(server.temporary)}, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert f"error: cannot listen on port {port} of 127.0.0.1" in ended.stderr
    time.sleep(0.1)
    assert len(list(server.temporary.iterdir())) == 1  # the running server's
