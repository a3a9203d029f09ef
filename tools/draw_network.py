"""Draw Figs/network.svg: HRN and its modules, in the layout of figures 1 and 2 of the paper.

    python tools/draw_network.py
    python tools/draw_network.py --model hrn_light --scale 2 --out light_x2.svg

The number of modules, the convolutions and the number of feature maps that each one concatenates are read from the network
that the code builds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

import torch
from torch import nn

from hrn.cli import path_argument, run_cli
from hrn.files import write_text
from hrn.model import HRN, PRESETS, SCALES, HRNConfig, build_model, preset
from hrn.model.attention import CoordinateAttention
from hrn.model.blocks import WRAB, WRDB
from hrn.model.hrn import DEM
from hrn.model.pointwise import Fusion

COLOURS = {"conv": "#d98880", "block": "#f5cba7", "dct": "#aed6f1", "op": "#fdfefe", "up": "#e59866", "gate": "#fdebd0"}
WIDTH, MARGIN = 940, 20
HEIGHT = 40
"""Default height of a box."""

Box = tuple[str, str, str]
"""Kind (a key of COLOURS), label, and a second line below the label or an empty string."""


def conv_box(conv: nn.Conv2d, after: str = "", kind: str = "conv") -> Box:
    """Return a box for a convolution, such as `3x3, ELU` above `64 to 256`; `after` is appended to the kernel size."""
    k = conv.kernel_size[0]
    return kind, f"{k}x{k}{after}", f"{conv.in_channels} to {conv.out_channels}"


class Drawing:
    """SVG elements on a white background. Coordinates are in pixels from the top left corner."""

    def __init__(self, title: str) -> None:
        self.title, self.parts = title, []

    def text(
        self, x: float, y: float, text: str, size: int = 12, weight: str = "normal", anchor: str = "middle"
    ) -> None:
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">{text}</text>'
        )

    def heading(self, y: float, text: str) -> None:
        self.text(MARGIN, y, text, 15, "bold", "start")

    def box(self, x: float, y: float, box: Box, width: float, height: float = HEIGHT) -> None:
        """Draw a box centred on (x, y)."""
        kind, label, second_line = box
        self.parts.append(
            f'<rect x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}" rx="5" '
            f'fill="{COLOURS[kind]}" stroke="#333"/>'
        )
        self.text(x, y + (-2 if second_line else 4), label)
        if second_line:
            self.text(x, y + 13, second_line, 10)

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw a polyline with an arrowhead at its last point."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="#333" stroke-width="1.3" marker-end="url(#head)"/>'
        )

    def operator(self, x: float, y: float, sign: str = "+") -> None:
        """Draw a circled sign centred on (x, y)."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="#fff" stroke="#333"/>')
        self.text(x, y + 5, sign, 15)

    def chain(self, x: float, y: float, boxes: Sequence[Box], width: float, gap: float) -> list[float]:
        """Draw boxes in a row that starts at `x`, with an arrow into each. Returns the x of their centres."""
        centres = [x + gap + width / 2 + i * (width + gap) for i in range(len(boxes))]
        for centre, box in zip(centres, boxes, strict=True):
            self.arrow((centre - width / 2 - gap, y), (centre - width / 2, y))
            self.box(centre, y, box, width)
        return centres

    def svg(self, height: int) -> str:
        """Return the complete SVG document."""
        head = (
            '<marker id="head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="6.5" markerHeight="6.5" orient="auto">'
            '<path d="M0,0 L8,4 L0,8 z" fill="#333"/></marker>'
        )
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" fill="#222">\n'
            f"<title>{self.title}</title>\n<defs>{head}</defs>\n"
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
        )


def tail_boxes(tail: nn.Sequential) -> list[Box]:
    """Boxes of the upsampler: one for each convolution, together with the PixelShuffle that follows it."""
    boxes = []
    for layer, following in zip(tail, [*list(tail)[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d):
            shuffles = isinstance(following, nn.PixelShuffle)
            after = f", shuffle {following.upscale_factor}" if shuffles else ""
            boxes.append(conv_box(layer, after, "up" if shuffles else "conv"))
    return boxes


def draw_hrn(d: Drawing, network: HRN, y: float) -> None:
    d.heading(y - 50, "HRN")
    (tail,) = network.tails.values()
    dems = [("block", f"DEM {i + 1}", "") for i in range(len(network.body))]
    ends = tail_boxes(tail)
    d.text(MARGIN + 14, y + 4, "LR")
    width, gap = 62, 24
    (head,) = d.chain(MARGIN + 28, y, [conv_box(network.head)], width, gap)
    x0 = head + width / 2 + 10
    centres = d.chain(x0 + 14, y, dems, width, gap)
    d.arrow((head + width / 2, y), (centres[0] - width / 2, y))
    joint = centres[-1] + width / 2 + 22
    d.arrow((centres[-1] + width / 2, y), (joint - 9, y))
    d.operator(joint, y)
    d.arrow((x0, y), (x0, y - 36), (joint, y - 36), (joint, y - 9))
    d.text((x0 + joint) / 2, y - 41, "x0", 11)
    last = d.chain(joint + 9, y, ends, 92, 20)[-1] + 46
    d.arrow((last, y), (last + 20, y))
    d.text(last + 33, y + 4, "SR")
    f = y + 58
    d.arrow((x0, y), (x0, f - 11))
    d.box(x0, f, ("dct", "DCT", ""), 44, 22)
    start = x0 + 22
    for i, centre in enumerate(centres):  # each DEM receives the coefficients of the previous one
        d.arrow((start, f), (centre - 14, f), (centre - 14, y + HEIGHT / 2))
        d.text((start + centre - 14) / 2, f - 5, f"f{i}", 11)
        start = centre + 14
        if i + 1 < len(centres):
            d.parts.append(
                f'<polyline points="{start:g},{y + HEIGHT / 2:g} {start:g},{f:g}" fill="none" stroke="#333" stroke-width="1.3"/>'
            )


def draw_inputs(
    d: Drawing, fusion: Fusion, x: float, y: float, lines: Sequence[tuple[float, float]], drawn: int = 1
) -> None:
    """Draw arrows for the feature maps that a fusion concatenates.

    Args:
        d: the drawing.
        fusion: the 1x1 convolution.
        x: left edge of its box.
        y: centre of its box.
        lines: for each arrow its start (x) and the vertical offset of its horizontal segment.
        drawn: number of inputs that are drawn elsewhere.

    Raises:
        ValueError: the fusion has another number of inputs.
    """
    maps = fusion.in_channels // fusion.out_channels
    if len(lines) + drawn != maps:
        raise ValueError(f"the fusion has {maps} inputs, but {len(lines) + drawn} are drawn")
    for i, (start, offset) in enumerate(lines):
        end = x - 8 - 7 * i
        d.arrow((start, y), (start, y + offset), (end, y + offset), (end, y + (2 if offset > 0 else -2)))


def draw_dem(d: Drawing, dem: DEM, y: float) -> None:
    d.heading(y - 96, "DEM: dual-domain enhancement module")
    d.text(MARGIN + 14, y + 4, "x")
    width, wrdb = 86, ("block", "WRDB", "")
    boxes = [wrdb, conv_box(dem.fuse1, ", ELU"), wrdb, conv_box(dem.fuse2, ", ELU")]
    start = MARGIN + 44
    d.arrow((MARGIN + 22, y), (start, y))
    w1, c1, _, c2 = d.chain(start, y, boxes, width, 64)
    left, right = -width / 2, width / 2
    draw_inputs(d, dem.fuse1, c1 + left, y, [(start, 36)])
    f = y - 58
    idct = c2 + left - 36
    draw_inputs(d, dem.fuse2, c2 + left, y, [(w1 + right + 12, -30), (start, 54)], drawn=2)
    d.text((start + c2) / 2, y + 68, "lines that meet before a 1x1 are concatenated", 11)
    d.text(MARGIN + 14, f + 4, "f")
    d.arrow((MARGIN + 22, f), (w1 + left, f))
    d.box(w1, f, wrdb, width)
    d.arrow((w1 + right, f), (c2 + right + 40, f))
    d.text(c2 + right + 54, f + 4, "f'")
    d.arrow((idct, f), (idct, y - 2))
    d.box(idct, y - 38, ("dct", "IDCT", ""), 44, 20)
    d.arrow((c2 + right, y), (c2 + right + 40, y))
    d.text(c2 + right + 54, y + 4, "x'")


def draw_wrdb(d: Drawing, wrdb: WRDB, y: float) -> None:
    d.heading(y - 56, "WRDB: wide-activated residual-in-residual dense block")
    d.text(MARGIN + 14, y + 4, "x")
    boxes = [box for fuse in wrdb.fuse for box in (("block", "WRAB", ""), conv_box(fuse))]
    width, start = 68, MARGIN + 44
    d.arrow((MARGIN + 22, y), (start, y))
    centres = d.chain(start, y, boxes, width, 44)
    outs = [start]
    for i, fuse in enumerate(wrdb.fuse):
        lines = [(x, 30 + 11 * (len(wrdb.fuse) - k)) for k, x in enumerate(outs)]
        draw_inputs(d, fuse, centres[2 * i + 1] - width / 2, y, lines)
        outs.append(centres[2 * i] + width / 2 + 9)
    out = centres[-1] + width / 2 + 30
    d.arrow((centres[-1] + width / 2, y), (out - 9, y))
    d.operator(out, y)
    d.arrow((start, y), (start, y - 36), (out, y - 36), (out, y - 9))
    d.arrow((out + 9, y), (out + 40, y))


def draw_wrab(d: Drawing, wrab: WRAB, y: float) -> None:
    d.heading(y - 56, "WRAB: wide-activated residual attention block")
    d.text(MARGIN + 14, y + 4, "x")
    start, width = MARGIN + 44, 92
    d.arrow((MARGIN + 22, y), (start, y))
    boxes = [conv_box(wrab.widen, ", ELU"), conv_box(wrab.narrow), ("gate", "CA", "")]
    end = d.chain(start, y, boxes, width, 34)[-1] + width / 2
    d.arrow((end, y), (end + 21, y))
    d.operator(end + 30, y)
    d.arrow((start, y), (start, y - 36), (end + 30, y - 36), (end + 30, y - 9))
    d.arrow((end + 39, y), (end + 70, y))


def draw_attention(d: Drawing, attention: CoordinateAttention, y: float) -> None:
    d.heading(y - 66, "CA: coordinate attention")
    d.text(MARGIN + 14, y + 4, "x")
    start, end = MARGIN + 44, MARGIN + 690
    sign = {"multiply": "&#215;", "add": "+"}[attention.gates]
    for side, pool, gate in ((-1, "mean over W", attention.gate_h), (1, "mean over H", attention.gate_w)):
        line = y + side * 26
        d.arrow((MARGIN + 22, y), (start, y), (start, line), (start + 16, line))
        d.box(start + 62, line, ("op", pool, ""), 92, 32)
        d.arrow((start + 108, line), (start + 134, line))
        d.arrow((start + 370, line), (start + 396, line))
        d.box(start + 436, line, conv_box(gate), 80, 34)
        d.arrow((start + 476, line), (start + 498, line))
        d.box(start + 536, line, ("gate", "sigmoid", ""), 76, 32)
        d.arrow((start + 574, line), (end, line), (end, y + side * 9))
    _, squeeze, channels = conv_box(attention.squeeze)
    d.box(start + 252, y, ("op", f"concatenate, {squeeze}, BN, ELU, split", channels), 236, 88)
    d.operator(end, y, sign)
    out = end
    if attention.gates == "add":  # the gates are added before x is multiplied
        out = end + 46
        d.arrow((end + 9, y), (out - 9, y))
        d.operator(out, y, "&#215;")
    d.arrow((start, y), (start, y + 62), (out - 24, y + 62), (out - 24, y + 8), (out - 8, y + 4))
    d.arrow((out + 9, y), (out + 50, y))


def draw_network(model: str = "hrn", scale: int = 4) -> str:
    """Draw a preset at a scale. Returns the SVG document."""
    with torch.device("meta"):
        network = build_model(preset(model, [scale]))
    dem = network.body[0]
    wrdb = dem.spatial1
    d = Drawing(f"{model} x{scale}: HRN, DEM, WRDB, WRAB and coordinate attention")
    draw_hrn(d, network, 76)
    draw_dem(d, dem, 286)
    draw_wrdb(d, wrdb, 442)
    draw_wrab(d, wrdb.blocks[0], 606)
    draw_attention(d, wrdb.blocks[0].attention, 740)
    return d.svg(826)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = [name for name, config in PRESETS.items() if isinstance(config, HRNConfig)]
    add = parser.add_argument
    add("--model", default="hrn", choices=models, help="preset (default: %(default)s)")
    add("--scale", type=int, default=4, choices=SCALES, help="enlargement factor (default: %(default)s)")
    default = Path(__file__).resolve().parents[1] / "Figs/network.svg"
    add("--out", type=path_argument, default=default, help="output file (default: %(default)s)")
    args = parser.parse_args(argv)
    write_text(args.out, draw_network(args.model, args.scale))


if __name__ == "__main__":
    sys.exit(run_cli(main))
