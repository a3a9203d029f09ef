"""Web demo: upload an image, compare the result with bicubic interpolation, download it.

    python -m hrn.demo                                   the included checkpoints, on http://127.0.0.1:7860
    python -m hrn.demo --ckpt_path my_x4.pth --port 8000

The server listens on 127.0.0.1 unless --host is given, and never fetches URLs. It enlarges one image at a time and queues
up to eight others. Uploads and results are deleted after about half an hour and when the server stops. Uploads are
rejected while the stored files exceed 4 GiB.
"""

import argparse
import os
import re
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from hrn.cli import interrupt_on_signals, run_cli
from hrn.data.benchmark import photographs
from hrn.data.image_writer import write_image
from hrn.data.images import EXTENSIONS
from hrn.demo_backend import (
    FACTOR_STEP,
    KEEP_SECONDS,
    MAX_FACTOR,
    MAX_UPLOAD_PIXELS,
    DemoBackend,
    default_model,
    load_models,
    make_room,
)
from hrn.errors import HRNError
from hrn.memory import keep_memory
from hrn.runtime import pick_device

MAX_UPLOAD = 32 * 2**20
"""Largest upload in bytes."""
SWEEP_SECONDS = 60
"""Interval at which Gradio looks for files to delete."""
MAX_BODY = 2**16
"""Size limit in bytes for requests without files. Parsing JSON can take a hundred times its size."""
MAX_QUEUE = 8
"""Largest number of waiting requests."""


class UploadLimitMiddleware:
    """ASGI middleware that rejects uploads which Gradio would accept without a limit.

    `max_file_size` limits each file, but a request may hold a thousand files, and other endpoints accept files as well.

    Args:
        app: the wrapped ASGI application.
        folder: the folder that holds uploads and results.
    """

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder
        self.expected = 0
        """Bytes of the uploads that are being received."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle an ASGI event. Rejected requests get the status 413."""
        from starlette.responses import PlainTextResponse  # a dependency of Gradio

        length = 0
        if scope["type"] == "http" and scope["method"] == "POST":
            try:
                length = self._check(scope["path"], scope["headers"])
            except HRNError as error:
                while (await receive()).get("more_body"):
                    pass  # browsers read the response only after they have sent the whole body
                await PlainTextResponse(str(error), 413)(scope, receive, send)
                return
        self.expected += length
        try:
            await self.app(scope, receive, send)
        finally:
            self.expected -= length

    def _check(self, path: str, headers: list[tuple[bytes, bytes]]) -> int:
        """Return the bytes that a POST request uploads. Raises HRNError if it is rejected."""
        lengths, types = ([v for k, v in headers if k == name] for name in (b"content-length", b"content-type"))
        chunked = any(k == b"transfer-encoding" for k, _ in headers)  # the server would then ignore the length
        if len(lengths) != 1 or not lengths[0].isdigit() or chunked:
            raise HRNError("the request needs one Content-Length header, and no Transfer-Encoding")
        if len(types) > 1:  # Gradio may use another one than this check
            raise HRNError("the request has several Content-Type headers")
        length, has_files = int(lengths[0]), any(t.lower().startswith(b"multipart/") for t in types)
        if has_files and not path.endswith("/upload"):
            raise HRNError("this endpoint does not accept files")
        if not has_files and length > MAX_BODY:
            raise HRNError(f"the request exceeds the maximum allowed size of {MAX_BODY >> 10} KiB")
        if length > MAX_UPLOAD + 2**20:
            raise HRNError(f"the upload exceeds the maximum allowed size of {MAX_UPLOAD >> 20} MiB")
        if not has_files:
            return 0
        make_room(self.folder, self.expected + length)
        return length


def make_page(backend: DemoBackend, model: str, examples: list[Path]) -> Any:
    """Build the page as a `gradio.Blocks`, without launching it.

    Args:
        backend: enlarges the uploads.
        model: the name of the model that is selected first.
        examples: image files to choose from.
    """
    import gradio as gr

    def enlarge(upload: str | None, model: str, factor: float, progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        if not upload:
            raise gr.Error("Choose an image first.", print_exception=False)
        try:
            target, pictures, summary = backend.enlarge(
                Path(upload), model, factor, lambda share: progress(share, desc="enlarging")
            )
        except HRNError as error:
            message = re.sub(rf"{re.escape(str(backend.folder))}\S*[\\/]", "", str(error))  # hide the server's paths
            raise gr.Error(message, duration=None, print_exception=False) from None
        return pictures, gr.DownloadButton(value=target, interactive=True), summary

    def clear() -> tuple[Any, ...]:
        return None, gr.DownloadButton(value=None, interactive=False), ""

    kinds = ", ".join(e[1:].upper() for e in EXTENSIONS if e not in (".jpeg", ".tiff"))
    with gr.Blocks(title="HRN", analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEEP_SECONDS)) as page:
        gr.Markdown(
            "# HRN\nEnlarge an image with the cross-domain heterogeneous residual network. Images stay on this server "
            f"and are deleted after {KEEP_SECONDS // 60} minutes."
        )
        with gr.Row():
            with gr.Column(scale=2):
                image = gr.Image(label="Image", type="filepath", sources=["upload", "clipboard"], height=320)
                choice = gr.Dropdown(list(backend.models), value=model, label="Model")
                factor = gr.Slider(1.5, MAX_FACTOR, value=4, step=FACTOR_STEP, label="Factor")
                button = gr.Button("Enlarge", variant="primary")
                gr.Markdown(f"{kinds}, up to {MAX_UPLOAD >> 20} MiB and {MAX_UPLOAD_PIXELS / 1e6:.0f} megapixels.")
                gr.Examples([[str(path)] for path in examples], inputs=[image], cache_examples=False)
            with gr.Column(scale=3):
                slider = gr.ImageSlider(label="Bicubic and HRN", format="png", interactive=False, max_height=640)
                summary = gr.Markdown()
                download = gr.DownloadButton("Download at full size", interactive=False)
        outputs = [slider, download, summary]
        cleared = button.click(clear, None, outputs, queue=False, api_visibility="private")
        cleared.then(enlarge, [image, choice, factor], outputs, concurrency_limit=1)
    accept_uploads_only(image)
    page.temp_file_sets.append(backend.results)  # `delete_cache` then covers results of cancelled requests
    return page.queue(max_size=MAX_QUEUE, api_open=False)


def accept_uploads_only(image: Any) -> None:
    """Make a `gradio.Image` pass the path of an upload to its callbacks. By default it also downloads URLs and decodes images."""
    move = image.async_move_resource_to_block_cache

    async def move_file(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise ValueError("URLs are not downloaded; upload the file")
        return await move(path)

    image.async_move_resource_to_block_cache = move_file
    image.preprocess = lambda payload: payload and payload.path


def write_examples(folder: Path) -> list[Path]:
    """Write small photographs into a new folder."""
    folder.mkdir()
    paths = []
    for image in photographs(4).images:
        paths.append(folder / f"{image.name}.png")
        write_image(paths[-1], image.load(4).lr)
    return paths


def serve(args: argparse.Namespace, folder: Path) -> None:
    """Run the server until SIGINT, SIGTERM or SIGHUP, with all its files in `folder`. Raises HRNError."""
    files, examples = folder / "files", folder / "examples"
    files.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(files)  # Gradio reads it when it is imported
    try:
        import gradio as gr
    except ImportError as error:
        raise HRNError(f"the demo needs Gradio ({error}): pip install 'gradio>=6,<7'") from None
    from starlette.middleware import Middleware

    device = pick_device(args.device)
    backend = DemoBackend(load_models(args.ckpt_path, device), files)
    page = make_page(backend, default_model(backend.models, device), write_examples(examples))
    gr.set_static_paths([examples])
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
            app_kwargs={"middleware": [Middleware(UploadLimitMiddleware, folder=files)]},
            ssr_mode=False,
        )
    except OSError:
        raise HRNError(f"cannot listen on port {args.port} of {args.host}; choose another --port") from None
    with suppress(KeyboardInterrupt):
        print(f"HRN is running on {url} (Ctrl-C to stop)", flush=True)
        threading.Event().wait()
    backend.stopped.set()
    page.close()
    backend.busy.acquire(timeout=60)  # wait until the current enlargement is aborted before its files are deleted


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ckpt_path", nargs="+", metavar="FILE", help="checkpoint files or names (default: all in the manifest)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)")
    add("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if not 0 < args.port < 2**16:
        raise HRNError(f"--port {args.port} must be between 1 and 65535")
    keep_memory()
    interrupt_on_signals()
    with tempfile.TemporaryDirectory(prefix="hrn_demo_", ignore_cleanup_errors=True) as folder:
        serve(args, Path(folder))
    return 0


def cli() -> int:
    """Entry point of the console script `hrn-demo`."""
    return run_cli(main)


if __name__ == "__main__":
    sys.exit(cli())
