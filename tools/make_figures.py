"""Draw the figures of the documentation and fill its tables.

    make figures
    python tools/make_figures.py --tables    fill the tables only

A generated table stands between `<!-- from SOURCE -->` and `<!-- end -->`. SOURCE is one of:

    PATH                a results file, relative to the repository, as a command printed it
    models              the included checkpoints with their scores and cost
    presets x4          the presets and their cost at a scale
    results x4          published methods and the included checkpoints at a scale
    results x4 short    the same with only the methods in SHORT_TABLE

If a results file does not exist, the text between its two comments is left unchanged. The comparison figures are left unchanged
if dataset/Set5, dataset/Set14 or dataset/Urban100 is missing, and the picture of the demo if Gradio, Playwright or Chromium is.
"""

import argparse
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(ROOT)]

from hrn.cli import run_cli
from hrn.data.benchmark import photographs
from hrn.data.image_writer import write_image
from hrn.errors import HRNError
from hrn.evaluation.figures.compare import compare, comparisons_of
from hrn.evaluation.figures.curves import curve
from hrn.evaluation.figures.spectrum import spectrum
from hrn.evaluation.figures.tradeoff import tradeoff
from hrn.evaluation.tables import results_table
from hrn.files import write_text
from hrn.inference.upscale import load_model
from hrn.model import config_from_dict, preset_of
from hrn.model.config import PRESETS, SCALES, Config
from hrn.model.summary import presets_table, summarise
from hrn.pretrained import read_manifest
from tools import draw_demo, draw_network

FIGS = ROOT / "Figs"
TIMINGS = ROOT / "benchmarks/results/presets.md"
"""The results file with the seconds of each preset at x4."""
TIMED_SCALE = 4
MODEL_SETS = ("Set5", "Urban100")
"""Test sets in the table of models."""
SHORT_TABLE = (
    "Bicubic",
    "SAFMN",
    "CFSR",
    "RFDN",
    "IMDN",
    "SwinIR-light",
    "CARN",
    "EDSR-baseline",
    "RCAN",
    "EDSR",
    "SwinIR (DF2K)",
    "HAT",
)
"""Published methods in the table of the README."""
COMPARED_SETS = ("Urban100", "Set14", "Set5")
COMPARED_IMAGES = ("img012", "img033", "img092", "barbara", "zebra", "butterfly")
"""Images in the comparison figures."""
TRADEOFF_SCALES = (2, 3, 4)
"""Scales at which published scores come with Multi-Adds."""
TABLE = re.compile(r"(<!-- from (?P<source>[^>]+) -->\n)(?P<table>.*?)(<!-- end -->)", re.DOTALL)
LOG = re.compile(r"(?P<name>.+)_stage(?P<stage>\d+)\.jsonl")


def pages() -> list[Path]:
    """Return the pages with generated tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]


def fill(text: str) -> str:
    """Return a page with its tables replaced by the current ones."""

    def replace(match: re.Match) -> str:
        table = make_table(match["source"])
        return match[0] if table is None else f"{match[1]}{table}\n{match[4]}"

    return TABLE.sub(replace, text)


def make_table(source: str) -> str | None:
    """Return the table of a source, see the top of this file; None if its results file does not exist."""
    if source == "models":
        return models_table()
    if match := re.fullmatch(r"results x(\d)( short)?", source):
        return results_table(int(match[1]), methods=SHORT_TABLE if match[2] else ()).strip()
    if match := re.fullmatch(r"presets x(\d)", source):
        return presets_table(int(match[1]))
    path = ROOT / source
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def models_table() -> str:
    """Return the included checkpoints as Markdown, the largest network first."""
    checkpoints = {name: config_from_dict(e["config"]) for name, e in read_manifest()["checkpoints"].items()}
    rank = {name: i for i, name in enumerate(PRESETS)}  # variants of presets come last
    order = {n: (rank.get(preset_of(c), len(rank)), len(c.scales), c.scales) for n, c in checkpoints.items()}
    columns = ("name", "scale", "parameters", "Multi-Adds", *(f"{s} PSNR-Y" for s in MODEL_SETS), "seconds")
    rows = [model_row(name, checkpoints[name]) for name in sorted(checkpoints, key=order.get)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows))


def model_row(name: str, config: Config) -> list[str]:
    """Return the cells of a checkpoint; several scales share a cell."""
    scores = read_manifest()["checkpoints"][name]["scores"]
    psnr = {t: [scores.get(t, {}).get(f"x{s}", {}).get("psnr_y") for s in config.scales] for t in MODEL_SETS}
    costs = [summarise(config, scale)[-1] for scale in config.scales]
    return [
        f"`{name}`",
        ", ".join(f"x{s}" for s in config.scales),
        f"{costs[0].parameters / 1e3:,.0f} K",
        " / ".join(f"{cost.multi_adds / 1e9:.1f}" for cost in costs) + " G",
        *("" if None in psnr[t] else " / ".join(f"{value:.2f}" for value in psnr[t]) for t in MODEL_SETS),
        preset_seconds().get(preset_of(config), "") if TIMED_SCALE in config.scales else "",
    ]


def preset_seconds() -> dict[str, str]:
    """Return the seconds of each preset in mode local, as the results file has them."""
    if not TIMINGS.is_file():
        return {}
    lines = [line for line in TIMINGS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    return {row["preset"]: row["s"] for row in cells if row["mode"] == "local"}


def fill_pages() -> None:
    """Fill the tables of all pages."""
    for page in pages():
        write_text(page, fill(page.read_text(encoding="utf-8")))
        print(f"filled {page.relative_to(ROOT)}")


def draw_all() -> None:
    """Draw every figure for which the data is available."""
    draw_network.main([])
    for name, logs in training_logs().items():
        curve(FIGS / f"curve_{name}.png", logs)
    for scale in TRADEOFF_SCALES:
        tradeoff(FIGS / f"tradeoff_x{scale}.png", scale)
    draw_spectrum()
    draw_photograph()
    try:
        draw_demo.main()
    except HRNError as error:
        print(f"Figs/demo.webp left unchanged: {error}")
    draw_comparisons()


def training_logs(folder: Path = ROOT / "checkpoint") -> dict[str, list[Path]]:
    """Return the logs of each checkpoint, NAME_stage1.jsonl and so on, in the order of the stages."""
    logs: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in folder.glob("*/*.jsonl"):
        if match := LOG.fullmatch(path.name):
            logs[match["name"]][int(match["stage"])] = path
    return {name: [path for _, path in sorted(stages.items())] for name, stages in sorted(logs.items())}


def single_scale_checkpoints(scale: int) -> list[str]:
    """Return the names of the checkpoints for this scale alone, the smallest network first."""
    found = {}
    for name, entry in read_manifest()["checkpoints"].items():
        config = config_from_dict(entry["config"])
        if config.scales == (scale,):
            found[name] = summarise(config)[-1].multi_adds
    return sorted(found, key=found.get)


def draw_spectrum() -> None:
    """Draw the share of each branch by frequency, over scikit-image's photographs."""
    lrs = [image.load(4).lr for image in photographs(4).images]
    spectrum(FIGS / "spectrum_x4.png", load_model("hrn_light_x4"), lrs, 4)


def draw_photograph() -> None:
    """Draw the README's first picture, which needs no test set."""
    hr = next(image.load(4).hr for image in photographs(4).images if image.name == "astronaut")
    methods = ["bicubic", *single_scale_checkpoints(4)]
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "astronaut.png"
        write_image(original, hr)
        compare(FIGS / "comparison.png", *comparisons_of([str(original)], [], methods, 4))


def draw_comparisons() -> None:
    """Draw images of the test sets by bicubic and every checkpoint of a scale."""
    sets = [ROOT / "dataset" / name for name in COMPARED_SETS]
    if missing := [str(path.relative_to(ROOT)) for path in sets if not path.is_dir()]:
        print(f"Figs/compare_*.webp left unchanged: missing {', '.join(missing)}")
        return
    for scale in SCALES:
        methods = ["bicubic", *single_scale_checkpoints(scale)]
        compare(FIGS / f"compare_x{scale}.webp", *comparisons_of(COMPARED_IMAGES, sets, methods, scale))


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
