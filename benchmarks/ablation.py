"""Measure what each part of the network is worth: train variants of hrn_light x4 for the same steps at equal Multi-Adds.

    python benchmarks/ablation.py --train_data_path dataset/train_x4.h5 --valid_data_path dataset/valid.h5 \\
        --test_data_dir dataset/B100 --table benchmarks/results/ablation.md --figure Figs/ablation.png
    python benchmarks/ablation.py ... --variants dem-4 gates-add --steps 4000

Every variant is trained by `hrn/train.py --model hrn_light --set ...` with each seed. Runs are kept under --work and their
outcomes in --results: calling the command again resumes interrupted runs and skips those that are finished. After each seed
the table (--table) and the figure (--figure) are written with the seeds finished so far. Each row is compared with the full
network.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.runs import SCALE, Outcome, Run, add_flags, finish, write_results
from hrn.cli import run_cli
from hrn.data.benchmark import find_test_set
from hrn.model import HRNConfig, preset
from hrn.model.config import with_settings
from hrn.model.summary import summarise

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
"""Values of `--set`. If a part changes the Multi-Adds, the channels make them equal within 2%; if no whole number of channels
does, the expansion is adjusted too."""
VALIDATION = "validation"
BATCH = 8
RECIPE = (
    f"--patch_size 32 --batch_size {BATCH} --optimizer muon --lr 5e-3 --schedule cosine --warmup 100 --ema 0.99 "
    "--precision bf16 --compile"
)


def config_of(variant: str) -> HRNConfig:
    """Return the configuration of a variant."""
    return with_settings(preset("hrn_light", [SCALE]), VARIANTS[variant].split())


def run_of(variant: str, seed: int, steps: int) -> Run:
    """Return the run of a variant."""
    settings = f" --set {VARIANTS[variant]}" if VARIANTS[variant] else ""
    return Run(variant, f"--model hrn_light {RECIPE}{settings}", seed, steps)


def psnr_of(outcomes: Sequence[Outcome], name: str) -> list[float]:
    """PSNR-Y of each seed on a test set, or on the validation images at the end of the training."""
    return [o.validations[-1]["psnr_y"] if name == VALIDATION else o.psnr[name] for o in outcomes]


def difference(values: Sequence[float], reference: Sequence[float]) -> tuple[float, float | None]:
    """Mean difference to the reference and its standard error, None for one seed.

    Both have one value for each seed. They are compared seed by seed, because a seed gives all variants the same patches.
    """
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
    return statistics.mean(differences), error


def pooled_error(results: dict[str, list[Outcome]], name: str) -> float | None:
    """Root mean square of the variants' standard errors, None for one seed. More reliable than that of a single variant."""
    full = psnr_of(results[FULL], name)
    errors = [difference(psnr_of(outcomes, name), full)[1] for v, outcomes in results.items() if v != FULL]
    known = [error**2 for error in errors if error is not None]
    return statistics.mean(known) ** 0.5 if known else None


def table(results: dict[str, list[Outcome]], names: Sequence[str]) -> str:
    """Return a Markdown table: one row per variant, with PSNR-Y and the difference to the full network on each test set.

    With several seeds and variants, a line with the pooled standard error follows.
    """
    seeds = ("seeds " if len(results[FULL]) > 1 else "seed ") + ", ".join(str(o.seed) for o in results[FULL])
    head = ["variant", "`--set`", "parameters", "Multi-Adds", "s per step", "steps"]
    head += [cell for name in names for cell in (f"{name} PSNR-Y, {seeds}", "difference")]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for variant, outcomes in results.items():
        total = summarise(config_of(variant))[-1]
        seconds = BATCH / statistics.median(outcome.images_per_second for outcome in outcomes)
        cells = [variant, f"`{VARIANTS[variant]}`" if VARIANTS[variant] else "", f"{total.parameters:,}"]
        cells += [f"{total.multi_adds / 1e9:.2f} G", f"{seconds:.3f}", f"{outcomes[0].steps:,}"]
        for name in names:
            values = psnr_of(outcomes, name)
            mean, error = difference(values, psnr_of(results[FULL], name))
            cells.append(f"{statistics.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})")
            cells.append("" if variant == FULL else f"{mean:+.3f}" + (f" ± {error:.3f}" if error is not None else ""))
        rows.append(f"| {' | '.join(cells)} |")
    pooled = {name: pooled_error(results, name) for name in names}
    note = ", ".join(f"{error:.3f} dB ({name})" for name, error in pooled.items() if error is not None)
    if note and len(results) > 2:  # several variants besides the full network
        rows += ["", f"Standard error of a difference, pooled over the variants: {note}."]
    return "\n".join(rows) + "\n"


def draw(path: Path, results: dict[str, list[Outcome]], names: Sequence[str]) -> None:
    """Draw the differences to the full network with their standard errors, one panel per test set."""
    from hrn.evaluation.figures.canvas import OTHERS, OURS, plt, save

    variants = [variant for variant in results if variant != FULL]
    size = (1.5 + 3.2 * len(names), 1.2 + 0.28 * len(variants))
    figure, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        for row, variant in enumerate(variants):
            mean, error = difference(psnr_of(results[variant], name), psnr_of(results[FULL], name))
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
    add_flags(parser, steps=2000, seeds=(0, 1, 2), work=Path("sample/ablation"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    test_sets = [find_test_set(path, SCALE) for path in args.test_data_dir]
    names = [VALIDATION, *(test_set.name for test_set in test_sets)]
    results: dict[str, list[Outcome]] = {variant: [] for variant in VARIANTS if variant in (FULL, *args.variants)}
    for seed in args.seeds:
        runs = [run_of(variant, seed, args.steps) for variant in results]
        outcomes = finish(runs, args, validations=1, test_sets=test_sets)
        for variant, outcome in zip(results, outcomes, strict=True):
            results[variant].append(outcome)
        write_results(args, table(results, names), lambda path: draw(path, results, names))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
