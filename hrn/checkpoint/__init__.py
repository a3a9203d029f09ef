"""Save and load checkpoint files. `python -m hrn.checkpoint FILE` prints what a file holds.

Two kinds of files are read: checkpoints of this package, which store their configuration and can rebuild the network, and
the state dict published by the paper's authors.

A checkpoint is a dict of plain types and tensors with the keys `format`, `config`, `weights` and `info` (training data,
steps, scores). A training state also has the key `training`. All of it loads with `torch.load(weights_only=True)`, so
loading a file cannot run code.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hrn.checkpoint.fit import differing_keys, meta_state_dict, misfit
from hrn.errors import HRNError, UnreadableError
from hrn.files import atomic_write, file_hash
from hrn.memory import is_out_of_memory
from hrn.model import build_model, preset, preset_of
from hrn.model.config import Config, ReleasedConfig, config_from_dict, config_to_dict

FORMAT_PREFIX = "hrn-checkpoint-"
FORMAT = FORMAT_PREFIX + "1"
ALLOWED_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
)
"""Dtypes that the tensors of a checkpoint may have. The others are quantised, complex or bit fields."""


@dataclass(frozen=True)
class Checkpoint:
    """The validated contents of a checkpoint file."""

    path: Path
    config: Config
    weights: Mapping[str, Tensor]
    info: Mapping[str, Any]
    training: Mapping[str, Any] | None = None
    """The state needed to resume training (optimizer, step, ...); None if the file is not a training state."""
    sha256: str = ""
    """The hash of the file that was read."""

    @property
    def model_name(self) -> str:
        """The name of the preset, or a note that the configuration is not a preset."""
        return preset_of(self.config) or "hrn (custom configuration)"

    @property
    def inference_weights(self) -> Mapping[str, Tensor]:
        """The weights for inference. Those of a training state are the EMA weights, if the run has them (`--ema`).

        Raises:
            HRNError: the EMA weights are not a dict of tensors with printable names.
        """
        ema = as_dict(as_dict(self.training).get("learner")).get("ema")
        if ema is None:
            return self.weights
        mean = {str(name): value for name, value in as_dict(ema).items() if str(name).startswith("module.")}
        if not mean or not all(name.isprintable() and _is_dense(value) for name, value in mean.items()):
            raise HRNError(f"{self.path}: damaged: the EMA weights are not a dict of tensors with printable names")
        return {name.removeprefix("module."): value for name, value in mean.items()}

    @property
    def inference_info(self) -> dict[str, Any]:
        """`info`, to which a training state adds its step and recipe, as in the weights that a run saves."""
        training = as_dict(self.training)
        added = {"steps": training.get("step"), "recipe": training.get("recipe")}
        return {**self.info, **{name: value for name, value in added.items() if value is not None}}

    def check_scale(self, scale: int) -> None:
        """Raise HRNError if the network does not support a scale."""
        if scale not in self.config.scales:
            raise HRNError(f"{self.path}: supports {', '.join(f'x{s}' for s in self.config.scales)}, not x{scale}")


def save_checkpoint(
    path: str | Path,
    config: Config,
    weights: Mapping[str, Tensor],
    *,
    info: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically: `path` holds either its previous contents or the complete new file.

    Args:
        path: the file to write.
        config: the network's configuration.
        weights: the network's state dict.
        info: facts about the training, in plain types.
        training: the state needed to resume training, in plain types and tensors.

    Raises:
        HRNError: the file cannot be written. An existing file at `path` is left unchanged.
    """
    contents: dict[str, Any] = {
        "format": FORMAT,
        "config": config_to_dict(config),
        "weights": {name: value.detach().cpu().contiguous() for name, value in weights.items()},
        "info": dict(info),
    }
    if training is not None:
        contents["training"] = dict(training)
    write_torch_file(path, contents)


def write_torch_file(path: str | Path, contents: Any) -> None:
    """Write tensors and plain data by `torch.save`, atomically. Raises HRNError if the file cannot be written."""
    buffer = io.BytesIO()  # torch.save to a file hides the OSError of a full disk
    torch.save(contents, buffer)
    with atomic_write(path) as temporary, buffer.getbuffer() as data:
        temporary.write_bytes(data)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint (.pth or .safetensors) or the authors' state dict. No code in the file is run.

    Raises:
        UnreadableError: the file may be intact: no permission to read it, too little memory, another version, or it
            changed meanwhile.
        HRNError: the file is missing or damaged, holds more than plain data, or is not a checkpoint of HRN.
    """
    path = Path(path)
    try:
        exists = path.is_file()
        sha256 = file_hash(path) if exists else ""
        contents = _read(path) if exists else None
        changed = exists and file_hash(path) != sha256
    except OSError as error:
        raise UnreadableError(f"{path}: cannot be read: {error.strerror or error}") from None
    except HRNError:
        raise
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ... on damaged files
        if re.search("Unsupported (global|class)|GLOBAL", str(error)):
            raise HRNError(
                f"{path}: refused: the file holds more than plain data, so loading it could run code"
            ) from None
        if is_out_of_memory(error):
            raise UnreadableError(f"{path}: not enough memory to read it") from None
        raise HRNError(f"{path}: damaged or not a PyTorch checkpoint ({type(error).__name__})") from None
    if not exists:
        raise HRNError(f"no such checkpoint: {path}")
    if changed:
        raise UnreadableError(f"{path}: changed while it was read; try again")
    if isinstance(contents, dict) and str(contents.get("format")).startswith(FORMAT_PREFIX):
        return replace(checkpoint_of(path, contents), sha256=sha256)
    weights = _released_state_dict(contents)
    if weights is None:
        raise HRNError(f"{path}: not a checkpoint of HRN: neither the format {FORMAT!r} nor the authors' state dict")
    return Checkpoint(path, _released_config(path, weights), weights, {}, sha256=sha256)


def load_network(checkpoint: Checkpoint, *, model: str | None = None, scale: int | None = None) -> nn.Module:
    """Build the checkpoint's network with its weights, in eval mode and channels_last memory format.

    Args:
        checkpoint: the result of :func:`load_checkpoint`.
        model: the name of the preset that the file must hold; None accepts any.
        scale: a scale that the network must support; None accepts any.

    Raises:
        HRNError: the file holds another model or scale, or its weights do not fit its configuration.
    """
    if model is not None and model != preset_of(checkpoint.config):
        raise HRNError(
            f"{checkpoint.path}: holds {checkpoint.model_name}, not {model}" + _first_difference(checkpoint, model)
        )
    if scale is not None:
        checkpoint.check_scale(scale)
    weights = checkpoint.inference_weights
    if difference := misfit(checkpoint.config, weights):
        raise HRNError(f"{checkpoint.path}: the weights do not fit the configuration: {difference}")
    with torch.random.fork_rng(devices=[]):
        network = build_model(checkpoint.config)
    network.load_state_dict(weights)
    # convolutions run fastest in channels_last; in float32 on a CPU by a factor of 1.7 (benchmarks/inference.py)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def load_matching_weights(network: nn.Module, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Load the weights whose names and shapes match a network, which may have another scale or size.

    Returns:
        Two lists of names: the network's weights that were not loaded, and the file's weights that were not used.

    Raises:
        HRNError: no kernel matches, or the EMA weights of a training state are damaged.
    """
    own, weights = network.state_dict(), checkpoint.inference_weights
    matching = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    if not any(name in matching and p.ndim > 1 for name, p in network.named_parameters()):
        raise HRNError(
            f"{checkpoint.path}: none of its kernels fit the network: {differing_keys(own, weights)}. To start from a "
            "smaller network, use --grow_from"
        )
    network.load_state_dict(matching, strict=False)
    return [k for k in own if k not in matching], [k for k in weights if k not in matching]


def checkpoint_of(path: Path, contents: Mapping[str, Any]) -> Checkpoint:
    """Validate the contents of a file in this package's format. Raises UnreadableError if this version cannot read them."""
    try:
        if contents["format"] != FORMAT:
            raise ValueError(f"format {contents['format']!r}, not {FORMAT!r}")
        config = config_from_dict(contents["config"])
        weights, info, training = contents["weights"], contents["info"], contents.get("training")
        if not isinstance(weights, dict) or not isinstance(info, dict) or not isinstance(training, dict | None):
            raise ValueError("weights, info or training is not a dict")
        if not all(isinstance(k, str) and k.isprintable() and _is_dense(v) for k, v in weights.items()):
            raise ValueError("the weights are not a dict of dense tensors with printable names")
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableError(f"{path}: this version cannot read the checkpoint ({error})") from None
    return Checkpoint(path, config, weights, info, training)


def _first_difference(checkpoint: Checkpoint, model: str) -> str:
    """Describe how a checkpoint's weights differ from those of a preset."""
    try:
        expected = meta_state_dict(preset(model, checkpoint.config.scales))
    except ValueError as error:
        return f" ({error})"
    return f"; for {model}: {differing_keys(expected, checkpoint.weights)}"


def _read(path: Path) -> Any:
    """Return what a .pth file holds, or the contents of a checkpoint from a .safetensors file of `hrn.inference.export`."""
    if path.suffix != ".safetensors":
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise HRNError(f"{path}: refused: compressed, unlike files of torch.save, and could exhaust the memory")
            if sum(entry.file_size for entry in entries) > path.stat().st_size:
                raise HRNError(f"{path}: refused: its entries overlap and could exhaust the memory")
        return torch.load(path, map_location="cpu", weights_only=True)
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise HRNError(f"{path}: this needs safetensors ({error}); run: pip install safetensors") from None

    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return {
        "format": header.get("format"),
        "config": json.loads(header.get("config", "null")),
        "weights": weights,
        "info": json.loads(header.get("info", "{}")),
    }


def as_dict(value: Any) -> Mapping[str, Any]:
    """Return the value if it is a dict, else an empty dict: `info` and `training` may hold anything."""
    return value if isinstance(value, dict) else {}


def _is_dense(value: Any) -> bool:
    """Return whether a value is a dense tensor of numbers with data."""
    if not isinstance(value, Tensor) or value.device.type == "meta" or value.layout != torch.strided:
        return False
    return value.dtype in ALLOWED_DTYPES and not value.is_nested


def _released_state_dict(contents: Any) -> dict[str, Tensor] | None:
    """Return the authors' state dict without a DataParallel prefix, or None if `contents` is something else."""
    if not isinstance(contents, dict) or not contents or not all(_is_dense(v) for v in contents.values()):
        return None
    weights = {str(name).removeprefix("module."): value for name, value in contents.items()}
    if not all(name.isprintable() for name in weights):
        return None
    for name in [name for name in weights if name.endswith(".running_mean")]:
        # PyTorch 0.4.0, which the authors name, does not count batches
        weights.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return weights if "b1.body.0.body.3.conv_1x1.weight" in weights and "tail.0.0.weight" in weights else None


def _released_config(path: Path, weights: Mapping[str, Tensor]) -> ReleasedConfig:
    """Derive the configuration of the authors' network from the shapes of its upsampler."""
    doublings = sum(f"tail.0.{i}.weight" in weights for i in (0, 2, 4))
    scale = 3 if weights["tail.0.0.weight"].shape[:1] == (576,) else 2**doublings
    config = replace(ReleasedConfig(), scales=(scale,))
    if difference := differing_keys(meta_state_dict(config), weights):
        raise HRNError(f"{path}: similar to the authors' network at x{scale}, but {difference}")
    return config
