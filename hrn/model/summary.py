"""Parameters and Multi-Adds of a network and its parts."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrn.model import build_model
from hrn.model.config import PRESETS, Config, HRNConfig, preset

OUTPUT_SIZE = (720, 1280)
"""Height and width of the output for which Multi-Adds are counted, as in the literature."""


@dataclass(frozen=True)
class PartCost:
    """Parameters and Multi-Adds of a part of the network."""

    name: str
    """Name of the part, or `total`."""
    parameters: int
    """Number of parameters."""
    multi_adds: int
    """Number of multiply-accumulate operations in convolutions, for an output of OUTPUT_SIZE."""


def summarise(config: Config, scale: int | None = None) -> list[PartCost]:
    """Return the cost of each part, and of the whole network last.

    Only convolutions are counted, as in the literature. A DCT adds (H + W) Multi-Adds per feature sample as a matrix
    product, and fewer by FFT; the FFT variant is not counted either. The LR size is OUTPUT_SIZE divided by `scale`, rounded down.
    """
    scale = scale or config.scales[0]
    with torch.device("meta"):
        network = build_model(config).eval()
        lr = torch.empty(1, 3, OUTPUT_SIZE[0] // scale, OUTPUT_SIZE[1] // scale)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(lr, scale)
    counts = counter.get_flop_counts()
    root = type(network).__name__
    parts = [_cost(name, part, counts, f"{root}.{path}") for name, path, part in _parts(network)]
    return [*parts, _cost("total", network, counts, root)]


def presets_table(scale: int) -> str:
    """Return sizes, parameters and Multi-Adds of the presets at a scale, as a Markdown table."""
    lines = [
        f"| `--model` | channels | DEMs | WRABs in a WRDB | expansion | parameters x{scale} | Multi-Adds, {OUTPUT_SIZE[1]}x{OUTPUT_SIZE[0]} |",
        "|---" * 7 + "|",
    ]
    for name in PRESETS:
        config = preset(name, [scale])
        total = summarise(config)[-1]
        sizes = (
            (config.channels, config.n_dem, config.n_wrab, config.expansion)
            if isinstance(config, HRNConfig)
            else ("",) * 4
        )
        cells = " | ".join(str(size) for size in sizes)
        lines.append(f"| `{name}` | {cells} | {total.parameters:,} | {total.multi_adds / 1e9:.2f} G |")
    return "\n".join(lines)


def _parts(network: nn.Module) -> list[tuple[str, str, nn.Module]]:
    """Return (name, path, module) of the parts shown in the figure."""
    parts = []
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            parts += [(f"DEM {i + 1}", f"{name}.{i}", part) for i, part in enumerate(child)]
        elif isinstance(child, nn.ModuleDict):
            parts += [(f"tail {key}", f"{name}.{key}", part) for key, part in child.items()]
        else:
            parts.append((name, name, child))
    return parts


def _cost(name: str, module: nn.Module, counts: dict, path: str) -> PartCost:
    convolutions = sum(count for op, count in counts.get(path, {}).items() if op is torch.ops.aten.convolution)
    return PartCost(name, sum(p.numel() for p in module.parameters()), convolutions // 2)
