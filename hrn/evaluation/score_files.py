"""What `hrn/sample.py` wrote: scores.json files, read and checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrn.errors import HRNError
from hrn.evaluation.metrics import PROTOCOL


@dataclass(frozen=True)
class SetScores:
    """The mean scores of a test set at a scale."""

    file: Path
    name: str
    scale: int
    psnr_y: float
    """dB."""
    ssim_y: float
    header: Mapping[str, Any]
    """What they depend on: checkpoint_sha256, mode, self_ensemble, precision, protocol, ..."""

    def deviations(self, mode: str) -> str:
        """What is not as in a table of results, in words: the mode of the network, fp32, no ensemble, a border of the scale."""
        usual = {
            "mode": mode,
            "self_ensemble": False,
            "precision": "fp32",
            "protocol": PROTOCOL.format(shave=self.scale),
        }
        found = {k: self.header.get(k) for k in usual}
        return ", ".join(f"{k} is {found[k]!r}, not {v!r}" for k, v in usual.items() if found[k] != v)


def read_scores(folder: Path) -> list[SetScores]:
    """All scores in a folder and its subfolders. Raises HRNError where one is damaged."""
    scores = []
    for file in sorted(folder.rglob("scores.json")):
        try:
            header = json.loads(file.read_text(encoding="utf-8"))
            mean = header["mean"]
            means = float(mean["psnr_y"]), float(mean["ssim_y"])
            scores.append(SetScores(file, str(header["set"]), int(header["scale"]), *means, header))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HRNError(f"{file}: not scores of hrn/sample.py ({error})") from None
    return scores
