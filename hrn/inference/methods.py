"""Methods that enlarge images by one scale: networks from checkpoints, or bicubic interpolation.

Without a checkpoint, the model is chosen from the manifest of included checkpoints: the most accurate one on a CUDA GPU,
the fastest one elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hrn.checkpoint import Checkpoint, load_checkpoint, load_network
from hrn.data.upscaler import Upscaler
from hrn.errors import HRNError
from hrn.inference.enlarger import Enlarger
from hrn.inference.mode import Mode
from hrn.model import config_from_dict, preset_of
from hrn.pretrained import find_checkpoint, read_manifest

MODELS = ("hrn_light", "hrn_base", "hrn")
"""Models whose checkpoints may be included, from the fastest to the most accurate."""


@dataclass(frozen=True)
class Method:
    """A way to super-resolve images by one scale."""

    label: str
    """Name in tables and of the output folder."""
    scale: int
    upscaler: Upscaler
    """An :class:`Enlarger` or a :class:`hrn.data.resize.Bicubic`."""
    settings: dict[str, Any]
    """Everything that the scores depend on, such as the checkpoint's hash, the mode and the precision."""


def name_without_scale(stem: str) -> str:
    """Return the name of a checkpoint file without the scales at its end: `mine` for `mine_x4` or `minex2x3`."""
    return re.sub(r"(_x\d|x\d)+$", "", stem) or stem


def load_checkpoints(
    names: Sequence[str | Path] | None,
    device: torch.device,
    *,
    model: str | None = None,
    scales: Sequence[float] | None = None,
    resized: bool = False,
    all_scales: bool = False,
) -> dict[int, Checkpoint]:
    """Load checkpoints and index them by the scales that they support.

    If the model is chosen by default, prints the other included models.

    Args:
        names: paths, or names in the manifest; by default included checkpoints.
        device, model, scales, resized, all_scales: see :func:`choose_included`.

    Raises:
        HRNError: a file cannot be found or read, two files support the same scale, or nothing suitable is included.
    """
    if names:
        return _load_by_scale(names)
    manifest = read_manifest(installed_only=model is None)
    chosen = choose_included(manifest, device, model=model, scales=scales, resized=resized, all_scales=all_scales)
    if not model and (alternatives := describe_alternatives(manifest, chosen)):
        print(alternatives)
    loaded = {name: _load_by_name(name) for name in dict.fromkeys(chosen.values())}
    return {scale: loaded[name] for scale, name in chosen.items()}


def _load_by_scale(names: Sequence[str | Path]) -> dict[int, Checkpoint]:
    found: dict[int, Checkpoint] = {}
    for checkpoint in map(_load_by_name, names):
        for scale in checkpoint.config.scales:
            if scale in found:
                paths = f"{found[scale].path} and {checkpoint.path}"
                raise HRNError(f"--ckpt_path: {paths} both support x{scale}; remove one of them")
            found[scale] = checkpoint
    return found


def _load_by_name(name: str | Path) -> Checkpoint:
    return load_checkpoint(find_checkpoint(name))


def network_method(
    checkpoint: Checkpoint,
    scale: int,
    device: torch.device,
    *,
    model: str | None,
    mode: Mode,
    ensemble: bool,
    precision: str,
    compile: bool,
    max_memory: int | None,
) -> Method:
    """Return a method that runs the network of a checkpoint.

    Args:
        checkpoint: the checkpoint.
        scale: one of its scales.
        device: device to run on.
        model: raise HRNError if the checkpoint holds a different model.
        mode, ensemble, precision, compile, max_memory: see :class:`hrn.inference.enlarger.Enlarger`.
    """
    network = load_network(checkpoint, model=model, scale=scale).to(device)
    enlarger = Enlarger(
        network, scale, mode, ensemble=ensemble, precision=precision, compile=compile, max_memory=max_memory
    )
    settings = {
        "checkpoint": checkpoint.path.name,
        "checkpoint_sha256": checkpoint.sha256,
        "model": checkpoint.model_name,
        "mode": str(mode),
        "self_ensemble": ensemble,
        "precision": precision,
        "compile": compile,
    }
    return Method(checkpoint.path.stem, scale, enlarger, settings)


def prefers_accuracy(device: torch.device) -> bool:
    """Return whether the most accurate model is the default on this device, instead of the fastest one."""
    return device.type == "cuda"


def choose_included(
    manifest: Mapping[str, Any],
    device: torch.device,
    *,
    model: str | None = None,
    scales: Sequence[float] | None = None,
    resized: bool = False,
    all_scales: bool = False,
) -> dict[int, str]:
    """Choose checkpoints from the manifest.

    On a CUDA GPU the most accurate model comes first, elsewhere the fastest one. The first model that has checkpoints for
    all requested scales is chosen.

    Args:
        manifest: as :func:`hrn.pretrained.read_manifest` returns it.
        device: device that will run the network.
        model: choose this model, whatever the device.
        scales: requested factors; by default x4 if the model has it, else its smallest scale.
        resized: whether results may be resized to the requested factors. All checkpoints of the first model are then
            returned if no model has all requested scales.
        all_scales: return all checkpoints of the first model, because the scale depends on the image.

    Returns:
        A dict that maps scales to checkpoint names.

    Raises:
        HRNError: no included model has the requested scales.
    """
    models = (model,) if model else MODELS[::-1] if prefers_accuracy(device) else MODELS
    available = [by_scale for by_scale in (_included(manifest, name) for name in models) if by_scale]
    for by_scale in () if all_scales else available:
        wanted = scales or [4 if 4 in by_scale else min(by_scale)]
        if set(wanted) <= by_scale.keys():
            return {scale: by_scale[scale] for scale in wanted}
    if available and (resized or all_scales):
        return available[0]
    wanted = " ".join(f"x{scale:g}" for scale in scales or ())
    raise HRNError(f"no included checkpoint of {' or '.join(models)} {wanted}".rstrip() + "; use --ckpt_path FILE")


def describe_alternatives(manifest: Mapping[str, Any], chosen: Mapping[int, str]) -> str | None:
    """Return a sentence that names the other included models that support all chosen scales, or None if there are none."""
    first = next(iter(chosen.values()))
    model = preset_of(config_from_dict(manifest["checkpoints"][first]["config"]))
    rank = MODELS.index(model)
    others = [name for name in MODELS if name != model and chosen.keys() <= _included(manifest, name).keys()]
    if not others:
        return None
    cost = [("slower, more accurate" if MODELS.index(name) > rank else "faster, less accurate") for name in others]
    named = ", ".join(f"--model {name} ({note})" for name, note in zip(others, cost, strict=True))
    return f"model: {model}; also available: {named}"


def _included(manifest: Mapping[str, Any], model: str) -> dict[int, str]:
    """Map each scale to a checkpoint name for one model; single-scale checkpoints are preferred."""
    configs = {name: config_from_dict(entry["config"]) for name, entry in manifest["checkpoints"].items()}
    by_scale: dict[int, str] = {}
    for name in sorted(configs, key=lambda name: len(configs[name].scales)):
        if preset_of(configs[name]) == model:
            for scale in configs[name].scales:
                by_scale.setdefault(scale, name)
    return by_scale
