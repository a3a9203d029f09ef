"""A web page on this machine to try HRN on: drop an image, drag the slider, download the result.

    python -m hrn.demo                                   the shipped checkpoints, on http://127.0.0.1:7860
    python -m hrn.demo --ckpt_path my_x4.pth --port 8000

It listens on this machine only, unless --host says otherwise, and fetches no addresses. One image is enlarged at a time,
others queue. What people upload and what is made of it is deleted after about KEPT seconds, and when the page is stopped;
while that takes more than MAX_STORED bytes, nothing more is taken.
"""

import argparse
import math
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hrn.checkpoint import load_checkpoint, load_network
from hrn.cli import run_cli
from hrn.data.benchmark import photographs
from hrn.data.images import EXTENSIONS, check_pixels, read_rgb, write_image
from hrn.data.resize import imresize
from hrn.errors import HRNError
from hrn.inference.batch import Job, enlarge_file
from hrn.inference.enlarger import Enlarger
from hrn.inference.resizer import Resizer, Size
from hrn.pretrained import find_checkpoint, read_manifest
from hrn.runtime import keep_memory, peak_memory_meter, pick_device, release_memory

MAX_UPLOAD = 32 * 2**20
"""Bytes of an upload."""
MAX_PIXELS, MAX_RESULT_PIXELS = 16_000_000, 64_000_000
"""Of an upload, and of what is made of it."""
LARGEST_FACTOR, FACTOR_STEP = 8, 0.5
SHOWN_SIDE = 1600
"""Of the pictures in the slider, which shows the middle of larger results; the download has all pixels."""
KEPT = 1800
"""Seconds that files stay on disk."""
MAX_STORED = 4 * 2**30
"""Bytes of all uploads and results."""
WAITING = 8
"""People who may queue: less than KEPT seconds in all."""


class DemoSession:
    """Enlarges uploads, one at a time.

    Args:
        models: for each model, what enlarges by it, at different scales.
        folder: for results, beside uploads; what is in it is deleted when it is old.
    """

    def __init__(self, models: dict[str, list[Enlarger]], folder: Path) -> None:
        self.models, self.folder = models, folder
        self.busy = threading.Lock()
        """Held while an image is enlarged."""
        self.stopped = threading.Event()
        """Once set, what is under way ends, and nothing else begins."""

    def enlarge(
        self, upload: Path, model: str, factor: float, progress: Callable[[float], object] = lambda share: None
    ) -> tuple[Path, tuple[Image.Image, Image.Image], str]:
        """Enlarge an image file.

        Args:
            upload: any file at all.
            model: one of the models.
            factor: of both sides.
            progress: told what share is done.

        Returns:
            The result's file, two pictures of the same size for the eye (bicubic and the model's), and what was done.

        Raises:
            HRNError: not an image, too large, a factor or model that is not offered, or no room for the result.
        """
        if model not in self.models:
            raise HRNError(f"no such model: {model}; there are {', '.join(self.models)}")
        if not isinstance(factor, int | float) or not 1 <= factor <= LARGEST_FACTOR:
            raise HRNError(f"the factor must be from 1 to {LARGEST_FACTOR}, not {factor}")
        check_room(self.folder)
        pixels = check_pixels(upload, MAX_PIXELS)
        if pixels * factor**2 > MAX_RESULT_PIXELS:
            most = math.floor((MAX_RESULT_PIXELS / pixels) ** 0.5 / FACTOR_STEP) * FACTOR_STEP
            raise HRNError(
                f"the result would have more than {MAX_RESULT_PIXELS:,} pixels; take a factor of {most:g} or less"
            )
        done = 0

        def count(some: int) -> None:
            nonlocal done
            done += some
            progress(min(1.0, done / pixels))
            if self.stopped.is_set():
                raise HRNError("the page is being stopped")

        with self.busy:
            count(0)
            device = self.models[model][0].device
            start, peak = time.perf_counter(), peak_memory_meter(device)
            target = Path(tempfile.mkdtemp(dir=self.folder)) / f"{upload.stem[:80]}_x{factor:g}.png"
            try:
                told = enlarge_file(Job(upload, target), Resizer(self.models[model], Size(factor=factor)), count)
                cost = f"{time.perf_counter() - start:.1f} s, {peak():,.0f} MiB more than before, on {device}"
                pictures = _shown(upload, target)
            finally:
                release_memory(device)
                sweep(self.folder, KEPT)  # under steady load nobody else finds a moment for it
        told = told.removeprefix(f"{target}").strip()
        with Image.open(target) as result:
            told += "; the slider shows its middle" if max(result.size) > SHOWN_SIDE else ""
        return target, pictures, f"{told}. {cost}."


def _shown(source: Path, target: Path) -> tuple[Image.Image, Image.Image]:
    """The source enlarged bicubically, and the target: their middle, pixel for pixel, where they are larger than is shown."""
    with Image.open(target) as result:
        w, h = result.size
        left, top = max(0, w - SHOWN_SIDE) // 2, max(0, h - SHOWN_SIDE) // 2
        right, bottom = min(w, left + SHOWN_SIDE), min(h, top + SHOWN_SIDE)
        after = result.crop((left, top, right, bottom))
    rows = imresize(read_rgb(source), size=(h, w), rows=(top, bottom))
    before = Image.fromarray(np.ascontiguousarray(rows[:, left:right]))
    if after.mode in ("LA", "RGBA"):
        before.putalpha(after.getchannel("A"))
    return before, after


def load_models(files: list[str] | None, device: torch.device) -> dict[str, list[Enlarger]]:
    """Enlargers of checkpoint files, or of all that are shipped, by model: a_x2.pth and a_x4.pth are one, called a.

    Raises:
        HRNError: none are shipped, or a file cannot be loaded.
    """
    models: dict[str, list[Enlarger]] = {}
    for name in files or read_manifest()["checkpoints"]:
        checkpoint = load_checkpoint(find_checkpoint(name))
        label = re.sub(r"(_x\d|x\d)+$", "", checkpoint.path.stem) or checkpoint.path.stem
        if set(checkpoint.config.scales) & {enlarger.scale for enlarger in models.get(label, ())}:
            label = checkpoint.path.stem
        if set(checkpoint.config.scales) & {enlarger.scale for enlarger in models.get(label, ())}:
            raise HRNError(f"two checkpoints are called {label}")
        networks = {scale: load_network(checkpoint, scale=scale).to(device) for scale in checkpoint.config.scales}
        models.setdefault(label, []).extend(Enlarger(network, scale) for scale, network in networks.items())
    if not models:
        raise HRNError("no checkpoint is shipped; name one with --ckpt_path")
    return models


def make_page(studio: DemoSession, examples: list[Path]) -> Any:
    """The page, a Gradio app that is not running yet."""
    import gradio as gr

    def answer(upload: str | None, model: str, factor: float, progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        if not upload:
            raise gr.Error("Choose an image first.", print_exception=False)
        try:
            target, pictures, told = studio.enlarge(
                Path(upload), model, factor, lambda s: progress(s, desc="enlarging")
            )
        except HRNError as error:
            words = re.sub(rf"{re.escape(str(studio.folder))}\S*/", "", str(error))  # people know the file's name only
            raise gr.Error(words, duration=None, print_exception=False) from None
        return pictures, gr.DownloadButton(value=target, interactive=True), told

    def clear() -> tuple[Any, ...]:
        return None, gr.DownloadButton(value=None, interactive=False), ""

    with gr.Blocks(title="HRN", analytics_enabled=False) as page:
        gr.Markdown(
            "# HRN\nEnlarge an image by the cross-domain heterogeneous residual network. It stays on the machine that runs "
            f"this page, for {KEPT // 60} minutes."
        )
        with gr.Row():
            with gr.Column(scale=2):
                image = gr.Image(label="Image", type="filepath", sources=["upload", "clipboard"], height=320)
                model = gr.Dropdown(list(studio.models), value=next(iter(studio.models)), label="Model")
                factor = gr.Slider(1.5, LARGEST_FACTOR, value=4, step=FACTOR_STEP, label="Factor")
                go = gr.Button("Enlarge", variant="primary")
                gr.Markdown(
                    f"{', '.join(e[1:].upper() for e in EXTENSIONS if e not in ('.jpeg', '.tiff'))}, up to "
                    f"{MAX_UPLOAD >> 20} MiB and {MAX_PIXELS / 1e6:.0f} megapixels."
                )
                gr.Examples([[str(path)] for path in examples], inputs=[image], cache_examples=False)
            with gr.Column(scale=3):
                slider = gr.ImageSlider(label="Bicubic, and the model", format="png", interactive=False, max_height=640)
                told = gr.Markdown()
                download = gr.DownloadButton("Download at full size", interactive=False)
        results = [slider, download, told]
        cleared = go.click(clear, None, results, queue=False, api_visibility="private")
        cleared.then(answer, [image, model, factor], results, concurrency_limit=1)
    _keep_out_of_files(image)
    return page.queue(max_size=WAITING, api_open=False)


def _keep_out_of_files(image: Any) -> None:
    """Let Gradio hand over an upload's path: neither opened, which hrn.data.images does within limits, nor fetched."""
    move = image.async_move_resource_to_block_cache

    async def move_files_only(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise ValueError("addresses are not fetched; upload the file")
        return await move(path)

    image.async_move_resource_to_block_cache = move_files_only
    image.preprocess = lambda payload: payload and payload.path


def sweep(folder: Path, older_than: float) -> None:
    """Delete the files in a folder that are older than so many seconds, and folders left empty."""
    limit = time.time() - older_than
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):  # another thread was quicker, or the folder is not empty
            if path.stat().st_mtime < limit:
                path.rmdir() if path.is_dir() else path.unlink()


def check_room(folder: Path) -> None:
    """Raises HRNError where the files in a folder take too much of the disk."""
    stored = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # just deleted
            stored += path.stat().st_size
    if stored > MAX_STORED:
        raise HRNError(f"there is no room for more images now; try again in {KEPT // 60} minutes")


class AccessControl:
    """Refuses uploads for which there is no room, or that Gradio would take without a limit; an ASGI application.

    Args:
        app: what answers all else.
        folder: of uploads and results.
    """

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, as ASGI has it."""
        from starlette.responses import PlainTextResponse  # a part of Gradio

        if scope["type"] == "http" and scope["method"] == "POST":
            try:
                self._check(scope["path"], dict(scope["headers"]))
            except HRNError as error:
                while (await receive()).get("more_body"):
                    pass  # a browser hears an answer only when it has sent all
                await PlainTextResponse(str(error), 413)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length", b"")
        if not length.isdigit():
            raise HRNError("an upload must tell its length")
        if int(length) > MAX_UPLOAD + 2**20:  # many files are not more than one
            raise HRNError(f"more than the maximum allowed size of {MAX_UPLOAD >> 20} MiB")
        if headers.get(b"content-type", b"").lower().startswith(b"multipart/"):
            if not path.endswith("/upload"):
                raise HRNError("files are not taken here")
            check_room(self.folder)


def write_examples(folder: Path) -> list[Path]:
    """Small photographs to click on."""
    folder.mkdir()
    paths = []
    for image in photographs(4).images:
        paths.append(folder / f"{image.name}.png")
        write_image(paths[-1], image.load(4).lr)
    return paths


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ckpt_path", nargs="+", metavar="FILE", help="checkpoints or their names (default: all that are shipped)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    add("--port", type=int, default=7860, help="(default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if not 0 < args.port < 2**16:
        raise HRNError(f"--port {args.port}: a port is a number from 1 to 65535")
    keep_memory()
    with tempfile.TemporaryDirectory(prefix="hrn_demo_", ignore_cleanup_errors=True) as folder:
        files = Path(folder) / "files"
        files.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(files)  # which Gradio looks at when it is imported
        try:
            import gradio as gr
        except ImportError:
            raise HRNError("the page needs another package: pip install 'gradio>=6,<7'") from None
        from starlette.middleware import Middleware

        studio = DemoSession(load_models(args.ckpt_path, pick_device(args.device)), files)
        examples = write_examples(Path(folder) / "examples")
        gr.set_static_paths([Path(folder) / "examples"])
        page = make_page(studio, examples)
        try:
            _, url, _ = page.launch(
                server_name=args.host,
                server_port=args.port,
                share=False,
                max_file_size=MAX_UPLOAD,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(AccessControl, folder=files)]},
                ssr_mode=False,
            )
        except OSError:
            raise HRNError(f"cannot listen on port {args.port} of {args.host}; another --port may be free") from None
        with _stopped_by_signals(studio.stopped):
            print(f"HRN is on {url} (Ctrl-C stops it)", flush=True)
            while not studio.stopped.wait(60):
                if studio.busy.acquire(blocking=False):  # else files are in use
                    sweep(files, KEPT)
                    studio.busy.release()
        page.close()
        studio.busy.acquire(timeout=60)  # what is under way has ended before its files go
    return 0


@contextmanager
def _stopped_by_signals(stopped: threading.Event) -> Iterator[None]:
    """Set the event at SIGINT or SIGTERM; the second one ends the process as ever."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    def restore() -> None:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

    def stop(*_: object) -> None:
        restore()
        stopped.set()

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def cli() -> int:
    """Entry point of the console script hrn-demo."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(cli())
