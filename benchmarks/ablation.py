"""Measure what each part of the network is worth: train variants of hrn_light x4 for the same steps at equal Multi-Adds.

    python benchmarks/ablation.py --train_data_path dataset/train_x4.h5 --valid_data_path dataset/valid.h5 \\
        --test_data_dir dataset/B100 --table benchmarks/results/ablation.md --figure Figs/ablation.png
    python benchmarks/ablation.py ... --variants no-frequency no-dense --steps 12000

Every variant is trained by `hrn/train.py --model hrn_light --set ...` with each seed. Runs are kept under --work: calling the
command again resumes the one that was interrupted and skips those that are finished. After each seed the table (--table) and
the figure (--figure) are written with the seeds up to then. Each row is compared with the full network.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(ROOT)]

from benchmarks.runs import Line, Run, add_flags, seconds_per_step, write_results
from hrn.cli import run_cli
from hrn.data.benchmark import TestSet, find_test_set
from hrn.evaluation.evaluate import evaluate
from hrn.evaluation.metrics import mean_scores
from hrn.files import write_text
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model
from hrn.model import HRNConfig, preset
from hrn.model.config import with_settings
from hrn.model.summary import summarise

SCALE = 4
FULL = "full"
"""Variant that the others are compared with."""
VARIANTS = {
    FULL: "",
    "no-frequency": "frequency=none channels=29",
    "dct-width": "dct_axes=w",
    "fft": "frequency=fft channels=21",
    "no-dense": "dense=false expansion=2.08",
    "expansion-1": "expansion=1 channels=32",
    "expansion-4": "expansion=4.24 channels=17",
    "no-attention": "attention=none",
    "se": "attention=se",
    "gates-add": "gates=add",
    "no-norm": "norm=false",
    "dem-1": "n_dem=1 channels=34",
    "dem-4": "n_dem=4 channels=17",
    "no-skip": "skip=false",
}
"""Values of `--set`. If a part changes the Multi-Adds, the channels make them equal within 2 %; if no whole number of channels
does, the expansion is adjusted too."""
BATCH = 16
RECIPE = (
    f"--patch_size 32 --batch_size {BATCH} --optimizer muon --lr 5e-3 --schedule cosine --warmup 100 --ema 0.99 "
    "--precision bf16 --compile"
)
LOG_LINES = 10


def config_of(variant: str) -> HRNConfig:
    """The configuration of a variant."""
    return with_settings(preset("hrn_light", [SCALE]), VARIANTS[variant].split())


def run_of(variant: str, seed: int, steps: int, work: Path) -> Run:
    """The run of a variant. Its folder depends on the settings, so that runs of other settings are not taken for it."""
    settings = VARIANTS[variant].split()
    flags = ["--model", "hrn_light", *RECIPE.split(), *(["--set", *settings] if settings else [])]
    return Run(variant, flags, seed, work / f"steps{steps}" / ("_".join(settings) or FULL) / f"seed{seed}")


@dataclass
class Result:
    """The finished runs of a variant."""

    logs: list[Sequence[Line]] = field(default_factory=list)
    """Training log of each seed."""
    psnr: dict[str, list[float]] = field(default_factory=dict)
    """PSNR-Y of each seed, by test set."""

    def add(self, log: Sequence[Line], psnr: dict[str, float]) -> None:
        """Add the run of one seed."""
        self.logs.append(log)
        for name, value in psnr.items():
            self.psnr.setdefault(name, []).append(value)


def score_test_set(run: Run, test_set: TestSet) -> float:
    """PSNR-Y of a finished run on a test set. Stored beside the weights."""
    path = run.folder / "scores.json"
    scores = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if test_set.name not in scores:
        enlarger = Enlarger(load_model(run.weights), SCALE)
        scores[test_set.name] = mean_scores([image.scores for image in evaluate(enlarger, test_set)])["psnr_y"]
        write_text(path, json.dumps(scores))
    return scores[test_set.name]


def difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float | None]:
    """Mean difference to the reference and its standard error, None for one seed.

    Both have one value for each seed. They are compared seed by seed, because a seed gives all variants the same patches.
    """
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
    return statistics.mean(differences), error


def table(results: dict[str, Result], steps: int, seeds: Sequence[int]) -> str:
    """A Markdown table: one row per variant, with PSNR-Y and the difference to the full network on each test set."""
    names = list(results[FULL].psnr)
    head = ["variant", "`--set`", "parameters", "Multi-Adds", "s per step", "steps"]
    head += [cell for name in names for cell in (f"{name} PSNR-Y, seeds {', '.join(map(str, seeds))}", "difference")]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for variant, result in results.items():
        total = summarise(config_of(variant))[-1]
        cells = [variant, f"`{VARIANTS[variant]}`" if VARIANTS[variant] else "", f"{total.parameters:,}"]
        cells += [f"{total.multi_adds / 1e9:.2f} G", f"{seconds_per_step(result.logs, BATCH):.3f}", f"{steps:,}"]
        for name in names:
            values = result.psnr[name]
            mean, error = difference(values, results[FULL].psnr[name])
            cells.append(f"{statistics.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})")
            cells.append("" if variant == FULL else f"{mean:+.3f}" + (f" ± {error:.3f}" if error is not None else ""))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def draw(path: Path, results: dict[str, Result]) -> None:
    """Draw the differences to the full network with their standard errors, one panel per test set."""
    from hrn.evaluation.figures.canvas import OTHERS, OURS, plt, save

    full = results[FULL].psnr
    variants = [variant for variant in results if variant != FULL]
    size = (1.5 + 3.2 * len(full), 1.2 + 0.28 * len(variants))
    figure, axes = plt.subplots(1, len(full), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], full, strict=True):
        for row, variant in enumerate(variants):
            mean, error = difference(results[variant].psnr[name], full[name])
            axis.errorbar(mean, row, xerr=error, fmt="o", color=OURS, capsize=3)
        axis.axvline(0, color=OTHERS, linewidth=1)
        axis.set(xlabel="PSNR-Y minus that of the full network, dB", title=name)
        axis.grid(alpha=0.3)
    axes[0][0].set_yticks(range(len(variants)), variants)
    axes[0][0].invert_yaxis()
    save(figure, path)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "rows; the full network is always included (default: all)"
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help=text)
    text = "test sets to score the finished runs on"
    parser.add_argument("--test_data_dir", type=Path, nargs="+", default=[], metavar="DIR", help=text)
    add_flags(parser, steps=3000, seeds=(0, 1, 2), work=Path("sample/ablation"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    test_sets = [find_test_set(path, SCALE) for path in args.test_data_dir]
    results = {variant: Result() for variant in VARIANTS if variant in (FULL, *args.variants)}
    for number, seed in enumerate(args.seeds, 1):
        for variant, result in results.items():
            run = run_of(variant, seed, args.steps, args.work)
            log = run.finish(args, lines=LOG_LINES, validations=1)
            psnr = {"validation": log[-1]["psnr_y"], **{s.name: score_test_set(run, s) for s in test_sets}}
            result.add(log, psnr)
        write_results(args, table(results, args.steps, args.seeds[:number]), lambda path: draw(path, results))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
