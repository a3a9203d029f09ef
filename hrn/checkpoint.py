"""Checkpoint files: ours, which rebuild their own network, and the authors' bare state dicts.

    python -m hrn.checkpoint FILE ...     what a file is

A checkpoint is a dict of plain types and tensors, so that `torch.load(weights_only=True)` takes it and nothing in it can run:
`format`, `config`, `weights`, `info` (what it was trained on, steps, scores). A training state adds what a resume needs.
"""

import argparse
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hrn.cli import run_cli
from hrn.errors import HRNError
from hrn.files import atomic_write, file_hash
from hrn.model import Config, HRNConfig, ReleasedConfig, build_model, config_from_dict, config_to_dict, preset_of

FORMAT = "hrn-checkpoint-1"


@dataclass(frozen=True)
class Checkpoint:
    """A file's contents, read and checked."""

    path: Path
    config: Config
    weights: Mapping[str, Tensor]
    info: Mapping[str, Any]
    training: Mapping[str, Any] | None = None
    """Optimizer, step and the rest, where the file is a training state."""

    @property
    def model_name(self) -> str:
        return preset_of(self.config) or "hrn (own configuration)"


def save_checkpoint(
    path: str | Path,
    config: Config,
    weights: Mapping[str, Tensor],
    *,
    info: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint beside `path`, sync it and rename it: `path` holds the old or the new one, never half of one.

    Raises:
        HRNError: it cannot be written; an earlier file at `path` is then intact.
    """
    contents: dict[str, Any] = {
        "format": FORMAT,
        "config": config_to_dict(config),
        "weights": {name: value.detach().cpu().contiguous() for name, value in weights.items()},
        "info": dict(info),
    }
    if training is not None:
        contents["training"] = dict(training)
    buffer = io.BytesIO()  # torch's own writer does not tell a full disk from other troubles
    torch.save(contents, buffer)
    with atomic_write(path) as beside, buffer.getbuffer() as written:
        beside.write_bytes(written)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint or the authors' state dict, without running anything that is in it.

    Raises:
        HRNError: no such file, damaged, a pickle that is not plain data, or not a checkpoint of HRN.
    """
    path = Path(path)
    if not path.is_file():
        raise HRNError(f"no such checkpoint: {path}")
    try:
        contents = (
            _load_safetensors(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except ImportError:
        raise HRNError(f"{path}: reading it needs safetensors: pip install safetensors") from None
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ... on damaged files
        if re.search("Unsupported (global|class)|GLOBAL", str(error)):
            raise HRNError(
                f"{path}: refused, because it holds more than plain data and loading it could run code"
            ) from None
        raise HRNError(f"{path}: damaged or not a PyTorch checkpoint ({type(error).__name__})") from None
    if isinstance(contents, dict) and contents.get("format") == FORMAT:
        try:
            config = config_from_dict(contents["config"])
            weights, info, training = contents["weights"], contents["info"], contents.get("training")
            if not isinstance(weights, dict) or not isinstance(info, dict) or not isinstance(training, dict | None):
                raise ValueError("weights, info or training is not a dict")
            if not all(isinstance(k, str) and _is_plain(v) for k, v in weights.items()):
                raise ValueError("weights are not named tensors")
        except (KeyError, TypeError, ValueError) as error:
            raise HRNError(f"{path}: a checkpoint that this version cannot use ({error})") from None
        return Checkpoint(path, config, weights, info, training)
    weights = _bare_state_dict(contents)
    if weights is None:
        raise HRNError(f"{path}: not a checkpoint of HRN (no format {FORMAT!r}, and not the authors' state dict)")
    return Checkpoint(path, _released_config(path, weights), weights, {})


def load_network(checkpoint: Checkpoint, *, model: str | None = None, scale: int | None = None) -> nn.Module:
    """Build the checkpoint's network with its weights, in eval mode and channels_last memory.

    Args:
        checkpoint: as read by :func:`load_checkpoint`.
        model, scale: what the user asked for; None accepts what the file holds.

    Raises:
        HRNError: the file holds another model or scale, or weights that do not fit its own configuration.
    """
    if model is not None and model != preset_of(checkpoint.config):
        raise HRNError(
            f"{checkpoint.path}: holds {checkpoint.model_name}, not {model}" + _first_difference(checkpoint, model)
        )
    if scale is not None and scale not in checkpoint.config.scales:
        raise HRNError(
            f"{checkpoint.path}: is for {', '.join(f'x{s}' for s in checkpoint.config.scales)}, not x{scale}"
        )
    if difference := _misfit(checkpoint):
        raise HRNError(f"{checkpoint.path}: weights do not fit its configuration: {difference}")
    with torch.random.fork_rng(devices=[]):
        network = build_model(checkpoint.config)
    network.load_state_dict(checkpoint.weights)
    # the order of memory that convolutions are quickest in; float32 on a CPU gains 1.7 times (benchmarks/inference.py)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def initialise_from(network: nn.Module, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Take over the weights that fit a network of perhaps another scale or size.

    Returns:
        The names of the network's weights that the file did not have, and of the file's that the network has no use for.

    Raises:
        HRNError: nothing fits.
    """
    own = network.state_dict()
    fitting = {k: v for k, v in checkpoint.weights.items() if k in own and own[k].shape == v.shape}
    if not any(name in fitting for name, _ in network.named_parameters()):
        raise HRNError(f"{checkpoint.path}: none of its weights fit: {differing_keys(own, checkpoint.weights)}")
    network.load_state_dict(fitting, strict=False)
    return [k for k in own if k not in fitting], [k for k in checkpoint.weights if k not in fitting]


def differing_keys(wanted: Mapping[str, Any], found: Mapping[str, Any], most: int = 3) -> str:
    """The first differences in names and shapes of two state dicts, in words; empty where there are none."""
    parts = []
    for label, names in (
        ("missing", [k for k in wanted if k not in found]),
        ("unknown", [k for k in found if k not in wanted]),
    ):
        if names:
            parts.append(
                f"{label} {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")
            )
    shapes = [k for k in wanted if k in found and getattr(found[k], "shape", None) != wanted[k].shape]
    for name in shapes[:most]:
        parts.append(
            f"{name} is {tuple(getattr(found[name], 'shape', ()))} where {tuple(wanted[name].shape)} is needed"
        )
    return "; ".join(parts)


def _misfit(checkpoint: Checkpoint) -> str:
    """In what the weights are not those of the configuration, in words; found without making a network of its size."""
    config, weights = checkpoint.config, checkpoint.weights
    storages = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in weights.values()}
    held = sum(storages.values())  # bytes; a tensor can claim to be larger than what it is a view of
    few = sum(w.nbytes for w in weights.values()) > held
    if isinstance(config, HRNConfig):  # sizes without a bound, and some of the tensors that each of them makes
        few |= config.n_dem * config.n_wrab > len(weights) or config.channels**2 * config.expansion > held
    if few:
        return f"{len(weights)} tensors of {held:,} bytes in all are too few"
    return differing_keys(_shapes(config), weights)


def _shapes(config: Config) -> dict[str, Tensor]:
    """A state dict of a configuration that has names and shapes only."""
    with torch.device("meta"):
        return build_model(config).state_dict()


def _first_difference(checkpoint: Checkpoint, model: str) -> str:
    from hrn.model import preset

    try:
        wanted = _shapes(preset(model, checkpoint.config.scales))
    except ValueError as error:
        return f" ({error})"
    return f"; for {model}: {differing_keys(wanted, checkpoint.weights)}"


def _load_safetensors(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint from the file that `python -m hrn.inference.export` writes."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {
        "format": header.get("format"),
        "config": json.loads(header.get("config", "null")),
        "weights": weights,
        "info": json.loads(header.get("info", "{}")),
    }


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor that holds its values, in a row."""
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided


def _bare_state_dict(contents: Any) -> dict[str, Tensor] | None:
    """The authors' state dict, perhaps of a DataParallel model; None where `contents` is something else."""
    if not isinstance(contents, dict) or not contents or not all(_is_plain(v) for v in contents.values()):
        return None
    weights = {str(name).removeprefix("module."): value for name, value in contents.items()}
    return weights if "b1.body.0.body.3.conv_1x1.weight" in weights and "tail.0.0.weight" in weights else None


def _released_config(path: Path, weights: Mapping[str, Tensor]) -> ReleasedConfig:
    """The scale shows in the tail's shapes."""
    doublings = sum(f"tail.0.{i}.weight" in weights for i in (0, 2, 4))
    scale = 3 if weights["tail.0.0.weight"].shape[:1] == (576,) else 2**doublings
    config = replace(ReleasedConfig(), scales=(scale,))
    if difference := differing_keys(_shapes(config), weights):
        raise HRNError(f"{path}: looks like the authors' network at x{scale}, but {difference}")
    return config


def describe(path: Path) -> str:
    """What a checkpoint file is, for people: model, scales, size, configuration, training, scores, hash.

    Raises:
        HRNError: see :func:`load_checkpoint` and :func:`load_network`.
    """
    checkpoint = load_checkpoint(path)
    network = load_network(checkpoint)
    info, training, sha256 = checkpoint.info, _dict(checkpoint.training), file_hash(path)
    kind = (
        "training state, for --resume" if training else "weights" if info else "weights of the authors' released code"
    )
    recipe = _dict(info.get("recipe") or training.get("recipe"))
    steps = training.get("step", info.get("steps"))
    done = None if steps is None else _number(steps, ",")
    origin = _dict(info.get("init_from"))
    settings = {k: v for k, v in config_to_dict(checkpoint.config).items() if k not in ("network", "scales")}
    facts = {
        "what": kind,
        "model": checkpoint.model_name,
        "scales": ", ".join(f"x{s}" for s in checkpoint.config.scales),
        "parameters": f"{sum(p.numel() for p in network.parameters()):,}",
        "configuration": _listed(settings),
        "steps": f"{done} of {_number(recipe.get('max_steps'), ',')}" if done and recipe else done,
        "trained on": info.get("train_data"),
        "started from": f"{origin.get('file')} (sha256 {str(origin.get('sha256'))[:12]}...)" if origin else None,
        "recipe": _listed({k: v for k, v in recipe.items() if not str(k).endswith("_interval") and k != "max_steps"}),
        "validation": _validation(info, _dict(info.get("validation") or training.get("best"))),
        "scores": _scores(sha256),
        "made with": _listed(_dict(info.get("versions"))),
        "sha256": sha256,
    }
    return "\n".join([str(path), *(f"  {name:<14}{value}" for name, value in facts.items() if value)])


def _validation(info: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    if not best:
        return ""
    sets = info.get("valid_data")
    names = ", ".join(map(str, sets)) if isinstance(sets, list) else "?"
    return f"PSNR-Y {_number(best.get('psnr_y'), '.3f')} dB, SSIM-Y {_number(best.get('ssim_y'), '.4f')} on {names}"


def _scores(sha256: str) -> str:
    """What the manifest says that the file of this hash scores."""
    from hrn.pretrained import read_manifest  # which needs this module

    entry = next((e for e in read_manifest()["checkpoints"].values() if e["sha256"] == sha256), {"scores": {}})
    return ", ".join(
        f"{name} {scale} {mean['psnr_y']:.2f} dB / {mean['ssim_y']:.4f}"
        for name, by_scale in entry["scores"].items()
        for scale, mean in by_scale.items()
    )


def _dict(value: Any) -> Mapping[str, Any]:
    """The value, or an empty dict where it is none: files may hold anything."""
    return value if isinstance(value, dict) else {}


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "?"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Say what checkpoint files are.")
    parser.add_argument("file", type=Path, nargs="+")
    args = parser.parse_args(argv)
    broken = 0
    for path in args.file:
        try:
            print(describe(path))
        except HRNError as error:
            broken += 1
            print(f"error: {error}", file=sys.stderr)
    return 2 if broken else 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
