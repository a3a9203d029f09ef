"""Export a checkpoint for other programs: ONNX, safetensors, or a bare state dict for spandrel.

    python -m hrn.inference.export --ckpt_path hrn_light_x4                             hrn_light_x4.onnx
    python -m hrn.inference.export --ckpt_path hrn_light_x4 --out hrn_light.safetensors
    python -m hrn.inference.export --ckpt_path hrn_light_x4 --format spandrel           hrn_light_x4_spandrel.pth

The ONNX graph maps `lr` (batch, 3, height, width), float32 RGB in [0, 1], of any size, to `sr` (batch, 3, scale*height,
scale*width), which is not clipped. It computes the DCT as a matrix product. Exporting needs `pip install ".[export]"`, or
onnx, onnxscript, onnxruntime and safetensors. spandrel loads the bare state dict after `hrn.inference.spandrel.register()`.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hrn.checkpoint import FORMAT, Checkpoint, load_checkpoint, load_network
from hrn.cli import path_argument, run_cli
from hrn.errors import HRNError
from hrn.files import atomic_write, check_not_input
from hrn.inference.bare import export_state_dict, fields_not_in_shapes
from hrn.inference.local import FixedScale, make_local
from hrn.inference.mode import MODES, Mode, default_mode
from hrn.memory import keep_memory
from hrn.model import HRNConfig, config_to_dict
from hrn.pretrained import find_checkpoint
from hrn.runtime import warm_up_kernels

OPSET = 18
MAX_DIFFERENCE = 0.5 / 255
"""Largest accepted difference between ONNX Runtime and PyTorch on a test image: half a grey level."""
SUFFIXES = {"onnx": ".onnx", "safetensors": ".safetensors", "spandrel": "_spandrel.pth"}
"""End of the default file name of each format."""


def export_onnx(path: str | Path, checkpoint: Checkpoint, scale: int, mode: Mode | None = None) -> float:
    """Write the network of a checkpoint at one scale as ONNX, and compare it with PyTorch in ONNX Runtime.

    Args:
        path: the file to write. It appears only after the comparison has passed.
        checkpoint: a checkpoint from :func:`hrn.checkpoint.load_checkpoint`.
        scale: one of its scales.
        mode: `local` or `full`; :func:`hrn.inference.mode.default_mode` by default.

    Returns:
        The largest difference to PyTorch on a test image with values in [0, 1].

    Raises:
        HRNError: a package is missing, the mode is `windows`, the network has an FFT, or ONNX Runtime and PyTorch differ.
    """
    onnxruntime = _needed("onnxruntime")
    _needed("onnxscript")
    network = load_network(checkpoint, scale=scale).to(memory_format=torch.contiguous_format)
    mode = mode or default_mode(checkpoint.config)
    if isinstance(checkpoint.config, HRNConfig) and checkpoint.config.frequency == "fft":
        raise HRNError(f"{checkpoint.path}: ONNX does not support the complex numbers of frequency='fft'")
    if mode.name == "windows":
        raise HRNError("mode windows cannot be exported; use mode full or local")
    if mode.name == "local":
        network = make_local(network, mode.window)
    model = FixedScale(network, scale).eval()
    test_image = torch.rand(2, 3, 60, 101, generator=torch.Generator().manual_seed(0))
    with atomic_write(path) as beside:
        program = _onnx_program(model, test_image)
        program.model.metadata_props.update(
            {"scale": str(scale), "mode": str(mode), "checkpoint": checkpoint.path.name}
        )
        program.save(beside)
        session = onnxruntime.InferenceSession(beside, providers=["CPUExecutionProvider"])
        differences = []
        for lr in (test_image, test_image[:1, :, :31, :20]):
            with torch.inference_mode():
                expected = model(lr).numpy()
            differences.append(np.abs(session.run(None, {"lr": lr.numpy()})[0] - expected).max())
        difference = float(np.max(differences))  # NaN if one is; max() could miss it
        if not difference <= MAX_DIFFERENCE:
            raise HRNError(
                f"{path}: not written, because ONNX Runtime and PyTorch differ by {difference * 255:.2f} grey levels"
            )
    return difference


def _onnx_program(model: nn.Module, lr: Tensor) -> Any:
    """Trace a model of one input with dynamic batch, height and width."""
    shape = {dim: torch.export.Dim.DYNAMIC for dim in (0, 2, 3)}
    with _without_messages():
        return torch.onnx.export(
            model,
            (lr,),
            dynamo=True,
            dynamic_shapes=(shape,),
            input_names=["lr"],
            output_names=["sr"],
            opset_version=OPSET,
            verbose=False,
        )


def onnx_enlarger(path: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that enlarges (H, W, 3) uint8 images with an exported file in ONNX Runtime.

    It uses as many threads as PyTorch.

    Raises:
        HRNError: onnxruntime is not installed.
    """
    onnxruntime = _needed("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def enlarge(image: np.ndarray) -> np.ndarray:
        lr = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        sr = session.run(None, {"lr": lr})[0][0].transpose(1, 2, 0)
        return (sr * 255).round().clip(0, 255).astype(np.uint8)

    return enlarge


def export_safetensors(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as safetensors, with its configuration and information as JSON in the header.

    :func:`hrn.checkpoint.load_checkpoint` reads the file.

    Raises:
        HRNError: safetensors is not installed, the weights do not fit the configuration, or the file cannot be written.
    """
    load_network(checkpoint)  # checks the weights
    save = _needed("safetensors.torch").save
    header = {
        "format": FORMAT,
        "config": json.dumps(config_to_dict(checkpoint.config)),
        "info": json.dumps(checkpoint.inference_info, default=str),
    }
    data = save({name: value.contiguous() for name, value in checkpoint.inference_weights.items()}, header)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def _needed(package: str) -> Any:
    """Import a package of the `export` extra."""
    try:
        return import_module(package)
    except ImportError as error:
        raise HRNError(f"{error}; run: pip install onnx onnxscript onnxruntime safetensors") from None


@contextmanager
def _without_messages() -> Iterator[None]:
    """Suppress the exporter's output, log records and warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--ckpt_path",
        type=path_argument,
        required=True,
        metavar="FILE",
        help="checkpoint file or name, such as hrn_light_x4",
    )
    add("--format", choices=SUFFIXES, help="output format (default: by the suffix of --out, else onnx)")
    add("--scale", type=int, help="scale of the ONNX graph or state dict (default: the checkpoint's first)")
    add(
        "--mode",
        choices=[m for m in MODES if m != "windows"],
        help="mode of the ONNX graph (default: local, or full for hrn_released)",
    )
    add(
        "--window",
        type=int,
        default=Mode.window,
        help="side of a block in mode local, in LR pixels (default: %(default)s)",
    )
    add("--out", type=path_argument, metavar="FILE", help="output file (default: the checkpoint's name in this folder)")
    args = parser.parse_args(argv)
    if args.format is None:
        suffix = args.out.suffix if args.out else ".onnx"
        args.format = {".onnx": "onnx", ".safetensors": "safetensors"}.get(suffix)
        if args.format is None:
            raise HRNError(f"--out {args.out}: use the suffix .onnx or .safetensors, or give --format")
    suffix = Path(f"a{SUFFIXES[args.format]}").suffix
    if args.out and args.out.suffix != suffix:
        raise HRNError(f"--out {args.out}: files of --format {args.format} need the suffix {suffix}")
    for name, formats in (("scale", ("onnx", "spandrel")), ("mode", ("onnx",)), ("window", ("onnx",))):
        if args.format not in formats and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name} has no effect on --format {args.format}")
    if args.mode == "full" and args.window != Mode.window:
        parser.error("--window has no effect in mode full")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    keep_memory()
    warm_up_kernels()
    checkpoint = load_checkpoint(find_checkpoint(args.ckpt_path))
    scale = args.scale or checkpoint.config.scales[0]
    one_of_several = args.format != "safetensors" and len(checkpoint.config.scales) > 1
    stem = f"{checkpoint.path.stem}_x{scale}" if one_of_several else checkpoint.path.stem
    out = args.out or Path(f"{stem}{SUFFIXES[args.format]}")
    check_not_input(out, [checkpoint.path])
    note = ""
    if args.format == "onnx":
        mode = Mode(args.mode or default_mode(checkpoint.config).name, args.window)
        difference = export_onnx(out, checkpoint, scale, mode)
        note = f", maximum difference to PyTorch {difference * 255:.4f} grey levels"
    elif args.format == "safetensors":
        export_safetensors(out, checkpoint)
        if other := fields_not_in_shapes(checkpoint.config):
            note = f"; spandrel needs a .pth checkpoint instead, because of {', '.join(other)}"
    else:
        export_state_dict(out, checkpoint, scale)
    scale_note = f", x{scale}" if one_of_several else ""
    print(f"{out}  {out.stat().st_size:,} bytes{scale_note}{note}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
