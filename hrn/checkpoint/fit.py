"""How weights differ from those that a configuration needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hrn.model import build_model
from hrn.model.config import Config, HRNConfig

TENSORS_PER_WRAB = 12
"""Minimum number of tensors per DEM and WRAB: weight and bias of three convolutions in each of two WRDBs."""


def misfit(config: Config, weights: Mapping[str, Tensor]) -> str:
    """Describe how the weights differ from the configuration, without allocating a network of the stated size."""
    storages = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in weights.values()}
    stored = sum(storages.values())  # bytes; an expanded tensor can claim a size larger than its storage
    too_few = sum(w.nbytes for w in weights.values()) > stored
    if isinstance(config, HRNConfig):  # its sizes are unbounded; compare them with the least storage that they need
        filled = sum(w.numel() > 0 for w in weights.values())
        too_few |= TENSORS_PER_WRAB * config.n_dem * config.n_wrab > filled or config.channels > stored
        too_few = too_few or config.channels**2 * config.expansion > stored
    if too_few:
        return f"{len(weights)} tensors with {stored:,} bytes are too few"
    return differing_keys(meta_state_dict(config), weights)


def meta_state_dict(config: Config) -> dict[str, Tensor]:
    """Return the names and shapes of a configuration's weights, on the meta device."""
    with torch.device("meta"):
        return build_model(config).state_dict()


def differing_keys(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Describe the first differences in names and shapes between two state dicts; empty if there are none.

    Args:
        expected: the state dict that is needed.
        found: the state dict to compare with it.
    """
    parts, limit = [], 3  # names to list for each kind of difference
    for label, names in (
        ("missing", [k for k in expected if k not in found]),
        ("unknown", [k for k in found if k not in expected]),
    ):
        if names:
            parts.append(f"{label} {first_names(names, limit)}")
    shapes = [k for k in expected if k in found and getattr(found[k], "shape", None) != expected[k].shape]
    for name in shapes[:limit]:
        shape = tuple(getattr(found[name], "shape", ()))
        parts.append(f"{name} has shape {shape}, expected {tuple(expected[name].shape)}")
    return "; ".join(parts)


def first_names(names: Sequence[str], limit: int) -> str:
    """List the first `limit` names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
