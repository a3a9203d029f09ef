"""What defines a network: one frozen dataclass and its presets. A checkpoint holds it, and so rebuilds its own network."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

SCALES = (2, 3, 4, 8)


@dataclass(frozen=True)
class HRNConfig:
    """Sizes and variants of :class:`hrn.model.HRN`, in the paper's order from outside to inside."""

    scales: tuple[int, ...] = (4,)
    """Enlargement factors. One body, and a tail for each scale."""
    channels: int = 64
    """C, the width of every feature map between blocks."""
    n_dem: int = 4
    """D, the number of dual-domain enhancement modules."""
    n_wrab: int = 3
    """n, the number of WRABs in a WRDB."""
    expansion: int = 4
    """E, how much wider a WRAB is inside."""
    reduction: int = 16
    """r, how much narrower the coordinate attention is inside."""
    upsampler: str = "subpixel"
    """`subpixel`: conv and PixelShuffle for each factor 2 or 3, then a conv to RGB. `direct`: one conv to 3*s*s and PixelShuffle."""
    gates: str = "multiply"
    """How attention joins its two gates: `multiply` (released code, Hou et al.) or `add` (the figure's circled plus)."""
    dct_axes: str = "hw"
    """What the DCT runs over: `hw` (the figure's pictures) or `w` (the released code)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(sorted(int(s) for s in self.scales)))
        if not self.scales or any(s not in SCALES for s in self.scales) or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales must be different factors out of {SCALES}, not {self.scales}")
        for name in ("channels", "n_dem", "n_wrab", "expansion", "reduction"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, allowed in (
            ("upsampler", ("subpixel", "direct")),
            ("gates", ("multiply", "add")),
            ("dct_axes", ("hw", "w")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class ReleasedConfig:
    """The authors' public network has no other choice than its scale."""

    scales: tuple[int, ...] = (4,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(int(s) for s in self.scales))
        if len(self.scales) != 1 or self.scales[0] not in SCALES:
            raise ValueError(f"the released network has one scale out of {SCALES}, not {self.scales}")


Config = HRNConfig | ReleasedConfig

PRESETS: dict[str, Config] = {
    "hrn": HRNConfig(),
    "hrn_base": HRNConfig(channels=48, n_dem=3, n_wrab=2, expansion=2, reduction=16, upsampler="direct"),
    "hrn_light": HRNConfig(channels=24, n_dem=2, n_wrab=2, expansion=2, reduction=8, upsampler="direct"),
    "hrn_released": ReleasedConfig(),
}


def preset(name: str, scales: Iterable[int]) -> Config:
    """The preset `name` for these scales. Raises ValueError for an unknown name or scale."""
    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], scales=tuple(scales))


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain types only, so that `torch.load(weights_only=True)` and JSON take it."""
    kind = "hrn_released" if isinstance(config, ReleasedConfig) else "hrn"
    return {"network": kind, **asdict(config), "scales": list(config.scales)}


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of :func:`config_to_dict`. Raises ValueError for unknown networks, fields or values."""
    rest = dict(values)
    network = rest.pop("network", None)
    if network not in ("hrn", "hrn_released"):
        raise ValueError(f"unknown network {network!r} (newer than this code?)")
    cls = ReleasedConfig if network == "hrn_released" else HRNConfig
    types = {f.name: f.type for f in fields(cls)}
    for name, value in rest.items():
        if name not in types:
            raise ValueError(f"unknown field {name!r} in the configuration of {network}")
        wanted = (list, tuple) if name == "scales" else types[name]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"field {name!r} of the configuration cannot be {value!r}")
    return cls(**rest)


def preset_of(config: Config) -> str | None:
    """The name of the preset that `config` is, at any scale; None when it is none of them."""
    return next(
        (
            name
            for name, known in PRESETS.items()
            if type(known) is type(config) and replace(known, scales=config.scales) == config
        ),
        None,
    )
