"""Write a checkpoint for other programs: ONNX, and safetensors.

    python -m hrn.inference.export --ckpt_path hrn_light_x4                             hrn_light_x4.onnx
    python -m hrn.inference.export --ckpt_path hrn_light_x4 --out hrn_light.safetensors

The ONNX graph takes `lr` (batch, 3, height, width) float32 RGB in 0 to 1, of any size, and gives `sr` (batch, 3,
scale*height, scale*width), not clipped. It computes the DCT as a product with a matrix. Needs `pip install "hrn[export]"`,
or onnx, onnxscript, onnxruntime and safetensors.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hrn.checkpoint import FORMAT, Checkpoint, load_checkpoint, load_network
from hrn.cli import run_cli
from hrn.errors import HRNError
from hrn.files import atomic_write
from hrn.inference.enlarger import MODES, Mode, default_mode
from hrn.inference.local import make_local
from hrn.model import config_to_dict
from hrn.pretrained import find_checkpoint

OPSET = 18
MOST_DIFFERENCE = 0.5 / 255
"""By which ONNX Runtime may differ from PyTorch on the trial image: half a grey level."""


class OneScale(nn.Module):
    """A network whose only input is the image."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, lr: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, s*H, s*W)."""
        return self.network(lr, self.scale)


def export_onnx(path: str | Path, checkpoint: Checkpoint, scale: int, mode: Mode | None = None) -> float:
    """Write the network of a checkpoint at one scale as ONNX, and run it once in ONNX Runtime.

    Args:
        path: of the file, which is written beside first and renamed when it has been checked.
        checkpoint: as read by :func:`hrn.checkpoint.load_checkpoint`.
        scale: one of the network's.
        mode: `local` or `full`; by default as :func:`hrn.inference.upscale.upscale` does.

    Returns:
        The largest difference to PyTorch on a trial image, in 0 to 1.

    Raises:
        HRNError: a package is missing, mode windows, or ONNX Runtime gives something else than PyTorch.
    """
    onnxruntime = _needed("onnxruntime")
    _needed("onnxscript")
    network = load_network(checkpoint, scale=scale).to(memory_format=torch.contiguous_format)
    mode = mode or default_mode(checkpoint.config)
    if mode.name == "windows":
        raise HRNError("mode windows is a way of calling a network; export mode full or local")
    if mode.name == "local":
        network = make_local(network, mode.window)
    model = OneScale(network, scale).eval()
    trial = torch.rand(2, 3, 60, 101, generator=torch.Generator().manual_seed(0))
    sides = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with atomic_write(path) as beside:
        with _quietly():
            program = torch.onnx.export(
                model,
                (trial,),
                dynamo=True,
                dynamic_shapes=(sides,),
                input_names=["lr"],
                output_names=["sr"],
                opset_version=OPSET,
                verbose=False,
            )
        told = {"scale": str(scale), "mode": str(mode), "checkpoint": checkpoint.path.name}
        program.model.metadata_props.update(told)
        program.save(beside)
        session = onnxruntime.InferenceSession(beside, providers=["CPUExecutionProvider"])
        worst = 0.0
        for lr in (trial, trial[:1, :, :31, :20]):
            with torch.inference_mode():
                expected = model(lr).numpy()
            worst = max(worst, float(np.abs(session.run(None, {"lr": lr.numpy()})[0] - expected).max()))
        if not worst <= MOST_DIFFERENCE:
            raise HRNError(
                f"{path}: not written, because ONNX Runtime differs from PyTorch by {worst * 255:.2f} grey levels"
            )
    return worst


def onnx_enlarger(path: str | Path) -> Callable[[np.ndarray], np.ndarray]:
    """What enlarges (H, W, 3) uint8 images by an exported file in ONNX Runtime, on as many threads as PyTorch has.

    Raises:
        HRNError: a package is missing.
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
    """Write a checkpoint's weights, with its configuration and what else it says of itself as JSON in the header.

    :func:`hrn.checkpoint.load_checkpoint` reads it.

    Raises:
        HRNError: a package is missing, or the file cannot be written.
    """
    save_file = _needed("safetensors.torch").save_file
    header = {
        "format": FORMAT,
        "config": json.dumps(config_to_dict(checkpoint.config)),
        "info": json.dumps(dict(checkpoint.info)),
    }
    with atomic_write(path) as beside:
        save_file({name: value.contiguous() for name, value in checkpoint.weights.items()}, beside, header)


def _needed(package: str):
    try:
        return __import__(package, fromlist=["_"])
    except ImportError:
        raise HRNError(
            f"exporting needs {package.split('.')[0]}: pip install onnx onnxscript onnxruntime safetensors"
        ) from None


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells of every step on stdout, in the log and in warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ckpt_path", type=Path, required=True, metavar="FILE", help="a checkpoint, or the name of a shipped one")
    add("--scale", type=int, help="of the ONNX graph (default: the checkpoint's first)")
    add("--mode", choices=[m for m in MODES if m != "windows"], help="of the ONNX graph (default: as sample.py's)")
    add("--window", type=int, default=Mode.window, help="how much mode local sees, in LR pixels (default: %(default)s)")
    add("--out", type=Path, metavar="FILE", help="ends in .onnx or .safetensors (default: the checkpoint's name.onnx)")
    args = parser.parse_args(argv)
    checkpoint = load_checkpoint(find_checkpoint(args.ckpt_path))
    out = args.out or Path(f"{checkpoint.path.stem}.onnx")
    if out.suffix == ".safetensors":
        export_safetensors(out, checkpoint)
        print(f"{out}  {out.stat().st_size:,} bytes")
    elif out.suffix == ".onnx":
        scale = args.scale or checkpoint.config.scales[0]
        name = args.mode or default_mode(checkpoint.config).name
        worst = export_onnx(out, checkpoint, scale, Mode(name, args.window))
        print(f"{out}  {out.stat().st_size:,} bytes, differs from PyTorch by {worst * 255:.4f} grey levels at most")
    else:
        raise HRNError(f"{out}: must end in .onnx or .safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
