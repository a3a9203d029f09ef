"""The results tables: published methods with their sources, and this repository's checkpoints.

    python -m hrn.evaluation.tables --scale 4
    python -m hrn.evaluation.tables --scale 4 --add mine.csv sample/mine_x4

Published results are in `hrn/evaluation/published.csv`; an empty cell means that the source does not state
it, and 0 that there are none.
Results of this repository are in `checkpoint/manifest.json`.
"""

import argparse
import csv
import math
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hrn.cli import path_argument, run_cli
from hrn.data.benchmark import STANDARD_SETS
from hrn.errors import HRNError
from hrn.evaluation.metrics import PROTOCOL
from hrn.evaluation.score_files import SetScores, index_scores, read_scores
from hrn.model import SCALES, config_from_dict
from hrn.model.summary import summarise
from hrn.pretrained import CHECKPOINT_DIR, read_manifest

SETS = ("Set5", "Set14", "B100", "Urban100")
"""Test sets with a column in every table. The other standard sets have one if a method has results on them."""
PUBLISHED = Path(__file__).with_name("published.csv")
ADD_HELP = (
    "more results: CSV files with the columns of hrn/evaluation/published.csv, or output folders of hrn/sample.py"
)


@dataclass(frozen=True)
class TableRow:
    """A method at one scale: one row of a table."""

    method: str
    parameters: int
    """Number of parameters; 0 if unknown or if there are none."""
    multi_adds: float
    """Multi-Adds for a 1280x720 output in units of 10^9; infinite if unknown, 0 if there are none."""
    scores: dict[str, tuple[float, float]]
    """Maps each test set with known results to PSNR-Y in dB and SSIM-Y."""
    trained_on: str
    source: str
    """Source of a published result; empty for this repository's own."""


def published(scale: int, more: Sequence[Path] = ()) -> list[TableRow]:
    """Read the published results at one scale.

    Args:
        scale: the scale.
        more: other CSV files with the columns of PUBLISHED, or output folders of hrn/sample.py. The default source of the
            rows of a file is its name.

    Raises:
        HRNError: a file cannot be read or lacks a column, or a folder has no scores, or scores by another protocol or with
            the self-ensemble.
    """
    results = []
    for path in (PUBLISHED, *more):
        if path.is_dir():
            results += _scored(path, scale)
            continue
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                results += [_row(row, path.name) for row in csv.DictReader(file) if int(row["scale"]) == scale]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise HRNError(f"{path}: not a CSV file with the columns of {PUBLISHED.name} ({error!r})") from None
    return results


def _row(values: Mapping[str, str], source: str) -> TableRow:
    scores = {
        name: (float(values[f"{name}_psnr_y"]), float(values[f"{name}_ssim_y"]))
        for name in STANDARD_SETS
        if values.get(f"{name}_psnr_y") and values.get(f"{name}_ssim_y")
    }
    parameters, multi_adds = int(values["parameters"] or 0), float(values["multi_adds_g"] or math.inf)
    return TableRow(values["method"], parameters, multi_adds, scores, values["trained_on"], values["source"] or source)


def _scored(folder: Path, scale: int) -> list[TableRow]:
    """Return the methods that hrn/sample.py scored, named after their folders."""
    methods: dict[Path, list[SetScores]] = defaultdict(list)
    for scores in read_scores(folder):
        methods[scores.file.resolve().parents[2]].append(scores)  # METHOD/SET/x4/scores.json
    if not methods:
        raise HRNError(f"{folder}: no scores.json of hrn/sample.py")
    rows = []
    for path, found in methods.items():
        here = {name: scores for (s, name), scores in index_scores(found).items() if s == scale}
        for scores in here.values():
            if scores.header.get("protocol") != PROTOCOL.format(shave=scale):
                raise HRNError(f"{scores.file}: scored by another protocol: {scores.header.get('protocol')}")
            if scores.header.get("self_ensemble"):
                raise HRNError(f"{scores.file}: scored with --self_ensemble, unlike the other rows")
        if here:
            header = next(iter(here.values())).header
            multi_adds = header["multi_adds"] / 1e9 if "multi_adds" in header else math.inf
            means = {name: (scores.psnr_y, scores.ssim_y) for name, scores in here.items()}
            rows.append(TableRow(path.name, header.get("parameters", 0), multi_adds, means, "", f"scores in {folder}"))
    return rows


def ours(scale: int, folder: Path = CHECKPOINT_DIR) -> list[TableRow]:
    """Return the checkpoints of the manifest that have scores at one scale."""
    results = []
    for name, entry in read_manifest(folder)["checkpoints"].items():
        at_scale = {s: v[f"x{scale}"] for s, v in entry["scores"].items() if f"x{scale}" in v}
        if at_scale:
            cost = summarise(config_from_dict(entry["config"]), scale)[-1]
            scores = {s: (v["psnr_y"], v["ssim_y"]) for s, v in at_scale.items()}
            results.append(TableRow(name, cost.parameters, cost.multi_adds / 1e9, scores, entry["trained_on"], ""))
    return results


def results_table(
    scale: int, folder: Path = CHECKPOINT_DIR, more: Sequence[Path] = (), methods: Collection[str] = ()
) -> str:
    """Return published rows and ours as a Markdown table, sorted by Multi-Adds, then by PSNR-Y on Set5.

    Our rows are bold. Rows of unknown Multi-Adds come last. The sources follow the table.

    Args:
        scale: the scale.
        folder: the checkpoint folder.
        more: other results, see :func:`published`.
        methods: the published methods to include; by default all.
    """
    others = [r for r in published(scale, more) if not methods or r.method in methods]
    rows = sorted([*others, *ours(scale, folder)], key=lambda r: (r.multi_adds, r.scores.get(SETS[0], (0, 0))))
    sources = list(dict.fromkeys(r.source for r in rows if r.source))
    sets = [name for name in STANDARD_SETS if name in SETS or any(name in r.scores for r in rows)]
    lines = [
        f"| x{scale}, PSNR-Y / SSIM-Y | parameters | Multi-Adds | {' | '.join(sets)} | trained on |",
        "|---" * (len(sets) + 4) + "|",
    ]
    for r in rows:
        cells = [f"{r.scores[s][0]:.2f} / {r.scores[s][1]:.4f}" if s in r.scores else "" for s in sets]
        label = f"{r.method} [{sources.index(r.source) + 1}]" if r.source else f"**{r.method}**"
        parameters = f"{r.parameters / 1e3:,.0f} K" if r.parameters else ""
        multi_adds = f"{r.multi_adds:,.1f} G" if 0 < r.multi_adds < math.inf else ""
        lines.append(f"| {label} | {parameters} | {multi_adds} | {' | '.join(cells)} | {r.trained_on} |")
    return "\n".join([*lines, "", "; ".join(f"[{i}] {source}" for i, source in enumerate(sources, 1)) + "."])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scale", type=int, nargs="+", choices=SCALES, default=[4], help="scales to print (default: 4)"
    )
    parser.add_argument("--add", type=path_argument, nargs="+", default=[], metavar="PATH", help=ADD_HELP)
    args = parser.parse_args(argv)
    print("\n\n".join(results_table(scale, more=args.add) for scale in args.scale))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
