"""Read the scores.json files that `hrn/sample.py` writes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrn.errors import HRNError
from hrn.evaluation.metrics import PROTOCOL
from hrn.files import SCORES


@dataclass(frozen=True)
class SetScores:
    """The mean scores of a test set at one scale."""

    file: Path
    name: str
    """Name of the test set."""
    scale: int
    psnr_y: float
    """PSNR-Y in dB."""
    ssim_y: float
    header: Mapping[str, Any]
    """Everything that the scores depend on: checkpoint_sha256, mode, self_ensemble, precision, protocol, ...

    Those of networks also have `parameters` and `multi_adds`.
    """

    def deviations(self, mode: str) -> str:
        """Describe each setting that differs from those of the results tables; empty if none does.

        The tables use fp32, no self-ensemble, whole images and a border equal to the scale.

        Args:
            mode: the default mode of the network.
        """
        usual = {
            "mode": mode,
            "self_ensemble": False,
            "precision": "fp32",
            "tiled": [],
            "protocol": PROTOCOL.format(shave=self.scale),
        }
        found = {k: self.header.get(k) for k in usual}
        found["tiled"] = found["tiled"] or []  # files of earlier versions do not have it
        return ", ".join(f"{k} is {found[k]!r}, not {v!r}" for k, v in usual.items() if found[k] != v)


def read_scores(folder: Path) -> list[SetScores]:
    """Read all scores.json files in a folder and its subfolders. Raises HRNError if one is damaged."""
    scores = []
    for file in sorted(folder.rglob(SCORES)):
        try:
            header = json.loads(file.read_text(encoding="utf-8"))
            mean = header["mean"]
            means = float(mean["psnr_y"]), float(mean["ssim_y"])
            scores.append(SetScores(file, str(header["set"]), int(header["scale"]), *means, header))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HRNError(f"{file}: not scores of hrn/sample.py ({error})") from None
    return scores


def index_scores(scores: Iterable[SetScores]) -> dict[tuple[int, str], SetScores]:
    """Index the scores of one method by scale and test set.

    Raises:
        HRNError: two files are for the same scale and set, or those of one scale have other weights or settings.
    """
    indexed: dict[tuple[int, str], SetScores] = {}
    settings: dict[tuple[int, str], SetScores] = {}
    for found in scores:
        first = indexed.setdefault((found.scale, found.name), found)
        if first is not found:
            raise HRNError(f"two results for {found.name} x{found.scale}: {first.file} and {found.file}")
        for key in ("checkpoint_sha256", "mode", "self_ensemble", "precision"):
            if found.header.get(key) is None:  # bicubic, another program, or an earlier version
                continue
            first = settings.setdefault((found.scale, key), found)
            if found.header[key] != first.header[key]:
                raise HRNError(
                    f"{first.file} and {found.file} differ in {key}; score both again, or keep them in separate folders"
                )
    return indexed
