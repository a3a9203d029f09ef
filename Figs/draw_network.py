"""Draw Figs/network.svg: HRN and its modules as this code wires them, after figures 1 and 2 of the paper.

python Figs/draw_network.py
"""

from pathlib import Path

COLOURS = {"conv": "#d98880", "block": "#f5cba7", "dct": "#aed6f1", "op": "#fdfefe", "up": "#e59866", "gate": "#fdebd0"}
BOX, GAP = 74, 26


class Drawing:
    """SVG elements on a white page."""

    def __init__(self, width: int, height: int) -> None:
        self.size, self.parts = (width, height), []

    def text(
        self, x: float, y: float, words: str, size: int = 13, weight: str = "normal", anchor: str = "middle"
    ) -> None:
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}">{words}</text>'
        )

    def box(self, x: float, y: float, words: str, kind: str, width: float = BOX, height: float = 34) -> None:
        """Centred on (x, y)."""
        self.parts.append(
            f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="5" fill="{COLOURS[kind]}" stroke="#333"/>'
        )
        self.text(x, y + 4.5, words, 12)

    def arrow(self, *points: tuple[float, float]) -> None:
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="#333" stroke-width="1.4" marker-end="url(#head)"/>'
        )

    def plus(self, x: float, y: float, sign: str = "+") -> None:
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="9" fill="#fff" stroke="#333"/>')
        self.text(x, y + 5, sign, 15)

    def chain(self, x: float, y: float, *boxes: tuple[str, str], width: float = BOX, gap: float = GAP) -> list[float]:
        """Boxes in a row, with arrows into and between them; their centres."""
        centres = [x + width / 2 + i * (width + gap) for i in range(len(boxes))]
        for centre, (words, kind) in zip(centres, boxes, strict=True):
            self.arrow((centre - width / 2 - gap, y), (centre - width / 2, y))
            self.box(centre, y, words, kind, width)
        return centres

    def save(self, path: Path) -> None:
        w, h = self.size
        head = '<marker id="head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#333"/></marker>'
        body = "\n".join(self.parts)
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" font-family="Helvetica, Arial, sans-serif" fill="#222">\n'
            f"<title>HRN, DEM, WRDB, WRAB and coordinate attention</title>\n<defs>{head}</defs>\n"
            f'<rect width="{w}" height="{h}" fill="#fff"/>\n{body}\n</svg>\n',
            encoding="utf-8",
        )


def network(d: Drawing, y: float) -> None:
    d.text(20, y - 40, "HRN", 15, "bold", "start")
    d.text(28, y + 4, "LR", anchor="start")
    head, dem1, dem2, up, _ = d.chain(
        112,
        y,
        ("Conv 3x3", "conv"),
        ("DEM 1", "block"),
        ("DEM D", "block"),
        ("Upsample", "up"),
        ("Conv 3x3", "conv"),
        gap=62,
    )
    d.text((dem1 + dem2) / 2, y - 8, "...", 18)
    f = y + 62
    x0 = head + BOX / 2 + 20
    d.arrow((x0, y), (x0, f), (x0 + 12, f))
    d.box(x0 + 34, f, "DCT", "dct", 44)
    for start, end in ((x0 + 56, dem1), (dem1, dem2)):
        d.arrow((start, f), (end, f), (end, y + 17))
    d.text((dem1 + dem2) / 2, f - 6, "frequency branch", 11)
    joint = (dem2 + up) / 2
    d.plus(joint, y)
    d.arrow((x0, y), (x0, y - 34), (joint, y - 34), (joint, y - 9))
    d.text((x0 + joint) / 2, y - 39, "global skip x0", 11)
    d.arrow((up + BOX / 2 + 62 + BOX, y), (up + BOX / 2 + 62 + BOX + 40, y))
    d.text(up + BOX / 2 + 62 + BOX + 56, y + 4, "SR")


def dem(d: Drawing, y: float) -> None:
    d.text(20, y - 88, "DEM: dual-domain enhancement module", 15, "bold", "start")
    d.text(34, y + 4, "x")
    w1, c1, _, c2 = d.chain(
        110, y, ("WRDB", "block"), ("1x1, ELU", "conv"), ("WRDB", "block"), ("1x1, ELU", "conv"), gap=62
    )
    d.arrow((42, y), (50, y), (60, y))
    start, b1, end = 62, w1 + BOX / 2 + 16, c2 - BOX / 2 - 22
    d.arrow((start, y), (start, y + 34), (c1 - BOX / 2 - 22, y + 34), (c1 - BOX / 2 - 22, y + 2))
    d.arrow((start, y), (start, y + 52), (end, y + 52), (end, y + 2))
    d.arrow((b1, y), (b1, y - 28), (end - 12, y - 28), (end - 12, y - 2))
    d.text((start + end) / 2, y + 66, "concatenations", 11)
    f = y - 56
    d.text(34, f + 4, "f")
    d.arrow((42, f), (w1 - BOX / 2, f))
    d.box(w1, f, "WRDB", "block")
    d.arrow((w1 + BOX / 2, f), (c2 + BOX / 2 + 40, f))
    d.text(c2 + BOX / 2 + 54, f + 4, "f'")
    d.arrow((end + 8, f), (end + 8, y - 2))
    d.box(end + 8, y - 42, "IDCT", "dct", 44, 22)
    d.arrow((c2 + BOX / 2, y), (c2 + BOX / 2 + 40, y))
    d.text(c2 + BOX / 2 + 54, y + 4, "x'")


def wrdb(d: Drawing, y: float) -> None:
    d.text(20, y - 56, "WRDB: wide-activated residual-in-residual dense block", 15, "bold", "start")
    d.text(34, y + 4, "x")
    names = [("WRAB", "block"), ("1x1", "conv"), ("WRAB", "block"), ("1x1", "conv"), ("WRAB", "block"), ("1x1", "conv")]
    centres = d.chain(84, y, *names, width=58, gap=34)
    x = 64
    d.arrow((42, y), (x, y))
    for i in (1, 3, 5):
        joint = centres[i] - 29 - 12
        for k, source in enumerate([x, *[centres[j] + 29 + 8 for j in range(0, i - 1, 2)]]):
            depth = y + 30 + 12 * (3 - k) - 4 * (5 - i)
            d.arrow((source, y), (source, depth), (joint - 5 * k, depth), (joint - 5 * k, y + 2))
    out = centres[-1] + 29 + 30
    d.arrow((centres[-1] + 29, y), (out - 9, y))
    d.plus(out, y)
    d.arrow((x, y), (x, y - 36), (out, y - 36), (out, y - 9))
    d.arrow((out + 9, y), (out + 40, y))


def wrab(d: Drawing, y: float) -> None:
    d.text(20, y - 56, "WRAB: wide-activated residual attention block", 15, "bold", "start")
    d.text(34, y + 4, "x")
    centres = d.chain(
        84, y, ("3x3, C to EC", "conv"), ("ELU", "op"), ("3x3, EC to C", "conv"), ("CA", "gate"), width=88, gap=30
    )
    out = centres[-1] + 44 + 30
    d.arrow((42, y), (60, y))
    d.arrow((centres[-1] + 44, y), (out - 9, y))
    d.plus(out, y)
    d.arrow((58, y), (58, y - 36), (out, y - 36), (out, y - 9))
    d.arrow((out + 9, y), (out + 40, y))


def attention(d: Drawing, y: float) -> None:
    d.text(20, y - 66, "CA: coordinate attention", 15, "bold", "start")
    d.text(34, y + 4, "x")
    for sign, pool in ((-1, "mean over W"), (1, "mean over H")):
        line = y + sign * 26
        d.arrow((42, y), (58, y), (58, line), (72, line))
        d.box(118, line, pool, "op", 92, 30)
        d.arrow((164, line), (190, line))
        d.arrow((426, line), (452, line))
        d.box(482, line, "1x1", "conv", 60, 30)
        d.arrow((512, line), (530, line))
        d.box(566, line, "sigmoid", "gate", 72, 30)
        d.arrow((602, line), (640, line), (640, y + sign * 9))
    d.box(308, y, "concatenate, 1x1 to C/r, BN, ELU, split", "op", 236, 86)
    d.plus(640, y, "&#215;")
    d.arrow((58, y), (58, y + 60), (622, y + 60), (622, y + 6), (632, y + 4))
    d.arrow((649, y), (690, y))


def main() -> None:
    drawing = Drawing(860, 820)
    network(drawing, 66)
    dem(drawing, 274)
    wrdb(drawing, 430)
    wrab(drawing, 590)
    attention(drawing, 730)
    drawing.save(Path(__file__).parent / "network.svg")


if __name__ == "__main__":
    main()
