"""HRN: cross-domain heterogeneous residual network for single image super-resolution.

from hrn import load_model, upscale

model = load_model("checkpoint/hrn_light/hrn_light_x4.pth")
upscale(model, "photo.jpg").save("photo_x4.png")
"""

__version__ = "0.1.0"
__all__ = ["load_model", "upscale"]


def __getattr__(name: str):
    if name in __all__:  # only when asked for: the data tools need no torch
        from hrn.inference import upscale as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
