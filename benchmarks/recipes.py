"""Compare training recipes: optimizers at several learning rates, or a grown network against one from scratch.

    python benchmarks/recipes.py optimizers --train_data_path dataset/train_x4.h5 --valid_data_path dataset/valid.h5
    python benchmarks/recipes.py growth --train_data_path ... --valid_data_path ... --steps 6000

Every variant is trained by `hrn/train.py` with each seed. Runs are kept under --work: calling the command again resumes
the one that was interrupted and skips those that are finished. Writes a table (--table) and curves (--figure) of
validation PSNR-Y, averaged over the seeds.
"""

import argparse
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(ROOT)]

from benchmarks.runs import Line, Run, add_flags, seconds_per_step, write_results
from hrn.cli import run_cli

LIGHT = "--model hrn_light --optimizer"
VARIANTS = {
    "optimizers": {
        "Adam 1.5e-3": f"{LIGHT} adam --lr 1.5e-3",
        "Adam 3e-3": f"{LIGHT} adam --lr 3e-3",
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
COMMON = "--patch_size 32 --batch_size 16 --schedule cosine --warmup 100 --ema 0.995 --precision bf16 --compile --channels_last"
VALIDATIONS = 6
"""Number of validations of a run."""


def folder_of(flags: str, steps: int, work: Path) -> Path:
    """The folder of a variant's runs. It depends on the settings, so that runs of other settings are not taken for them."""
    return work / f"steps{steps}" / re.sub(r"\W*--|\s", "_", f"{flags} {COMMON}").strip("_")


def table(results: dict[str, list[list[Line]]], batch_size: int = 16) -> str:
    """A Markdown table: one row per variant, PSNR-Y at thirds of the run and the spread of the seeds at its end."""
    steps = [int(line["step"]) for line in next(iter(results.values()))[0]]
    shown = [len(steps) // 3 - 1, 2 * len(steps) // 3 - 1]
    head = ["recipe", *(f"step {steps[i]:,}" for i in shown), f"step {steps[-1]:,}", "SSIM-Y", "seeds", "s per step"]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for variant, runs in results.items():
        ends = [run[-1]["psnr_y"] for run in runs]
        seconds = seconds_per_step(runs, batch_size)
        cells = [variant, *(f"{statistics.mean(run[i]['psnr_y'] for run in runs):.3f}" for i in shown)]
        cells += [f"{statistics.mean(ends):.3f} dB", f"{statistics.mean(run[-1]['ssim_y'] for run in runs):.4f}"]
        cells += [", ".join(f"{end:.3f}" for end in ends), f"{seconds:.3f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def draw(path: Path, results: dict[str, list[list[Line]]]) -> None:
    """Draw validation PSNR-Y over the steps, the mean of the seeds."""
    from hrn.evaluation.figures.canvas import plt, save

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for variant, runs in results.items():
        means = [statistics.mean(line["psnr_y"] for line in lines) for lines in zip(*runs, strict=True)]
        axis.plot([line["step"] for line in runs[0]], means, label=variant, linewidth=1.2)
    axis.set(xlabel="step", ylabel="validation PSNR-Y, dB")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save(figure, path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", choices=VARIANTS)
    add_flags(parser, steps=1500, seeds=(0, 1), work=Path("sample/recipes"))
    args = parser.parse_args(argv)
    results: dict[str, list[list[Line]]] = {}
    for variant, flags in VARIANTS[args.comparison].items():
        folder = folder_of(flags, args.steps, args.work)
        words = f"{flags} {COMMON}".split()
        runs = [Run(variant, words, seed, folder / f"seed{seed}") for seed in args.seeds]
        logs = [run.finish(args, lines=VALIDATIONS, validations=VALIDATIONS) for run in runs]
        results[variant] = [[line for line in log if "psnr_y" in line] for log in logs]
    write_results(args, table(results), lambda path: draw(path, results))
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
