"""Find checkpoint files by path, by name, or on the Hugging Face Hub.

`checkpoint/manifest.json` lists the included checkpoints with file, size, SHA-256, configuration and scores. The manifest
and the small files are installed with the package as `hrn/shipped`. This module imports no model code.
"""

import json
import logging
import re
from pathlib import Path
from typing import Any

from hrn.errors import HRNError
from hrn.files import file_hash

logger = logging.getLogger(__name__)

_INSTALLED = Path(__file__).with_name("shipped")
CHECKPOINT_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).resolve().parents[1] / "checkpoint"
"""The checkpoint folder: inside the package if it was installed by pip, else the repository's `checkpoint/`."""
_HUB_NAME = re.compile(r"hf:/{1,2}(?P<repo>[^/]+/[^/]+)/(?P<file>[^@]+)(?:@(?P<revision>.+))?")
"""The pattern of a Hub name. `Path` turns `hf://` into `hf:/`, so one slash is accepted too."""


def read_manifest(folder: Path = CHECKPOINT_DIR, *, installed_only: bool = False) -> dict[str, Any]:
    """Read the manifest of a checkpoint folder.

    Args:
        folder: the folder that holds the manifest and its files.
        installed_only: leave out checkpoints whose file is missing. pip installs only the small ones.

    Returns:
        A dict with the key `checkpoints`, which maps names to entries. It is empty if the folder has no manifest.

    Raises:
        HRNError: the manifest cannot be read or is damaged, an entry is incomplete, or a path leads out of the folder.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        return {"checkpoints": {}}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        for name, entry in manifest["checkpoints"].items():
            if missing := {"file", "bytes", "sha256", "config", "scores"} - entry.keys():
                raise ValueError(f"{name} lacks {', '.join(sorted(missing))}")
            if not isinstance(entry["config"], dict) or not isinstance(entry["scores"], dict):
                raise ValueError(f"config or scores of {name} is not an object")
            if Path(entry["file"]).is_absolute() or ".." in Path(entry["file"]).parts:
                raise ValueError(f"{name} is outside the folder: {entry['file']}")
    except OSError as error:
        raise HRNError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HRNError(f"{path}: not a checkpoint manifest ({error})") from None
    if installed_only:
        entries = manifest["checkpoints"].items()
        manifest["checkpoints"] = {name: entry for name, entry in entries if (folder / entry["file"]).is_file()}
    return manifest


def find_checkpoint(name: str | Path, folder: Path = CHECKPOINT_DIR) -> Path:
    """Return the path of a checkpoint file, downloading it from the Hugging Face Hub if necessary.

    Args:
        name: the path of a file, a name in the manifest such as `hrn_light_x4`, or `hf://OWNER/REPO/FILE[@REVISION]`.
        folder: the folder that holds the manifest and its files.

    Raises:
        HRNError: `name` is none of these, the file is missing or its SHA-256 differs from the manifest, or the download
            failed.
    """
    if Path(name).is_file():
        return Path(name)
    text = name.as_posix() if isinstance(name, Path) else name
    if text.startswith("hf:"):
        return _from_hub(text)
    known = read_manifest(folder)["checkpoints"]
    if text not in known:
        names = f" or one of {', '.join(known)}" if known else ""
        raise HRNError(f"no such checkpoint: {name}. Give a file{names}, or hf://OWNER/REPO/FILE.")
    path, sha256 = folder / known[text]["file"], known[text]["sha256"]
    if not path.is_file():
        raise HRNError(
            f"checkpoint {name}: {path} is missing (pip does not install large files); "
            f"give the path of checkpoint/{known[text]['file']} in a copy of the repository"
        )
    if file_hash(path) != sha256:
        raise HRNError(
            f"checkpoint {name}: the SHA-256 of {path} differs from the manifest; to use the file anyway, give its path"
        )
    logger.info("%s: %s", name, path)
    return path


def _from_hub(name: str) -> Path:
    """Return the cached file of a Hub name; `huggingface_hub` downloads it if needed and resumes partial downloads."""
    parts = _HUB_NAME.fullmatch(name)
    if not parts:
        raise HRNError(f"{name}: expected hf://OWNER/REPO/FILE or hf://OWNER/REPO/FILE@REVISION")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise HRNError(f"{name}: this needs huggingface_hub ({error}); run: pip install huggingface_hub") from None
    try:
        path = Path(hf_hub_download(parts["repo"], parts["file"], revision=parts["revision"]))
    except Exception as error:  # errors of huggingface_hub, of its HTTP library (which depends on the version), OSError
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise HRNError(f"{name}: cannot download the file: {reason}") from None
    logger.info("%s: %s", name, path)
    return path
