"""Print what checkpoint files hold.

python -m hrn.checkpoint FILE ...
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hrn.checkpoint import as_dict, load_checkpoint, load_network
from hrn.cli import path_argument, run_cli
from hrn.errors import HRNError
from hrn.model.config import HRNConfig, config_to_dict
from hrn.pretrained import read_manifest


def describe(path: Path) -> str:
    """Summarise a checkpoint file: model, scales, size, configuration, training, scores and hash, one per line.

    Raises:
        HRNError: see :func:`load_checkpoint` and :func:`load_network`.
    """
    checkpoint = load_checkpoint(path)
    network = load_network(checkpoint)
    info, training, sha256 = checkpoint.inference_info, as_dict(checkpoint.training), checkpoint.sha256
    kind = "training state, for --resume" if training else "weights"
    if not info and not isinstance(checkpoint.config, HRNConfig):
        kind = "weights of the authors' released code"
    recipe, steps = as_dict(info.get("recipe")), info.get("steps")
    done = None if steps is None else _number(steps, ",")
    origin = as_dict(info.get("init_from")) or as_dict(info.get("grow_from"))
    means = info.get("mean_of")
    settings = {k: v for k, v in config_to_dict(checkpoint.config).items() if k not in ("network", "scales")}
    facts = {
        "kind": kind,
        "model": checkpoint.model_name,
        "scales": ", ".join(f"x{s}" for s in checkpoint.config.scales),
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
        "configuration": _pairs(settings),
        "steps": f"{done} of {_number(recipe.get('max_steps'), ',')}" if done and recipe else done,
        "trained on": info.get("train_data"),
        "started from": _file(origin) if origin else None,
        "mean of": ", ".join(_file(as_dict(source)) for source in means) if isinstance(means, list) else None,
        "recipe": _pairs({k: v for k, v in recipe.items() if not str(k).endswith("_interval") and k != "max_steps"}),
        "validation": _validation(info, as_dict(info.get("validation"))),
        "best so far": _validation(info, as_dict(training.get("best"))),
        "scores": _scores(sha256),
        "versions": _pairs(as_dict(info.get("versions"))),
        "sha256": sha256,
    }
    shown = {name: printable(str(value)) for name, value in facts.items() if value is not None}
    return "\n".join([str(path), *(f"  {name:<14}{text}" for name, text in shown.items() if text)])


def printable(text: str) -> str:
    """Escape control characters, which could change what the terminal shows."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _file(source: Mapping[str, Any]) -> str:
    """Format the name and the hash of a checkpoint that another one was made from."""
    return f"{source.get('file')} (sha256 {str(source.get('sha256'))[:12]}...)"


def _validation(info: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Format validation scores, and the step of the weights that have them."""
    if not best:
        return ""
    sets = info.get("valid_data")
    names = ", ".join(map(str, sets)) if isinstance(sets, list) else "?"
    at = f", at step {_number(best['step'], ',')}" if "step" in best else ""
    return f"PSNR-Y {_number(best.get('psnr_y'), '.3f')} dB, SSIM-Y {_number(best.get('ssim_y'), '.4f')} on {names}{at}"


def _scores(sha256: str) -> str:
    """Format the scores that the manifest lists for the file with this hash."""
    entry = next((e for e in read_manifest()["checkpoints"].values() if e["sha256"] == sha256), {"scores": {}})
    return ", ".join(
        f"{name} {scale} {mean['psnr_y']:.2f} dB / {mean['ssim_y']:.4f}"
        for name, by_scale in entry["scores"].items()
        for scale, mean in by_scale.items()
    )


def _number(value: Any, spec: str) -> str:
    return format(value, spec) if isinstance(value, int | float) else "?"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=path_argument, nargs="+", help="checkpoint or training state")
    args = parser.parse_args(argv)
    failed = False
    for path in args.file:
        try:
            print(describe(path))
        except HRNError as error:
            failed = True
            print(f"error: {printable(str(error))}", file=sys.stderr)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
