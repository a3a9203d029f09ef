"""Results of `hrn/sample.py` side by side, and by how much they differ from the first.

python -m hrn.evaluation.comparison sample/hrn_light_x4 sample/mine_x4
python -m hrn.evaluation.comparison single=sample/hrn_light_x2 single=sample/hrn_light_x4 multi=sample/hrn_light_x0
"""

import argparse
import sys
from pathlib import Path

from hrn.cli import run_cli
from hrn.errors import HRNError
from hrn.evaluation.score_files import read_scores
from hrn.evaluation.tables import SETS

Scores = dict[tuple[int, str], tuple[float, float]]
"""(scale, test set) to PSNR-Y in dB and SSIM-Y."""


def scores_of(folder: Path) -> Scores:
    """The means in a folder of `hrn/sample.py`. Raises HRNError where there are none, a damaged file, or two for a set."""
    scores: Scores = {}
    for found in read_scores(folder):
        if (found.scale, found.name) in scores:
            raise HRNError(f"{folder}: two results for {found.name} x{found.scale}; give the folder of one checkpoint")
        scores[found.scale, found.name] = (found.psnr_y, found.ssim_y)
    if not scores:
        raise HRNError(f"{folder}: no scores.json; give a folder that hrn/sample.py wrote, such as sample/hrn_light_x4")
    return scores


def comparison_table(results: dict[str, Scores]) -> str:
    """A Markdown table, PSNR-Y / SSIM-Y: for each scale a row of each, with its PSNR-Y less the first one's in brackets."""
    known = {name for scores in results.values() for _, name in scores}
    sets = [*(name for name in SETS if name in known), *sorted(known - set(SETS))]
    lines = ["| PSNR-Y / SSIM-Y | scale | " + " | ".join(sets) + " |", "|---" * (len(sets) + 2) + "|"]
    for scale in sorted({scale for scores in results.values() for scale, _ in scores}):
        first: Scores = {}
        for label, scores in results.items():
            if any((scale, name) in scores for name in sets):
                cells = [_cell(scores.get((scale, name)), first.get((scale, name))) for name in sets]
                lines.append(f"| {label} | x{scale} | {' | '.join(cells)} |")
                first = scores | first
    return "\n".join(lines)


def _cell(here: tuple[float, float] | None, first: tuple[float, float] | None) -> str:
    if here is None:
        return ""
    return f"{here[0]:.2f} / {here[1]:.4f}" + (f" ({here[0] - first[0]:+.2f})" if first else "")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of hrn/sample.py; LABEL=FOLDER to name a row")
    results: dict[str, Scores] = {}
    for text in parser.parse_args(argv).folders:
        label, _, folder = text.rpartition("=")
        row, scores = results.setdefault(label or Path(folder).name, {}), scores_of(Path(folder))
        for scale, name in row.keys() & scores.keys():
            raise HRNError(
                f"two results for {name} x{scale} of {label or Path(folder).name}; name them by LABEL=FOLDER"
            )
        row.update(scores)
    print(comparison_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
