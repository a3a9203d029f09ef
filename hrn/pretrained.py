"""Checkpoints by name: from this repository's folder, else from a cache in the user's home, else from the web.

    python -m hrn.pretrained checkpoint/hrn_light/hrn_light_x4.pth sample/hrn_light_x4 --trained_on "..."    enter a file

`checkpoint/manifest.json` lists them: file, size, SHA-256, configuration, scores. It and the files are installed with the
package, as `hrn/shipped`. A file is used only if its hash is the manifest's. The web address is the manifest's `address` with
the file's path added; the environment variable HRN_CHECKPOINT_URL names another one, such as a mirror or a folder on a server
of one's own.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from hrn.checkpoint import load_checkpoint
from hrn.cli import run_cli
from hrn.errors import HRNError
from hrn.fetch import fetch
from hrn.files import file_hash, write_text
from hrn.inference.enlarger import default_mode
from hrn.model import config_from_dict, config_to_dict

logger = logging.getLogger(__name__)

_INSTALLED = Path(__file__).with_name("shipped")
FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[1] / "checkpoint"
"""Of the package, where it is installed apart from its repository; else the repository's."""


def read_manifest(folder: Path = FOLDER) -> dict[str, Any]:
    """The manifest of a checkpoint folder: `address`, and `checkpoints` by name; empty where there is none.

    Raises:
        HRNError: it is damaged.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        return {"address": None, "checkpoints": {}}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for entry in manifest["checkpoints"].values():
            if not {"file", "bytes", "sha256", "config", "scores"} <= entry.keys() or ".." in Path(entry["file"]).parts:
                raise ValueError("an entry is not complete")
            config_from_dict(entry["config"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HRNError(f"{path}: not a manifest of checkpoints ({error})") from None
    return manifest


def find_checkpoint(name: str | Path, folder: Path = FOLDER) -> Path:
    """The file of a checkpoint.

    Args:
        name: a path of a file, or a name in the manifest, such as `hrn_light_x4`.
        folder: with the manifest, and perhaps the file.

    Raises:
        HRNError: neither a file nor a known name, or it cannot be had.
    """
    if Path(name).is_file():
        return Path(name)
    manifest = read_manifest(folder)
    known = manifest["checkpoints"]
    if str(name) not in known:
        names = f", nor one of {', '.join(known)}" if known else ""
        raise HRNError(f"no such checkpoint: {name} is not a file{names}")
    entry = known[str(name)]
    shipped = folder / entry["file"]
    if shipped.is_file():
        if file_hash(shipped) != entry["sha256"]:
            raise HRNError(
                f"{shipped} is not the {name} of the manifest (its SHA-256 differs); give its path to use it all the same"
            )
        logger.info("%s: %s", name, shipped)
        return shipped
    cached = cache_folder() / entry["sha256"][:12] / Path(entry["file"]).name
    address = os.environ.get("HRN_CHECKPOINT_URL") or manifest.get("address")
    if cached.is_file() and file_hash(cached) == entry["sha256"]:
        logger.info("%s: %s", name, cached)
        return cached
    if not address:
        raise HRNError(
            f"{name} is neither at {shipped} nor at {cached}, and HRN_CHECKPOINT_URL does not say where to fetch it"
        )
    source = f"{address.rstrip('/')}/{entry['file']}"
    logger.info("%s: fetching %s, %.1f MB, into %s", name, source, entry["bytes"] / 1e6, cached)
    fetch([source], cached, checksum=f"sha256:{entry['sha256']}")
    return cached


def cache_folder() -> Path:
    """Where fetched checkpoints are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "hrn"


def enter(path: Path, results: Path, trained_on: str, folder: Path = FOLDER) -> str:
    """Enter a checkpoint of `folder` and its scores into the manifest; its name is the file's.

    Args:
        path: the checkpoint, in `folder`.
        results: a folder of `hrn/sample.py`, with scores.json files of this very checkpoint.
        trained_on: data and effort, in a few words for tables.

    Raises:
        HRNError: not a checkpoint, not in the folder, no scores of it, or some that are not as in a table of results.
    """
    from hrn.evaluation.score_files import read_scores  # scikit-image is slow to import

    path = path.resolve()
    if folder.resolve() not in path.parents:
        raise HRNError(f"{path} is not in {folder}")
    checkpoint, sha256 = load_checkpoint(path), file_hash(path)
    scores: dict[str, Any] = {}
    for found in read_scores(results):
        if found.header.get("checkpoint_sha256") != sha256:
            continue
        if deviations := found.deviations(str(default_mode(checkpoint.config))):
            raise HRNError(f"{found.file}: not as in a table of results: {deviations}")
        here = scores.setdefault(found.name, {})
        if f"x{found.scale}" in here:
            raise HRNError(
                f"{results}: two scores.json of {path.name} on {found.name} x{found.scale}; leave one of them"
            )
        here[f"x{found.scale}"] = {"psnr_y": round(found.psnr_y, 4), "ssim_y": round(found.ssim_y, 4)}
    if not scores:
        raise HRNError(f"{results}: no scores.json of {path.name} with the SHA-256 {sha256}")
    manifest = read_manifest(folder)
    manifest["checkpoints"][path.stem] = {
        "file": path.relative_to(folder.resolve()).as_posix(),
        "bytes": path.stat().st_size,
        "sha256": sha256,
        "config": config_to_dict(checkpoint.config),
        "steps": checkpoint.info.get("steps"),
        "trained_on": trained_on,
        "scores": scores,
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")
    return path.stem


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a checkpoint in checkpoint/")
    parser.add_argument("results", type=Path, help="a folder that hrn/sample.py wrote scores of it into")
    parser.add_argument("--trained_on", required=True, help="data and effort, in a few words for tables")
    args = parser.parse_args(argv)
    print(f"{FOLDER / 'manifest.json'}: entered {enter(args.file, args.results, args.trained_on)}")
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main))
