"""Network configurations and presets. A checkpoint contains its configuration, from which its network is rebuilt."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

SCALES = (2, 3, 4, 8)


@dataclass(frozen=True)
class HRNConfig:
    """Sizes and variants of :class:`hrn.model.HRN`, from outside to inside as in the paper."""

    scales: tuple[int, ...] = (4,)
    """Enlargement factors. The network has one body and one tail for each scale."""
    channels: int = 64
    """Number of channels C of the feature maps between blocks."""
    n_dem: int = 4
    """Number of dual-domain enhancement modules (DEMs) D."""
    n_wrab: int = 3
    """Number of WRABs in a WRDB, n."""
    expansion: int = 4
    """Expansion E: a WRAB has E * C channels inside."""
    reduction: int = 16
    """Reduction r: the coordinate attention has max(1, C // r) channels inside."""
    upsampler: str = "subpixel"
    """`subpixel`: a convolution and a PixelShuffle for each factor 2 or 3, then a convolution to RGB.
    `direct`: one convolution to 3*s*s channels and one PixelShuffle."""
    gates: str = "multiply"
    """Combination of the two attention gates: `multiply` (released code, Hou et al.) or `add` (circled plus in the figure)."""
    dct_axes: str = "hw"
    """Axes of the DCT: `hw` (the figure) or `w` (the released code)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(sorted(int(s) for s in self.scales)))
        if not self.scales or any(s not in SCALES for s in self.scales) or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales must be distinct values of {SCALES}, not {self.scales}")
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
    """Configuration of the authors' released network. Only its scale can be chosen."""

    scales: tuple[int, ...] = (4,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(int(s) for s in self.scales))
        if len(self.scales) != 1 or self.scales[0] not in SCALES:
            raise ValueError(f"the released network has one scale of {SCALES}, not {self.scales}")


Config = HRNConfig | ReleasedConfig

PRESETS: dict[str, Config] = {
    "hrn": HRNConfig(),
    "hrn_base": HRNConfig(channels=48, n_dem=3, n_wrab=2, expansion=2, reduction=16, upsampler="direct"),
    "hrn_light": HRNConfig(channels=24, n_dem=2, n_wrab=2, expansion=2, reduction=8, upsampler="direct"),
    "hrn_released": ReleasedConfig(),
}


def preset(name: str, scales: Iterable[int]) -> Config:
    """Return the preset `name` for these scales. Raises ValueError for an unknown name or scale."""
    if name not in PRESETS:
        raise ValueError(f"unknown model {name!r}; choose one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], scales=tuple(scales))


def config_to_dict(config: Config) -> dict[str, Any]:
    """Convert to plain types, which `torch.load(weights_only=True)` and JSON support."""
    kind = "hrn_released" if isinstance(config, ReleasedConfig) else "hrn"
    return {"network": kind, **asdict(config), "scales": list(config.scales)}


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of :func:`config_to_dict`. Raises ValueError for unknown networks, fields or values."""
    rest = dict(values)
    network = rest.pop("network", None)
    if network not in ("hrn", "hrn_released"):
        raise ValueError(f"unknown network {network!r}; it may need a newer version of this code")
    cls = ReleasedConfig if network == "hrn_released" else HRNConfig
    types = {f.name: f.type for f in fields(cls)}
    for name, value in rest.items():
        if name not in types:
            raise ValueError(f"unknown field {name!r} in the configuration of {network}")
        expected = (list, tuple) if name == "scales" else types[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise ValueError(f"invalid value {value!r} of field {name!r} in the configuration of {network}")
    return cls(**rest)


def preset_of(config: Config) -> str | None:
    """Return the name of the preset that equals `config` at its scales, or None."""
    return next(
        (
            name
            for name, known in PRESETS.items()
            if type(known) is type(config) and replace(known, scales=config.scales) == config
        ),
        None,
    )
