"""PSNR-Y after a short training, from PyTorch's default initialisation and from the one in hrn.model.init.

python benchmarks/initialisation.py --train_data_path dataset/DIV2K_train.h5 --valid_data_path dataset/DIV2K_valid.h5
"""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

if not __package__:  # run as a script: import from the repository, not from this folder
    sys.path[: not sys.flags.safe_path] = [str(Path(__file__).resolve().parents[1])]

from hrn.cli import run_cli
from hrn.data.benchmark import find_test_set
from hrn.data.h5 import H5Pairs
from hrn.distributed import Processes
from hrn.memory import keep_memory
from hrn.model import PRESETS, preset
from hrn.runtime import pick_device, warm_up_kernels
from hrn.training.recipe import Recipe
from hrn.training.run_files import RunFiles
from hrn.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hrn_light", choices=PRESETS, help="network preset (default: %(default)s)")
    parser.add_argument("--scale", type=int, default=4, help="enlargement factor (default: %(default)s)")
    parser.add_argument("--train_data_path", type=Path, required=True, help="h5 file of training pairs")
    parser.add_argument("--valid_data_path", type=Path, required=True, help="test set to score")
    parser.add_argument("--steps", type=int, default=600, help="length of each run (default: %(default)s)")
    parser.add_argument("--lr", type=float, nargs="+", default=[1e-3], help="learning rates to try (default: 1e-3)")
    parser.add_argument("--patch_size", type=int, default=32, help="side of an LR patch (default: %(default)s)")
    parser.add_argument("--precision", default="fp32", help="precision of convolutions (default: %(default)s)")
    parser.add_argument(
        "--init", nargs="+", default=["default", "ours"], choices=["default", "ours"], help="default: both"
    )
    args = parser.parse_args()
    keep_memory()
    warm_up_kernels()
    print("| initialisation | learning rate | steps | PSNR-Y dB | SSIM-Y |\n|---|---|---|---|---|", flush=True)
    for name in args.init:
        for lr in args.lr:
            with tempfile.TemporaryDirectory() as folder:
                recipe = Recipe(
                    patch_size=args.patch_size, batch_size=16, max_steps=args.steps, lr=lr, schedule="cosine", warmup=args.steps // 20,
                    ema=0.99, precision=args.precision, valid_interval=args.steps, print_interval=args.steps, save_interval=args.steps,
                )  # fmt: skip
                with mock.patch("hrn.model.hrn.initialise") if name == "default" else nullcontext():
                    trainer = Trainer(
                        preset(args.model, [args.scale]), recipe, H5Pairs(args.train_data_path, (args.scale,)),
                        [find_test_set(args.valid_data_path, args.scale)], RunFiles(Path(folder), "probe"), processes=Processes(device=pick_device()),
                    )  # fmt: skip
                trainer.fit()
            print(
                f"| {name} | {lr:g} | {args.steps} | {trainer.best['psnr_y']:.3f} | {trainer.best['ssim_y']:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(run_cli(main))
