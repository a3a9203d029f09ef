"""Bare state dicts: the weights of one HRN network at one scale, whose configuration follows from their shapes.

Programs that load models from many repositories, such as those built on spandrel, expect such files.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from hrn.checkpoint import Checkpoint, load_network, write_torch_file
from hrn.errors import HRNError
from hrn.model.config import VARIANT_FIELDS, Config, HRNConfig

REQUIRED = ("head.weight", "body.0.frequency.blocks.0.attention.gate_h.weight", "body.0.fuse2.weight")
"""Names of weights that every HRN network with a frequency branch and coordinate attention has."""


def is_bare_state_dict(contents: Mapping[str, object]) -> bool:
    """Whether `contents` is a state dict of :class:`hrn.model.HRN`, judged by the names of the weights."""
    return all(name in contents for name in REQUIRED) and bool(_tails(contents))


def config_from_shapes(weights: Mapping[str, Tensor]) -> HRNConfig:
    """Infer a network's configuration from the shapes of its weights.

    The architecture variants (`VARIANT_FIELDS`) get their default values. `reduction` and `expansion` are inferred up to
    rounding: the result has the same shapes.

    Args:
        weights: a state dict of :class:`hrn.model.HRN`.
    """
    block = "body.0.frequency.blocks.0"
    channels = weights["head.weight"].shape[0]
    tails = _tails(weights)
    expansion = weights[f"{block}.widen.weight"].shape[0] / channels
    return HRNConfig(
        scales=tuple(tails),
        channels=channels,
        n_dem=_count(weights, "body"),
        n_wrab=_count(weights, "body.0.frequency.blocks"),
        expansion=int(expansion) if expansion.is_integer() else expansion,
        reduction=channels // weights[f"{block}.attention.squeeze.weight"].shape[0],
        upsampler="direct" if tails[min(tails)] == 1 else "subpixel",
    )


def fields_not_in_shapes(config: Config) -> list[str]:
    """Return the fields of a configuration that :func:`config_from_shapes` would get wrong, as `name=value`."""
    if not isinstance(config, HRNConfig):
        return []
    return [f"{k}={getattr(config, k)!r}" for k in VARIANT_FIELDS if getattr(config, k) != getattr(HRNConfig, k)]


def export_state_dict(path: str | Path, checkpoint: Checkpoint, scale: int) -> None:
    """Write the weights of a checkpoint at one scale as a PyTorch file with the single key `params`.

    Args:
        path: the file to write.
        checkpoint: a checkpoint from :func:`hrn.checkpoint.load_checkpoint`.
        scale: one of its scales; the weights of other scales are left out.

    Raises:
        HRNError: the configuration cannot be inferred from shapes, the checkpoint does not have the scale, its weights do
            not fit its configuration, or the file cannot be written.
    """
    load_network(checkpoint)  # checks the weights
    config = checkpoint.config
    if not isinstance(config, HRNConfig):
        raise HRNError(f"{checkpoint.path}: a bare state dict needs an HRN network, not {checkpoint.model_name}")
    if other := fields_not_in_shapes(config):
        raise HRNError(f"{checkpoint.path}: a bare state dict cannot hold {', '.join(other)}")
    checkpoint.check_scale(scale)
    weights = {
        name: value.contiguous()
        for name, value in checkpoint.inference_weights.items()
        if not name.startswith("tails.") or name.startswith(f"tails.x{scale}.")
    }
    inferred, expected = config_from_shapes(weights), replace(config, scales=(scale,))
    if replace(inferred, reduction=expected.reduction, expansion=expected.expansion) != expected:
        raise HRNError(f"{checkpoint.path}: its configuration does not follow from the shapes of its weights")
    write_torch_file(path, {"params": weights})


def _tails(contents: Mapping[str, object]) -> dict[int, int]:
    """Return the number of convolutions of the upsampler of each scale."""
    found = [match for name in contents if (match := re.fullmatch(r"tails\.x(\d+)\.\d+\.weight", name))]
    scales = [int(match[1]) for match in found]
    return {scale: scales.count(scale) for scale in sorted(set(scales))}


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Return the number of children of a module list."""
    return len({name.removeprefix(f"{prefix}.").split(".")[0] for name in weights if name.startswith(f"{prefix}.")})
