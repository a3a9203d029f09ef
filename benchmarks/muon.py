"""Time of Muon's update compared with Adam's, with Newton-Schulz iterations in float32 and bfloat16.

python benchmarks/muon.py
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch

from benchmarks.timing import machine, paired_seconds
from hrn.cli import run_cli
from hrn.model import PRESETS, build_model, preset
from hrn.runtime import pick_device
from hrn.training.muon import Muon, matrix_shape, orthogonalise

MODELS = ["hrn_light", "hrn_base", "hrn"]


def row(name: str, device: torch.device) -> str:
    """Time the optimizers on one network; return a row of the table."""
    parameters = list(build_model(preset(name, [4])).to(device).parameters())
    for p in parameters:
        p.grad = torch.randn_like(p)
    muon, adam = Muon(parameters, 1e-6), torch.optim.Adam(parameters, 1e-6, fused=True)
    shapes = Counter(map(matrix_shape, muon.param_groups[0]["params"]))
    stacks = [torch.randn(n, *shape, device=device) for shape, n in shapes.items()]
    halves = [stack.bfloat16() for stack in stacks]
    seconds = paired_seconds(
        adam.step,
        muon.step,
        lambda: [orthogonalise(stack) for stack in stacks],
        lambda: [orthogonalise(stack) for stack in halves],
    )
    cells = [name, str(sum(shapes.values())), *(f"{1e3 * s:.1f}" for s in seconds), f"{seconds[3] / seconds[2]:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=MODELS, choices=PRESETS, help=f"presets (default: {' '.join(MODELS)})"
    )
    args = parser.parse_args()
    device = pick_device()
    print(f"{machine(device)}, ms\n")
    print("| network | matrices | Adam | Muon | iterations in float32 | iterations in bfloat16 | bfloat16 / float32 |")
    print("|---|---|---|---|---|---|---|")
    for name in args.models:
        print(row(name, device), flush=True)


if __name__ == "__main__":
    sys.exit(run_cli(main))
