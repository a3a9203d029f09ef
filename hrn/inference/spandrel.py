"""Load HRN networks through spandrel (https://github.com/chaiNNer-org/spandrel), the model loader of chaiNNer and ComfyUI.

    from hrn.inference.spandrel import register
    from spandrel import ModelLoader

    register()
    model = ModelLoader().load_from_file("checkpoint/hrn_light/hrn_light_x4.pth")

Supported files are checkpoints of this repository and bare state dicts, which `python -m hrn.inference.export --format
spandrel` writes. Architecture variants load only from checkpoints, not from bare state dicts. Networks run in mode
local, so tiles of 512 pixels give nearly the result of the whole image. Files with several scales run at the smallest
one. The released network (`hrn_released`) is not supported, because it has no mode local. Needs `pip install spandrel`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spandrel import MAIN_REGISTRY, Architecture, ArchSupport, ImageModelDescriptor, ModelTiling

from hrn.checkpoint import FORMAT, Checkpoint, checkpoint_of, load_network
from hrn.inference.bare import config_from_shapes, is_bare_state_dict
from hrn.inference.local import FixedScale, make_local
from hrn.inference.mode import Mode
from hrn.model import HRNConfig, config_from_dict
from hrn.runtime import warm_up_kernels


class HRNArchitecture(Architecture[FixedScale]):
    """Detects and loads HRN networks."""

    def __init__(self) -> None:
        super().__init__(id="HRN", detect=is_hrn)

    def load(self, state_dict: Mapping[str, Any]) -> ImageModelDescriptor[FixedScale]:
        """Build the network of a checkpoint's contents or of a bare state dict, in mode local.

        Raises:
            HRNError: the contents are not those of a checkpoint, or the weights do not fit the configuration.
            ValueError: the shapes are not those of a network.
        """
        path = Path("state dict")  # for error messages
        if state_dict.get("format") == FORMAT:
            checkpoint = checkpoint_of(path, state_dict)
        else:
            checkpoint = Checkpoint(path, config_from_shapes(state_dict), state_dict, {})
        warm_up_kernels()
        network, config = load_network(checkpoint), checkpoint.config
        scale = config.scales[0]
        module = FixedScale(make_local(network, Mode.window), scale).eval()
        return ImageModelDescriptor(
            module,
            module.state_dict(),
            architecture=self,
            purpose="SR",
            tags=[f"{config.channels}nf", f"{config.n_dem}dem"],
            supports_half=False,  # the DCT runs in float32, so half precision needs autocast
            supports_bfloat16=False,
            scale=scale,
            input_channels=3,
            output_channels=3,
            tiling=ModelTiling.SUPPORTED,
        )


def is_hrn(state_dict: Mapping[str, Any]) -> bool:
    """Whether the contents of a file are an HRN checkpoint or a bare state dict of HRN."""
    if state_dict.get("format") != FORMAT:
        return is_bare_state_dict(state_dict)
    try:
        return isinstance(config_from_dict(state_dict["config"]), HRNConfig)
    except (KeyError, TypeError, ValueError):
        return False


def register() -> None:
    """Add HRN to spandrel's main registry. Repeated calls have no effect."""
    MAIN_REGISTRY.add(ArchSupport.from_architecture(HRNArchitecture()), ignore_duplicates=True)
