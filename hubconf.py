"""Entry points for torch.hub.

    model = torch.hub.load("OWNER/REPO", "hrn_light", scale=4)

Each entry point returns a :class:`LocalHRN` with included weights, or an untrained network.
"""

from torch import Tensor, nn

from hrn.checkpoint import load_checkpoint, load_network
from hrn.errors import HRNError
from hrn.inference.local import FixedScale, make_local
from hrn.inference.mode import Mode
from hrn.model import build_model, preset
from hrn.pretrained import find_checkpoint, read_manifest

dependencies = ["torch", "numpy"]


class LocalHRN(FixedScale):
    """A network at one scale, for images of any size, in mode `local` (see :mod:`hrn.inference.local`)."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__(make_local(network, Mode.window), scale)
        self.eval()

    def forward(self, lr: Tensor) -> Tensor:
        """Upscale RGB images (B, 3, H, W) in [0, 1] to (B, 3, scale*H, scale*W) in [0, 1]."""
        return super().forward(lr).clamp(0, 1)


def hrn(scale: int = 4, pretrained: bool = True) -> FixedScale:
    """Return the paper's network.

    Args:
        scale: 2, 3, 4 or 8.
        pretrained: whether to load the included weights, in eval mode and without gradients. If False, the network is as
            `hrn/train.py` builds it: new weights, training mode, the DCT over the whole image, and output that is not clipped.

    Raises:
        HRNError: no weights are included for this network and scale.
        ValueError: the scale is not supported.
    """
    return _load("hrn", scale, pretrained)


def hrn_base(scale: int = 4, pretrained: bool = True) -> FixedScale:
    """Return a network between `hrn_light` and `hrn` in size; arguments as for :func:`hrn`."""
    return _load("hrn_base", scale, pretrained)


def hrn_light(scale: int = 4, pretrained: bool = True) -> FixedScale:
    """Return the smallest network; arguments as for :func:`hrn`."""
    return _load("hrn_light", scale, pretrained)


def _load(model: str, scale: int, pretrained: bool) -> FixedScale:
    config = preset(model, [scale])
    if not pretrained:
        return FixedScale(build_model(config), scale)
    name, included = f"{model}_x{scale}", read_manifest()["checkpoints"]
    if name not in included:
        raise HRNError(f"no weights of {name} are included (available: {', '.join(included)}); use pretrained=False")
    return LocalHRN(load_network(load_checkpoint(find_checkpoint(name)), model=model, scale=scale), scale)
