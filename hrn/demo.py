"""A web page on this machine to try HRN on: drop an image, drag the slider, download the result.

    python -m hrn.demo                                   the shipped checkpoints, on http://127.0.0.1:7860
    python -m hrn.demo --ckpt_path my_x4.pth --port 8000

It listens on this machine only, unless --host says otherwise, and asks nothing of the network. One image is enlarged at a
time, others queue. What people upload and what is made of it is deleted after KEPT seconds, and when the page is stopped.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from hrn.checkpoint import load_checkpoint, load_network
from hrn.cli import fail_in_words
from hrn.data.benchmark import photographs
from hrn.data.images import EXTENSIONS, check_pixels, read_rgb, write_image
from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger
from hrn.inference.folder import Job, enlarge_file
from hrn.inference.size import Resizer, Size
from hrn.pretrained import find_checkpoint, read_manifest
from hrn.runtime import keep_memory, memory_from_here, pick_device, release_memory

MAX_UPLOAD = 32 * 2**20
"""Bytes of an upload."""
MAX_PIXELS, MAX_RESULT_PIXELS = 16_000_000, 128_000_000
"""Of an upload, and of what is made of it."""
LARGEST_FACTOR = 8
SHOWN_SIDE = 1600
"""Of the pictures in the slider; the download has all pixels."""
KEPT = 900
"""Seconds that files stay on disk."""
WAITING = 16
"""People who may queue."""


class Studio:
    """Enlarges uploads.

    Args:
        models: for each model, what enlarges by it, at different scales.
        folder: for results.
    """

    def __init__(self, models: dict[str, list[Enlarger]], folder: Path) -> None:
        self.models, self.folder = models, folder

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
            HRNError: not an image, too large, or a factor or model that is not offered.
        """
        if model not in self.models:
            raise HRNError(f"no such model: {model}; there are {', '.join(self.models)}")
        if not isinstance(factor, int | float) or not 1 <= factor <= LARGEST_FACTOR:
            raise HRNError(f"the factor must be from 1 to {LARGEST_FACTOR}, not {factor}")
        pixels = check_pixels(upload, MAX_PIXELS)
        if pixels * factor**2 > MAX_RESULT_PIXELS:
            most = (MAX_RESULT_PIXELS / pixels) ** 0.5
            raise HRNError(
                f"the result would have more than {MAX_RESULT_PIXELS:,} pixels; a factor of {most:.1f} is possible"
            )
        device = self.models[model][0].device
        start, peak, done = time.perf_counter(), memory_from_here(device), 0

        def count(some: int) -> None:
            nonlocal done
            done += some
            progress(min(1.0, done / pixels))

        target = Path(tempfile.mkdtemp(dir=self.folder)) / f"{upload.stem[:80]}_x{factor:g}.png"
        try:
            told = enlarge_file(Job(upload, target), Resizer(self.models[model], Size(factor=factor)), count)
            pictures = _shown(upload, target)
        finally:
            if device.type == "cpu":
                release_memory()
        seconds = time.perf_counter() - start
        what = told.removeprefix(f"{target}").strip()
        return target, pictures, f"{what}. {seconds:.1f} s, {peak():,.0f} MiB at the peak on {device}."


def _shown(source: Path, target: Path) -> tuple[Image.Image, Image.Image]:
    """The source enlarged bicubically and the target, both no larger than is shown."""
    result = Image.fromarray(read_rgb(target))
    factor = min(1.0, SHOWN_SIDE / max(result.size))
    size = (max(1, round(result.width * factor)), max(1, round(result.height * factor)))
    return tuple(im.resize(size, Image.Resampling.BICUBIC) for im in (Image.fromarray(read_rgb(source)), result))


def load_models(
    files: list[str] | None, device: torch.device, max_memory: int | None = None
) -> dict[str, list[Enlarger]]:
    """Enlargers of checkpoint files, or of all that are shipped, by model.

    Raises:
        HRNError: none are shipped, or a file cannot be loaded.
    """
    models: dict[str, list[Enlarger]] = defaultdict(list)
    for name in files or read_manifest()["checkpoints"]:
        checkpoint = load_checkpoint(find_checkpoint(name))
        enlargers = models[checkpoint.model_name]
        for scale in set(checkpoint.config.scales) - {e.scale for e in enlargers}:  # of two files, the first
            network = load_network(checkpoint, scale=scale).to(device)
            enlargers.append(Enlarger(network, scale, max_memory=max_memory))
    if not models:
        raise HRNError("no checkpoint is shipped; name one with --ckpt_path")
    return dict(models)


def make_page(studio: Studio, examples: list[Path]) -> Any:
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
            words = str(error).replace(f"{upload}", Path(upload).name)
            raise gr.Error(words, duration=None, print_exception=False) from None
        return pictures, gr.DownloadButton(value=target, interactive=True), told

    with gr.Blocks(title="HRN", analytics_enabled=False) as page:
        gr.Markdown(
            "# HRN\nEnlarge an image by the cross-domain heterogeneous residual network. It stays on the machine that runs "
            f"this page, for {KEPT // 60} minutes."
        )
        with gr.Row():
            with gr.Column(scale=2):
                image = gr.Image(label="Image", type="filepath", sources=["upload", "clipboard"], height=320)
                # handed over as a file that Gradio has not opened: hrn.data.images does that, within limits
                image.preprocess = lambda payload: payload and payload.path
                model = gr.Dropdown(list(studio.models), value=next(iter(studio.models)), label="Model")
                factor = gr.Slider(1.5, LARGEST_FACTOR, value=4, step=0.5, label="Factor")
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
        go.click(answer, [image, model, factor], [slider, download, told], concurrency_limit=1)
    return page.queue(max_size=WAITING)


def sweep(folder: Path, older_than: float) -> None:
    """Delete the files in a folder that are older than so many seconds, and folders left empty."""
    limit = time.time() - older_than
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):  # another thread was quicker, or the folder is not empty
            if path.stat().st_mtime < limit:
                path.rmdir() if path.is_dir() else path.unlink()


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
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    keep_memory()
    with tempfile.TemporaryDirectory(prefix="hrn_demo_") as folder:
        files = Path(folder) / "files"
        files.mkdir()
        os.environ["GRADIO_TEMP_DIR"] = str(files)  # which Gradio looks at when it is imported
        try:
            import gradio as gr
        except ImportError:
            raise HRNError("the page needs another package: pip install 'gradio>=6'") from None
        examples = write_examples(Path(folder) / "examples")
        gr.set_static_paths([Path(folder) / "examples"])
        page = make_page(Studio(load_models(args.ckpt_path, pick_device(args.device)), files), examples)
        try:
            _, url, _ = page.launch(
                server_name=args.host,
                server_port=args.port,
                max_file_size=MAX_UPLOAD,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                ssr_mode=False,
            )
        except OSError as error:
            raise HRNError(f"--port {args.port} of {args.host}: {error}") from None
        print(f"HRN is on {url} (Ctrl-C stops it)", flush=True)
        while not stop.wait(60):
            sweep(files, KEPT)
        page.close()
    return 0


if __name__ == "__main__":
    sys.exit(fail_in_words(main))
