"""HRN: cross-domain heterogeneous residual network for single image super-resolution.

    import hrn

    model = hrn.load_model("hrn_light_x4")
    hrn.upscale(model, "photo.jpg").save("photo_x4.png")
    sr = hrn.enlarge(model, lr)  # tensors: (B, 3, H, W) to (B, 3, 4*H, 4*W), in [0, 1]

Importing this package does not import PyTorch. The functions are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrn.errors import HRNError
    from hrn.inference.upscale import enlarge, load_model, upscale

__version__ = "0.1.0"
__all__ = ["HRNError", "enlarge", "load_model", "upscale"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("hrn.errors" if name == "HRNError" else "hrn.inference.upscale"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
