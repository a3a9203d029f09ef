"""Compare training recipes: optimizers at several learning rates, or a grown network against one from scratch.

    python benchmarks/recipes.py optimizers --train_data_path dataset/train_x4.h5 --valid_data_path dataset/valid.h5
    python benchmarks/recipes.py growth --train_data_path ... --valid_data_path ... --steps 6000

Every variant is trained by `hrn/train.py` with each seed. Runs are kept under --work and their outcomes in --results:
calling the command again resumes interrupted runs and skips those that are finished. Writes a table (--table) and
curves (--figure) of validation PSNR-Y, averaged over the seeds.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from benchmarks.runs import Outcome, Run, add_flags, finish, write_results
from hrn.cli import run_cli

LIGHT = "--model hrn_light --optimizer"
VARIANTS = {
    "optimizers": {
        "Adam 7.5e-4": f"{LIGHT} adam --lr 7.5e-4",
        "Adam 1.5e-3": f"{LIGHT} adam --lr 1.5e-3",
        "Adam 3e-3": f"{LIGHT} adam --lr 3e-3",
        "Muon 2.5e-3": f"{LIGHT} muon --lr 2.5e-3",
        "Muon 5e-3": f"{LIGHT} muon --lr 5e-3",
        "Muon 1e-2": f"{LIGHT} muon --lr 1e-2",
        "Muon 2e-2": f"{LIGHT} muon --lr 2e-2",
        "Muon 1e-2, weight decay 0.01": f"{LIGHT} muon --lr 1e-2 --weight_decay 0.01",
        "Muon 1e-2, Adam part at 0.2 times the rate": f"{LIGHT} muon --lr 1e-2 --adam_lr_ratio 0.2",
    },
    "growth": {
        "hrn_base from scratch": "--model hrn_base --optimizer muon --lr 5e-3",
        "hrn_base grown from hrn_light_x4": "--model hrn_base --optimizer muon --lr 5e-3 --grow_from hrn_light_x4",
    },
}
BATCH = 16
COMMON = (
    f"--patch_size 32 --batch_size {BATCH} --schedule cosine --warmup 100 --ema 0.995 "
    "--precision bf16 --compile --channels_last"
)
VALIDATIONS = 6
"""Number of validations of a run."""


def runs_of(comparison: str, seeds: Sequence[int], steps: int) -> dict[str, list[Run]]:
    """Return the runs of each recipe, one per seed."""
    return {
        recipe: [Run(recipe, f"{flags} {COMMON}", seed, steps) for seed in seeds]
        for recipe, flags in VARIANTS[comparison].items()
    }


def table(results: dict[str, list[Outcome]]) -> str:
    """Return a Markdown table: one row per recipe, PSNR-Y at thirds of the run and the spread of the seeds at its end."""
    steps = [int(validation["step"]) for validation in next(iter(results.values()))[0].validations]
    shown = [len(steps) // 3 - 1, 2 * len(steps) // 3 - 1]
    head = ["recipe", *(f"step {steps[i]:,}" for i in shown), f"step {steps[-1]:,}", "SSIM-Y", "seeds", "s per step"]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for recipe, outcomes in results.items():
        runs = [outcome.validations for outcome in outcomes]
        ends = [run[-1]["psnr_y"] for run in runs]
        seconds = BATCH / statistics.median(outcome.images_per_second for outcome in outcomes)
        cells = [recipe, *(f"{statistics.mean(run[i]['psnr_y'] for run in runs):.3f}" for i in shown)]
        cells += [f"{statistics.mean(ends):.3f} dB", f"{statistics.mean(run[-1]['ssim_y'] for run in runs):.4f}"]
        cells += [", ".join(f"{end:.3f}" for end in ends), f"{seconds:.3f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def draw(path: Path, results: dict[str, list[Outcome]]) -> None:
    """Draw validation PSNR-Y over the steps, the mean of the seeds."""
    from hrn.evaluation.figures.canvas import plt, save

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for recipe, outcomes in results.items():
        points = zip(*(outcome.validations for outcome in outcomes), strict=True)
        means = [(lines[0]["step"], statistics.mean(line["psnr_y"] for line in lines)) for lines in points]
        axis.plot(*zip(*means, strict=True), label=recipe, linewidth=1.2)
    axis.set(xlabel="step", ylabel="validation PSNR-Y, dB")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save(figure, path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=VARIANTS)
    add_flags(parser, steps=1500, seeds=(0, 1), work=Path("sample/recipes"))
    args = parser.parse_args(argv)
    runs = runs_of(args.comparison, args.seeds, args.steps)
    outcomes = iter(finish([run for group in runs.values() for run in group], args, validations=VALIDATIONS))
    results = {recipe: [next(outcomes) for _ in group] for recipe, group in runs.items()}
    write_results(args, table(results), lambda path: draw(path, results))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
