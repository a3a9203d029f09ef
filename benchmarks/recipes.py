"""Compare training recipes: optimizers at several learning rates, or a grown network against one from scratch.

    python benchmarks/recipes.py optimizers --train_data_path dataset/train_x4.h5 --valid_data_path dataset/valid.h5
    python benchmarks/recipes.py growth --train_data_path ... --valid_data_path ... --steps 6000

Every variant is trained by `hrn/train.py` with each seed. Runs are kept under --work: calling the command again resumes
the one that was interrupted and skips those that are finished. Writes a table (--table) and curves (--figure) of
validation PSNR-Y, averaged over the seeds.
"""

import argparse
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from hrn.cli import run_cli
from hrn.errors import HRNError
from hrn.files import write_text
from hrn.training.run_files import read_log

Line = dict[str, float]
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
COMMON = (
    "--scale 4 --patch_size 32 --batch_size 16 --schedule cosine --warmup 100 --ema 0.995 --precision bf16 --compile "
    "--channels_last"
)


@dataclass(frozen=True)
class Run:
    """One variant with one seed."""

    variant: str
    flags: str
    seed: int
    folder: Path

    def finish(self, args: argparse.Namespace) -> list[Line]:
        """Train to the end unless that is done, and return the validated lines of the log.

        Raises:
            HRNError: `hrn/train.py` failed.
        """
        log = self.folder / "run_x4.jsonl"
        if not log.is_file() or not (lines := read_log(log)) or lines[-1]["step"] < args.steps:
            interval = max(1, args.steps // 6)
            command = [
                *(sys.executable, str(ROOT / "hrn/train.py"), *self.flags.split(), *COMMON.split()),
                *("--ckpt_name", "run", "--ckpt_dir", str(self.folder), "--seed", str(self.seed)),
                *("--train_data_path", str(args.train_data_path), "--valid_data_path", str(args.valid_data_path)),
                *("--max_steps", str(args.steps), "--print_interval", str(interval)),
                *("--valid_interval", str(interval), "--save_interval", str(interval)),
                *(["--resume"] if list(self.folder.glob("*.train.pth")) else []),
            ]
            if subprocess.run(command, check=False).returncode:
                raise HRNError(f"{self.variant}, seed {self.seed}: training failed; its output is above")
        return [line for line in read_log(log) if "psnr_y" in line]


def table(results: dict[str, list[list[Line]]], batch_size: int = 16) -> str:
    """A Markdown table: one row a variant, PSNR-Y at thirds of the run and the spread of the seeds at its end."""
    steps = [int(line["step"]) for line in next(iter(results.values()))[0]]
    shown = [len(steps) // 3 - 1, 2 * len(steps) // 3 - 1]
    head = ["recipe", *(f"step {steps[i]:,}" for i in shown), f"step {steps[-1]:,}", "SSIM-Y", "seeds", "s a step"]
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for variant, runs in results.items():
        ends = [run[-1]["psnr_y"] for run in runs]
        seconds = statistics.median(batch_size / line["images_per_second"] for run in runs for line in run[1:])
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
    parser.add_argument("--train_data_path", type=Path, required=True)
    parser.add_argument("--valid_data_path", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="steps of every run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="(default: 0 1)")
    parser.add_argument("--work", type=Path, default=Path("sample/recipes"), help="folder of the runs")
    parser.add_argument("--table", type=Path, help="Markdown file for the table")
    parser.add_argument("--figure", type=Path, help="PNG, PDF or SVG for the curves")
    args = parser.parse_args(argv)
    results: dict[str, list[list[Line]]] = {}
    for number, (variant, flags) in enumerate(VARIANTS[args.comparison].items()):
        folder = args.work / args.comparison / f"{number}_steps{args.steps}"
        runs = [Run(variant, flags, seed, folder / f"seed{seed}") for seed in args.seeds]
        results[variant] = [run.finish(args) for run in runs]
    text = table(results)
    print(text)
    if args.table:
        write_text(args.table, text)
    if args.figure:
        draw(args.figure, results)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
