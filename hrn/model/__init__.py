"""The networks. Needs torch only, and reads and writes no files."""

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
    """Build a network with new weights from torch's global generator, in training mode."""
    return HRNReleased(config) if isinstance(config, ReleasedConfig) else HRN(config)
