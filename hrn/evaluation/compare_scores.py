"""Print results of `hrn/sample.py` in one table, with differences from the first row.

python -m hrn.evaluation.compare_scores sample/hrn_light_x4 sample/mine_x4
python -m hrn.evaluation.compare_scores single=sample/hrn_light_x2 single=sample/hrn_light_x4 multi=sample/hrn_light_x2x3x4
"""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from hrn.cli import run_cli, split_label
from hrn.data.benchmark import STANDARD_SETS
from hrn.errors import HRNError
from hrn.evaluation.score_files import SetScores, index_scores, read_scores

Scores = Mapping[tuple[int, str], SetScores]
"""Maps (scale, test set) to scores."""


def comparison_table(rows: Mapping[str, Scores]) -> str:
    """Return a Markdown table of PSNR-Y / SSIM-Y, with a row per label and scale.

    The difference of PSNR-Y from the first row of the same scale follows in brackets, if both were scored by the same protocol.
    """
    known = {name for scores in rows.values() for _, name in scores}
    sets = [*(name for name in STANDARD_SETS if name in known), *sorted(known - set(STANDARD_SETS))]
    lines = ["| PSNR-Y / SSIM-Y | scale | " + " | ".join(sets) + " |", "|---" * (len(sets) + 2) + "|"]
    for scale in sorted({scale for scores in rows.values() for scale, _ in scores}):
        first: dict[str, SetScores] = {}
        for label, scores in rows.items():
            here = {name: found for (s, name), found in scores.items() if s == scale}
            if here:
                cells = [_cell(here.get(name), first.get(name)) for name in sets]
                lines.append(f"| {label} | x{scale} | {' | '.join(cells)} |")
                first = here | first
    return "\n".join(lines)


def _cell(here: SetScores | None, first: SetScores | None) -> str:
    if here is None:
        return ""
    scores = f"{here.psnr_y:.2f} / {here.ssim_y:.4f}"
    if not first:
        return scores
    if here.header.get("protocol") != first.header.get("protocol"):
        return f"{scores} (other protocol)"
    gain = here.psnr_y - first.psnr_y
    return scores if math.isnan(gain) else f"{scores} ({gain:+.2f})"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", nargs="+", metavar="FOLDER", help="output of hrn/sample.py; LABEL=FOLDER names its row"
    )
    rows: dict[str, list[SetScores]] = {}
    for text in parser.parse_args(argv).folders:
        label, folder = split_label(text)
        found = read_scores(Path(folder))
        if not found:
            raise HRNError(
                f"{folder}: no scores.json; pass an output folder of hrn/sample.py, such as sample/hrn_light_x4"
            )
        rows.setdefault(label or Path(folder).resolve().name, []).extend(found)
    print(comparison_table({label: index_scores(found) for label, found in rows.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
