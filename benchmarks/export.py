"""Compare exported networks in ONNX Runtime with PyTorch: difference and time.

    python benchmarks/export.py dataset/Set5

The table has every preset at every scale, with the included checkpoint if there is one, else with untrained weights.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch

from benchmarks.timing import machine, paired_seconds
from hrn.checkpoint import load_checkpoint, load_network, save_checkpoint
from hrn.cli import run_cli
from hrn.data.benchmark import find_test_set
from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger
from hrn.inference.export import export_onnx, onnx_enlarger
from hrn.memory import keep_memory
from hrn.model import PRESETS, build_model, preset
from hrn.model.config import SCALES
from hrn.pretrained import find_checkpoint
from hrn.runtime import warm_up_kernels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test_set", type=Path, help="test set to compare on")
    parser.add_argument("--models", nargs="+", default=list(PRESETS), choices=PRESETS, help="default: all")
    parser.add_argument("--scales", nargs="+", type=int, default=list(SCALES), choices=SCALES, help="default: all")
    args = parser.parse_args()
    keep_memory()
    warm_up_kernels()
    print(f"{args.test_set.name}, {machine()}\n")
    print("| model | scale | weights | largest difference, grey levels | PyTorch s | ONNX Runtime s | export s |")
    print("|---" * 7 + "|")
    for name in args.models:
        for scale in args.scales:
            with tempfile.TemporaryDirectory() as folder:
                print(row(name, scale, args.test_set, Path(folder)), flush=True)
    return 0


def row(name: str, scale: int, test_set: Path, folder: Path) -> str:
    """Export one network and format its row of the table."""
    try:
        path, weights = find_checkpoint(f"{name}_x{scale}"), "included"
    except HRNError:
        path, weights = folder / "untrained.pth", "untrained"
        torch.manual_seed(0)
        config = preset(name, [scale])
        save_checkpoint(path, config, build_model(config).state_dict(), info={})
    checkpoint = load_checkpoint(path)
    start = time.perf_counter()
    export_onnx(folder / "network.onnx", checkpoint, scale)
    export = time.perf_counter() - start
    enlarger = Enlarger(load_network(checkpoint, scale=scale))
    onnx = onnx_enlarger(folder / "network.onnx")
    worst, seconds = 0, [0.0, 0.0]
    for image in find_test_set(test_set, scale).images:
        lr = image.load(scale).lr
        worst = max(worst, int(abs(enlarger(lr).astype(int) - onnx(lr)).max()))
        both = paired_seconds(lambda lr=lr: enlarger(lr), lambda lr=lr: onnx(lr), rounds=1, warmup=1)
        seconds = [a + b for a, b in zip(seconds, both, strict=True)]
    return f"| {name} | x{scale} | {weights} | {worst} | {seconds[0]:.2f} | {seconds[1]:.2f} | {export:.0f} |"


if __name__ == "__main__":
    sys.exit(run_cli(main))
