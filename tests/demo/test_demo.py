"""The web demo's backend, page and upload limits, without a server."""

import asyncio
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hrn import demo, demo_backend
from hrn.data.image_writer import write_image
from hrn.data.images import read_rgb
from hrn.data.resize import imresize
from hrn.demo_backend import DemoBackend, DemoModel, default_model, load_models, make_room
from hrn.errors import HRNError
from hrn.inference import enlarger as enlarger_module
from hrn.inference.upscale import load_model, upscale

CPU = torch.device("cpu")


@pytest.fixture
def backend(tmp_path):
    (tmp_path / "results").mkdir()
    return DemoBackend(load_models(["hrn_light_x4"], CPU), tmp_path / "results")


@pytest.fixture
def upload(tmp_path, image):
    """A 64x48 PNG."""
    write_image(tmp_path / "a b.png", image)
    return tmp_path / "a b.png"


def test_result_equals_upscale(backend, image, upload):
    shares = []
    target, (bicubic, preview), summary = backend.enlarge(upload, "hrn_light", 2.5, shares.append)
    assert target.name == "a b_x2.5.png"
    assert np.array_equal(read_rgb(target), upscale(load_model("hrn_light_x4", device="cpu"), image, 2.5))
    assert bicubic.size == preview.size == (160, 120)
    assert np.array_equal(np.asarray(preview), read_rgb(target))
    assert summary.startswith("64x48 -> 160x120")
    assert str(target.parent) not in summary
    assert "on cpu" in summary
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_checkpoints_in_the_manifest_are_grouped_by_model():
    models = load_models(None, CPU)
    assert models["hrn_light"].enlargers.keys() >= {2, 3, 4}
    assert all(e.scale == scale for model in models.values() for scale, e in model.enlargers.items())


def test_unusable_checkpoints_of_the_manifest_are_skipped(monkeypatch, caplog):
    names = {"checkpoints": {"hrn_x8": {}, "hrn_light_x4": {}}}
    monkeypatch.setattr(demo_backend, "read_manifest", lambda **flags: names)
    assert load_models(None, CPU).keys() == {"hrn_light"}
    assert "hrn_x8" in caplog.text
    with pytest.raises(HRNError):
        load_models(["hrn_x8"], CPU)
    del names["checkpoints"]["hrn_light_x4"]
    with pytest.raises(HRNError, match="--ckpt_path"):
        load_models(None, CPU)


def test_checkpoints_of_one_name_are_kept_apart(root, tmp_path):
    included = root / "checkpoint/hrn_light/hrn_light_x4.pth"
    for name in ("mine_x4.pth", "mine_best.pth"):
        (tmp_path / name).write_bytes(included.read_bytes())
    files = [str(tmp_path / "mine_x4.pth"), str(tmp_path / "mine_best.pth"), "hrn_light_x4", "hrn_light_x2"]
    scales = {name: list(model.enlargers) for name, model in load_models(files, CPU).items()}
    assert scales == {"mine": [4], "mine_best": [4], "hrn_light": [4, 2]}
    with pytest.raises(HRNError, match="mine_x4"):
        load_models([files[0]] * 3, CPU)


def test_default_model_depends_on_the_device():
    models = {"hrn_base": DemoModel(2), "hrn_light": DemoModel(1), "hrn": DemoModel(3), "mine": DemoModel(1)}
    assert default_model(models, CPU) == "hrn_light"
    assert default_model(models, torch.device("cuda:0")) == "hrn"


def test_previews_are_cropped_to_the_centre(backend, rng, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_backend, "PREVIEW_SIDE", 50)
    lr = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", lr)
    target, (before, after), _ = backend.enlarge(tmp_path / "a.png", "hrn_light", 4)
    centre = (slice(15, 65), slice(35, 85))
    assert np.array_equal(np.asarray(after), read_rgb(target)[centre])
    assert np.array_equal(np.asarray(before), imresize(lr, scale=4)[centre])


def test_previews_share_their_transparency(backend, image, tmp_path):
    picture = Image.fromarray(image)
    picture.putalpha(Image.fromarray(image[..., 0]))
    picture.save(tmp_path / "a.png")
    _, pictures, _ = backend.enlarge(tmp_path / "a.png", "hrn_light", 2)
    assert [p.mode for p in pictures] == ["RGBA", "RGBA"]
    assert np.array_equal(*(np.asarray(p)[..., 3] for p in pictures))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_previews_share_their_colour_profile(backend, image, tmp_path, mode):
    Image.fromarray(image).convert(mode).save(tmp_path / "a.png", icc_profile=b"a profile")
    _, pictures, _ = backend.enlarge(tmp_path / "a.png", "hrn_light", 2)
    assert [(p.mode, p.info["icc_profile"]) for p in pictures] == [(mode, b"a profile")] * 2


def test_the_budget_follows_the_free_memory(backend, upload, monkeypatch):
    enlarger = backend.models["hrn_light"].enlargers[4]
    monkeypatch.setattr(enlarger_module, "free_memory", lambda device: 2**30)
    backend.enlarge(upload, "hrn_light", 4)
    assert enlarger.memory_budget == int(0.8 * 2**30)


def test_one_image_at_a_time(backend, upload, monkeypatch):
    """A second request passes the checks, then waits for the lock."""
    checked, results = threading.Event(), []
    check = demo_backend.check_pixels
    monkeypatch.setattr(demo_backend, "check_pixels", lambda *args: (check(*args), checked.set())[0])
    waiting = threading.Thread(target=lambda: results.append(backend.enlarge(upload, "hrn_light", 2)[0]))
    with backend.busy:
        waiting.start()
        assert checked.wait(30)
        assert not list(backend.folder.iterdir())
    waiting.join(30)
    assert results[0].is_file()


def test_stopping_aborts_the_enlargement(backend, upload):
    with pytest.raises(HRNError):
        backend.enlarge(upload, "hrn_light", 2, lambda share: backend.stopped.set())
    assert not list(backend.folder.iterdir())


def test_failed_enlargements_leave_no_files(backend, upload, monkeypatch):
    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr(demo_backend, "previews", fail)
    with pytest.raises(RuntimeError):
        backend.enlarge(upload, "hrn_light", 2)
    assert not list(backend.folder.iterdir())
    assert not backend.busy.locked()


@pytest.mark.parametrize(
    ("model", "factor", "value"), [("edsr", 4, "edsr"), ("hrn_light", 9, "9"), ("hrn_light", "4", "4")]
)
def test_invalid_choices(backend, upload, model, factor, value):
    with pytest.raises(HRNError, match=rf"\b{value}\b"):
        backend.enlarge(upload, model, factor)


def test_invalid_files(backend, tmp_path):
    with pytest.raises(HRNError, match="expired"):
        backend.enlarge(tmp_path / "none.png", "hrn_light", 4)
    with pytest.raises(HRNError, match=Path(__file__).name):
        backend.enlarge(Path(__file__), "hrn_light", 4)


def test_pixel_limits(backend, upload, monkeypatch):
    monkeypatch.setattr(demo_backend, "MAX_UPLOAD_PIXELS", 1000)
    with pytest.raises(HRNError, match="3,072"):
        backend.enlarge(upload, "hrn_light", 4)
    monkeypatch.undo()
    monkeypatch.setattr(demo_backend, "MAX_RESULT_PIXELS", 64 * 48 * 16.5)  # enough for x4, which also serves 2.5
    with pytest.raises(HRNError, match=r"at most 4\b"):  # 4.5 needs x4 twice
        backend.enlarge(upload, "hrn_light", 4.5)
    backend.enlarge(upload, "hrn_light", 2.5)
    assert len(list(backend.folder.rglob("*.*"))) == 1
    monkeypatch.setattr(demo_backend, "MAX_RESULT_PIXELS", 64 * 48 * 15)
    with pytest.raises(HRNError, match="too large for hrn_light"):
        backend.enlarge(upload, "hrn_light", 2.5)


def test_extremely_long_images_are_refused(backend, tmp_path):
    write_image(tmp_path / "long.png", np.zeros((1, 20_001, 3), np.uint8))
    with pytest.raises(HRNError, match="20,001"):
        backend.enlarge(tmp_path / "long.png", "hrn_light", 2)


def test_an_upload_may_expire_during_its_enlargement(backend, upload):
    _, (before, after), _ = backend.enlarge(
        upload, "hrn_light", 2, lambda share: share and upload.unlink(missing_ok=True)
    )
    assert before.size == after.size


def test_expired_files_are_deleted_before_an_enlargement(backend, upload):
    old = backend.folder / "earlier/a.png"
    old.parent.mkdir()
    old.touch()
    os.utime(old, (0, 0))
    target, *_ = backend.enlarge(upload, "hrn_light", 2)
    assert not old.exists()
    assert target.is_file()


def test_storage_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_backend, "MAX_STORED", 999)
    for name in ("old.png", "new.png"):
        (tmp_path / name).write_bytes(bytes(900))
    with pytest.raises(HRNError):
        make_room(tmp_path)
    os.utime(tmp_path / "old.png", (0, 0))
    with pytest.raises(HRNError):
        make_room(tmp_path, 101)
    for name in ("old", "new"):
        (tmp_path / f"{name}_folder").mkdir()
    os.utime(tmp_path / "old_folder", (0, 0))
    make_room(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.png", "new_folder"]
    monkeypatch.setattr(demo_backend, "MAX_FILES", 1)
    make_room(tmp_path)
    (tmp_path / "second.png").touch()
    with pytest.raises(HRNError):
        make_room(tmp_path)


@pytest.fixture
def gradio(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    return pytest.importorskip("gradio", reason="needs Gradio: pip install 'gradio>=6,<7'")


def test_upload_limits(gradio, tmp_path, monkeypatch):
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    async def count(request):
        return PlainTextResponse(str(len(await request.body())))

    limits = Middleware(demo.UploadLimitMiddleware, folder=tmp_path)
    client = TestClient(Starlette(routes=[Route("/{path}", count, methods=["POST"])], middleware=[limits]))

    def status(path, size, **more):
        return client.post(path, **{"files": {"files": ("a.png", bytes(size))}, **more}).status_code

    assert status("/upload", 1000) == 200
    assert status("/upload", demo.MAX_UPLOAD + 2**20) == 413
    assert status("/upload", 0, files=None, content=iter([b"a", b"b"])) == 413  # no Content-Length
    chunked = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    assert status("/upload", 0, files=None, content=iter([b"a", b"b"]), headers=chunked) == 413
    assert status("/elsewhere", 1000) == 413
    assert status("/elsewhere", 0, files=None, content=bytes(demo.MAX_BODY)) == 200
    assert status("/elsewhere", 0, files=None, content=bytes(demo.MAX_BODY + 1)) == 413
    types = [("Content-Type", "multipart/form-data; boundary=a"), ("Content-Type", "text/plain")]
    for headers in (types, types[::-1]):
        assert status("/elsewhere", 0, files=None, content=b"ab", headers=headers) == 413
    monkeypatch.setattr(demo_backend, "MAX_STORED", 3000)
    assert [status("/upload", 1000) for _ in range(4)] == [200] * 4  # one after another
    assert status("/upload", 3000) == 413
    (tmp_path / "full.png").write_bytes(bytes(1000))
    monkeypatch.setattr(demo_backend, "MAX_STORED", 999)
    assert status("/upload", 0) == 413
    assert status("/elsewhere", 0, files=None, json={}) == 200


def test_uploads_at_the_same_time_share_the_quota(gradio, tmp_path, monkeypatch):
    """While one upload is being received, a second one that does not fit beside it is rejected."""
    monkeypatch.setattr(demo_backend, "MAX_STORED", 3000)
    sent = []

    async def app(scope, receive, send):
        if not sent:
            sent.append(None)
            await limit(scope, receive, answer)

    async def answer(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    limit = demo.UploadLimitMiddleware(app, tmp_path)
    headers = [(b"content-length", b"2000"), (b"content-type", b"multipart/form-data; boundary=a")]
    scope = {"type": "http", "method": "POST", "path": "/upload", "headers": headers}
    for _ in range(2):  # the first one frees its share when it ends
        sent.clear()
        asyncio.run(limit(scope, receive, answer))
        assert sent[1]["status"] == 413


def test_urls_are_not_downloaded(gradio, backend, image_server, tmp_path, monkeypatch):
    """Not even from hosts that Gradio itself would download from."""
    from gradio import processing_utils

    url, requests = image_server
    monkeypatch.setattr(processing_utils, "PUBLIC_HOSTNAME_WHITELIST", ["127.0.0.1"])
    page = demo.make_page(backend, "hrn_light", [])
    (ours,) = (block for block in page.blocks.values() if isinstance(block, gradio.Image))
    with pytest.raises(ValueError, match="URL"):
        asyncio.run(ours.async_move_resource_to_block_cache(url))
    assert requests == []
    assert Path(asyncio.run(gradio.Image().async_move_resource_to_block_cache(url))).is_file()
    assert requests == ["/a.png"]


def test_gradio_deletes_expired_uploads_and_results(gradio, backend, upload):
    """`delete_cache` covers results that Gradio never received, such as those of cancelled requests."""
    from gradio.route_utils import delete_files_created_by_app

    page = demo.make_page(backend, "hrn_light", [])
    assert page.delete_cache == (demo.SWEEP_SECONDS, demo.KEEP_SECONDS)
    target, *_ = backend.enlarge(upload, "hrn_light", 2)
    page.upload_file_set.add(str(upload))
    delete_files_created_by_app(page, demo.KEEP_SECONDS)
    assert target.exists()
    assert upload.exists()
    delete_files_created_by_app(page, -1)
    assert not target.exists()
    assert not upload.exists()


@pytest.mark.parametrize("port", ["0", "65536"])
def test_invalid_port(port):
    with pytest.raises(HRNError, match="--port"):
        demo.main(["--port", port])
