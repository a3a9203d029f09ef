"""Speed of hrn_light, hrn_base and other small networks at x4, and Multi-Adds per second.

    pip install spandrel && python benchmarks/peers.py

The other networks come from spandrel (https://github.com/chaiNNer-org/spandrel), in the sizes of their papers and with
untrained weights. Every network runs in both memory layouts, and the faster one is reported. All runs are in turn in one
process.
"""

import argparse
import copy
import sys
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import machine, paired_seconds
from hrn.cli import run_cli
from hrn.inference.local import make_local
from hrn.memory import keep_memory
from hrn.model import build_model, preset
from hrn.model.summary import OUTPUT_SIZE
from hrn.runtime import warm_up_kernels

SCALE = 4
SIDES = (128, 256)
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
LR_PIXELS = OUTPUT_SIZE[0] * OUTPUT_SIZE[1] / SCALE**2


def networks() -> dict[str, nn.Module]:
    """Our networks and the others, by name."""
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact
    from spandrel.architectures.SAFMN.__arch.safmn import SAFMN
    from spandrel.architectures.SPAN.__arch.span import SPAN
    from spandrel.architectures.SwinIR.__arch.SwinIR import SwinIR

    light, base = (build_model(preset(name, [SCALE])) for name in ("hrn_light", "hrn_base"))
    return {
        "hrn_light, local": make_local(light, 48),
        "hrn_light, full": light,
        "hrn_base, local": make_local(base, 48),
        "SPAN (28 channels)": SPAN(num_in_ch=3, num_out_ch=3, feature_channels=28, upscale=SCALE),
        "SPAN (48 channels)": SPAN(num_in_ch=3, num_out_ch=3, feature_channels=48, upscale=SCALE),
        "SAFMN": SAFMN(dim=36, n_blocks=8, ffn_scale=2.0, upscaling_factor=SCALE),
        "SRVGGNetCompact (64, 16)": SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=16, upscale=SCALE, act_type="prelu"),
        "SwinIR-light": SwinIR(
            upscale=SCALE, img_size=64, window_size=8, img_range=1.0, depths=[6] * 4, embed_dim=60,
            num_heads=[6] * 4, mlp_ratio=2, upsampler="pixelshuffledirect",
        ),
    }  # fmt: skip


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    keep_memory()
    warm_up_kernels()
    print(f"x{SCALE}, {machine()}\n")
    columns = " | ".join(f"s at {s}x{s} | G Multi-Adds/s" for s in SIDES)
    print(f"| network | parameters K | Multi-Adds G, 1280x720 | faster layout | {columns} |")
    print("|---" * (4 + 2 * len(SIDES)) + "|")
    nets = {name: net.eval().requires_grad_(False) for name, net in networks().items()}
    runs = [copy.deepcopy(net).to(memory_format=layout) for net in nets.values() for layout in LAYOUTS.values()]
    seconds = []
    with torch.inference_mode():
        for side in SIDES:
            x = torch.rand(1, 3, side, side)
            seconds.append(paired_seconds(*(lambda n=n, x=x: n(x) for n in runs), rounds=5, warmup=2))
    for i, (name, net) in enumerate(nets.items()):
        first = i * len(LAYOUTS)
        fastest = min(range(first, first + len(LAYOUTS)), key=seconds[-1].__getitem__)
        g = multi_adds(net) / 1e9
        cells = [f"{sum(p.numel() for p in net.parameters()) / 1e3:.0f}", f"{g:.1f}", list(LAYOUTS)[fastest - first]]
        for side, taken in zip(SIDES, seconds, strict=True):
            cells += [f"{taken[fastest]:.3f}", f"{g * side**2 / LR_PIXELS / taken[fastest]:.0f}"]
        print(f"| {name} | {' | '.join(cells)} |")


def multi_adds(network: nn.Module) -> float:
    """Multi-Adds of convolutions and matrix products for an output of OUTPUT_SIZE."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, 3, *(side // SCALE for side in OUTPUT_SIZE)))
    return counter.get_total_flops() / 2


if __name__ == "__main__":
    sys.exit(run_cli(main))
