"""The networks. Nothing here reads files or prints; only torch is needed."""

from torch import nn

from hrn.model.config import (
    PRESETS,
    SCALES,
    Config,
    HRNConfig,
    ReleasedConfig,
    config_from_dict,
    config_to_dict,
    preset,
    preset_of,
)
from hrn.model.hrn import HRN
from hrn.model.released import HRNReleased

__all__ = [
    "HRN",
    "PRESETS",
    "SCALES",
    "Config",
    "HRNConfig",
    "HRNReleased",
    "ReleasedConfig",
    "build_model",
    "config_from_dict",
    "config_to_dict",
    "preset",
    "preset_of",
]


def build_model(config: Config) -> nn.Module:
    """A new network of this configuration, in training mode, with fresh weights from torch's global generator."""
    return HRNReleased(config) if isinstance(config, ReleasedConfig) else HRN(config)
