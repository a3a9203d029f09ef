"""Command-line flags of `hrn/train.py`, and the recipe files that fill them (`--config`)."""

import argparse
import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from hrn.cli import path_argument
from hrn.errors import HRNError
from hrn.model import PRESETS, SCALES
from hrn.training.recipe import Execution, Recipe

REQUIRED = ("model", "ckpt_name")
NOT_IN_CONFIG = ("help", "config")


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """Parse the command line. A recipe file given by `--config` sets the defaults, so the command line wins.

    `--set` adds to the recipe file's `set`; the last value of a field counts.

    Raises:
        HRNError: the recipe file cannot be read, has an unknown key, or a value of the wrong type.
    """
    parser = make_parser(description)
    if config := parser.parse_args(argv).config:
        parser.set_defaults(**read_config(config, parser))
    args = parser.parse_args(argv)
    if missing := [f"--{name}" for name in REQUIRED if getattr(args, name) is None]:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    return args


def make_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Build the parser. The fields of `Recipe` and `Execution` become flags."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, default = parser.add_argument, " (default: %(default)s)"
    add(
        "--config",
        type=path_argument,
        metavar="FILE",
        help="recipe file (.toml or .json): its keys are flags without dashes",
    )
    add("--model", choices=PRESETS, help="network preset (required)")
    text = "fields of the network's configuration (HRNConfig), such as frequency=none channels=29"
    add("--set", type=str, nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=text)
    add("--ckpt_name", metavar="NAME", help="name of the output files (required)")
    add("--ckpt_dir", type=path_argument, default=Path("checkpoint"), metavar="DIR", help="output folder" + default)
    add(
        "--scale",
        type=int,
        default=0,
        choices=(0, *SCALES),
        help="enlargement factor; 0 trains x2, x3 and x4 together" + default,
    )
    path = Path("dataset/DIV2K_train.h5")
    add("--train_data_path", type=path_argument, default=path, metavar="H5", help="training pairs" + default)
    text = "validation sets (h5 files or folders); the weights with the best mean PSNR-Y are kept"
    add("--valid_data_path", type=path_argument, nargs="+", default=[], metavar="PATH", help=text)
    add("--shave", type=int, help="border in HR pixels left out of validation scores (default: the scale)")
    text = "continue from the newest training state, or from FILE"
    add("--resume", type=path_argument, nargs="?", const=True, metavar="FILE", help=text)
    text = "continue from the newest training state, or else start as the other flags say; for jobs that are restarted automatically"
    add("--auto_resume", action="store_true", help=text)
    text = "start from the weights of a checkpoint that match in name and shape; a file, or a name such as hrn_light_x4"
    add("--init_from", type=path_argument, metavar="FILE", help=text)
    text = "start from a smaller trained HRN of the same scales and initially compute the same result; a file or a name"
    add("--grow_from", type=path_argument, metavar="FILE", help=text)
    add("--dry_run", action="store_true", help="measure a few steps, print time and memory, and write nothing")
    for f in (*fields(Recipe), *fields(Execution)):
        if f.type in (bool, bool | None):
            text = f.metadata["help"] + ("" if f.default is None else default)
            add(f"--{f.name}", action=argparse.BooleanOptionalAction, default=f.default, help=text)
        else:
            text = f.metadata["help"] + default
            add(f"--{f.name}", type=f.type, default=f.default, choices=f.metadata["choices"], help=text)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ..." + default)
    text = "processes on this machine, each with its own GPU; 0 uses the CPU" + default
    add("--num_gpu", type=int, default=1, help=text)
    add("--tensorboard", action="store_true", help="also write curves and validation images for TensorBoard")
    add(
        "--group",
        type=int,
        default=1,
        choices=(1,),
        help="no effect; accepted for compatibility with the released code",
    )
    add("--sample_dir", help="no effect; accepted for compatibility with the released code")
    return parser


def read_config(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Read a recipe file: TOML or JSON, one top-level key for each flag.

    Returns:
        Values by flag name, converted and checked as on the command line.

    Raises:
        HRNError: the file cannot be read, has an unknown key, or a value of the wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise HRNError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:  # of both parsers, and of the decoding
        raise HRNError(f"--config {path}: {error}") from None
    if not isinstance(values, dict):
        raise HRNError(f"--config {path}: must contain an object, not a {type(values).__name__}")
    actions = {a.dest: a for a in parser._actions if a.dest not in NOT_IN_CONFIG}
    converted = {}
    for name, value in values.items():
        if name not in actions:
            raise HRNError(f"--config {path}: unknown key {name!r}; keys are the flags of hrn/train.py without dashes")
        try:
            converted[name] = convert(value, actions[name])
        except ValueError as error:
            raise HRNError(f"--config {path}: {name} must be {error}, not {value!r}") from None
        except argparse.ArgumentTypeError as error:
            raise HRNError(f"--config {path}: {name}: {error}") from None
    return converted


def convert(value: Any, action: argparse.Action) -> Any:
    """Convert a value of a recipe file to the type of a flag. Raises ValueError, with the type in words."""
    if isinstance(action.default, bool) or isinstance(action, argparse.BooleanOptionalAction):
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value
    if action.nargs == "+":
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(v, str) for v in values):
            raise ValueError("a string or a list of strings")
        return [action.type(v) for v in values]
    if action.nargs == "?" and isinstance(value, bool):  # --resume without a file
        return action.const if value else None
    if action.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    expected = action.type if action.type in (int, float) else str
    if not isinstance(value, expected) or isinstance(value, bool):
        raise ValueError({int: "an integer", float: "a number", str: "a string"}[expected])
    if action.choices is not None and value not in action.choices:
        raise ValueError("one of " + ", ".join(map(str, action.choices)))
    return action.type(value) if action.type else value
