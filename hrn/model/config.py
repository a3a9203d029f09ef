"""Network configurations and presets. A checkpoint contains its configuration, from which its network is rebuilt."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

SCALES = (2, 3, 4, 8)


@dataclass(frozen=True)
class HRNConfig:
    """Sizes and variants of :class:`hrn.model.HRN`."""

    scales: tuple[int, ...] = (4,)
    """Enlargement factors. All scales share one body; each has its own tail."""
    channels: int = 64
    """Number of channels C of the feature maps between blocks."""
    n_dem: int = 4
    """Number of dual-domain enhancement modules (DEMs) D."""
    n_wrab: int = 3
    """Number of WRABs in a WRDB, n."""
    expansion: float = 4
    """Expansion E, at least 1: a WRAB has round(E * C) channels inside."""
    reduction: int = 16
    """Reduction r: the coordinate attention has max(1, C // r) channels inside."""
    upsampler: str = "subpixel"
    """`subpixel`: a convolution and a PixelShuffle for each factor 2 or 3, then a convolution to RGB.
    `direct`: one convolution to 3*s*s channels and one PixelShuffle."""
    gates: str = "multiply"
    """Combination of the two attention gates: `multiply` (released code, Hou et al.) or `add` (circled plus in the figure)."""
    dct_axes: str = "hw"
    """Axes of the frequency transform: `hw` (the figure) or `w` (the released code)."""
    frequency: str = "dct"
    """Transform of the frequency branch: `dct` (the paper), `fft` with real and imaginary parts as channels, or `none` for
    a network without this branch."""
    dense: bool = True
    """Whether a WRAB gets the fused outputs of all earlier ones in its WRDB, or only that of the one before it."""
    attention: str = "coordinate"
    """Attention at the end of a WRAB: `coordinate` (the paper), `se` (squeeze-and-excitation) or `none`."""
    norm: bool = True
    """Whether coordinate attention has BatchNorm."""
    skip: bool = True
    """Whether the head's features are added to those of the last DEM."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(sorted(int(s) for s in self.scales)))
        if not self.scales or any(s not in SCALES for s in self.scales) or len(set(self.scales)) != len(self.scales):
            raise ValueError(f"scales must be distinct values of {SCALES}, not {self.scales}")
        for name in ("channels", "n_dem", "n_wrab", "expansion", "reduction"):
            least = 3 if name == "channels" else 1  # a new network has RGB in its first three channels
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name, allowed in (
            ("upsampler", ("subpixel", "direct")),
            ("gates", ("multiply", "add")),
            ("dct_axes", ("hw", "w")),
            ("frequency", ("dct", "fft", "none")),
            ("attention", ("coordinate", "se", "none")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        if self.frequency == "none" and self.dct_axes != "hw":
            raise ValueError(f"dct_axes {self.dct_axes!r} has no effect without a frequency branch")
        if self.attention != "coordinate" and (self.gates, self.norm) != ("multiply", True):
            raise ValueError(f"gates and norm have no effect with attention {self.attention!r}")

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has BatchNorm."""
        return self.attention == "coordinate" and self.norm


@dataclass(frozen=True)
class ReleasedConfig:
    """Configuration of the authors' released network. Only its scale can be chosen."""

    scales: tuple[int, ...] = (4,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(int(s) for s in self.scales))
        if len(self.scales) != 1 or self.scales[0] not in SCALES:
            raise ValueError(f"the released network has one scale of {SCALES}, not {self.scales}")

    @property
    def has_batch_norm(self) -> bool:
        """False, because the released network declares BatchNorm without calling it."""
        return False


Config = HRNConfig | ReleasedConfig

VARIANT_FIELDS = ("gates", "dct_axes", "frequency", "dense", "attention", "norm", "skip")
"""Fields of `HRNConfig` that change the architecture. The others, except `scales`, are sizes."""
OMITTED_IF_DEFAULT = ("frequency", "dense", "attention", "norm", "skip")
"""Fields that a checkpoint stores only if they differ from their defaults, so that earlier versions can read most files."""

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


def with_settings(config: Config, settings: Iterable[str]) -> Config:
    """Return a configuration with some fields replaced.

    Args:
        config: the configuration to start from.
        settings: strings such as `channels=28` or `frequency=none`; the last one of a field counts.

    Raises:
        ValueError: an unknown field, or a value that the field does not allow.
    """
    types = {f.name: f.type for f in fields(config) if f.name != "scales"}
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in types:
            names = f"one of the names {', '.join(types)}" if types else "a field, but this network has none to set"
            raise ValueError(f"{setting!r}: expected NAME=VALUE with {names}")
        values[name] = _parse(name, text, types[name])
    return replace(config, **values)


def _parse(name: str, text: str, kind: type) -> Any:
    """Parse the text of a field. Raises ValueError with the field's name."""
    if kind is str:
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, not {text!r}")
        return text == "true"
    try:
        return int(text) if kind is int or text.isdecimal() else float(text)
    except ValueError:
        raise ValueError(f"{name} must be {'an integer' if kind is int else 'a number'}, not {text!r}") from None


def config_to_dict(config: Config) -> dict[str, Any]:
    """Convert to plain types, which `torch.load(weights_only=True)` and JSON support."""
    kind = "hrn_released" if isinstance(config, ReleasedConfig) else "hrn"
    values = {k: v for k, v in asdict(config).items() if k not in OMITTED_IF_DEFAULT or v != getattr(HRNConfig, k)}
    return {"network": kind, **values, "scales": list(config.scales)}


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Return the inverse of :func:`config_to_dict`. Raises ValueError for unknown networks, fields or values."""
    rest = dict(values)
    network = rest.pop("network", None)
    if network not in ("hrn", "hrn_released"):
        raise ValueError(f"unknown network {network!r}; it may need a newer version of this code")
    cls = ReleasedConfig if network == "hrn_released" else HRNConfig
    types = {f.name: f.type for f in fields(cls)}
    for name, value in rest.items():
        if name not in types:
            raise ValueError(f"unknown field {name!r} in the configuration of {network}")
        expected = {"scales": (list, tuple), "expansion": (int, float)}.get(name, types[name])
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise ValueError(f"invalid value {value!r} of field {name!r} in the configuration of {network}")
    if any(type(scale) is not int for scale in rest.get("scales", ())):
        raise ValueError(f"invalid scales {rest['scales']!r} in the configuration of {network}")
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
