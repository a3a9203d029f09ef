"""Draw the README's figures, and fill its tables from the files of results.

    make figures
    python tools/make_figures.py --tables        the tables only

A table stands between two comments, of which the first says where it is from: a file of results, which a command printed,
`results x4`, the table of published methods and ours, or `presets x4`, what the networks are and cost. Figures of test images are drawn where those are at hand
(dataset/Set5, dataset/Set14, dataset/Urban100), the picture of the demo where there are Gradio and Chromium; else they stay as they are.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT)]

from hrn.cli import run_cli
from hrn.data.benchmark import photographs
from hrn.data.images import write_image
from hrn.errors import HRNError
from hrn.evaluation.figures.compare import compare, comparisons_of
from hrn.evaluation.figures.curves import curve
from hrn.evaluation.figures.spectrum import spectrum
from hrn.evaluation.figures.tradeoff import tradeoff
from hrn.evaluation.tables import results_table
from hrn.files import write_text
from hrn.inference.upscale import load_model
from hrn.model.config import SCALES
from hrn.model.summary import presets_table
from tools import draw_demo, draw_network

FIGS = ROOT / "Figs"
PAGES = ("README.md", "benchmarks/README.md")
LOGS = ROOT / "checkpoint/hrn_light"
STAGES = {"x4": 3, "x3": 2, "x2": 1, "x8": 1, "x2x3x4": 2}
"""Of each checkpoint's training; each has a log."""
NAMED = ("img012", "img033", "img092", "barbara", "zebra", "butterfly")
"""Of the comparison figures."""
PRICED = (2, 3, 4)
"""Scales whose published results come with their cost."""
NAMED_SETS = ("Urban100", "Set14", "Set5")
TABLE = re.compile(r"(<!-- from (?P<source>[^>]+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)


def fill(text: str) -> str:
    """A page with its tables as the files of results have them now.

    Raises:
        HRNError: a source that is none.
    """
    return TABLE.sub(lambda match: f"{match[1]}{_table(match['source'])}\n{match[4]}", text)


def _table(source: str) -> str:
    if match := re.fullmatch(r"results x(\d)", source):
        return results_table(int(match[1])).strip()
    if match := re.fullmatch(r"presets x(\d)", source):
        return presets_table(int(match[1]))
    path = ROOT / source
    if not path.is_file():
        raise HRNError(f"no file of results {source}")
    return path.read_text(encoding="utf-8").strip()


def fill_pages() -> None:
    """Fill the tables of all pages."""
    for name in PAGES:
        page = ROOT / name
        write_text(page, fill(page.read_text(encoding="utf-8")))
        print(f"filled {name}")


def draw_all() -> None:
    """Draw all figures that can be drawn here."""
    draw_network.main([])
    for scales, count in STAGES.items():
        logs = [LOGS / f"hrn_light_{scales}_stage{i}.jsonl" for i in range(1, count + 1)]
        curve(FIGS / f"curve_{scales}.png", logs)
    for scale in PRICED:
        tradeoff(FIGS / f"tradeoff_x{scale}.png", scale)
    light = load_model("hrn_light_x4")
    spectrum(FIGS / "spectrum_x4.png", light, [image.load(4).lr for image in photographs(4).images], 4)
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "astronaut.png"
        write_image(original, next(image.load(4).hr for image in photographs(4).images if image.name == original.stem))
        compare(FIGS / "comparison.png", *comparisons_of([str(original)], [], ["bicubic", "hrn_light_x4"], 4))
    try:
        draw_demo.main()
    except HRNError as error:
        print(f"left Figs/demo.webp as it is: {error}")
    sets = [ROOT / "dataset" / name for name in NAMED_SETS]
    missing = [str(path.relative_to(ROOT)) for path in sets if not path.is_dir()]
    if missing:
        print(f"left Figs/compare_*.webp as they are: they need {', '.join(missing)}")
        return
    for scale in SCALES:
        compare(FIGS / f"compare_x{scale}.webp", *comparisons_of(NAMED, sets, ["bicubic", "hrn_light"], scale))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="fill the tables only")
    args = parser.parse_args(argv)
    fill_pages()
    if not args.tables:
        draw_all()
        print("drew Figs/")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
