"""Write the scores of a test set as Markdown, CSV and JSON, with the protocol and everything else they depend on."""

import csv
import io
import json
import math
import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import scipy
import skimage
import torch

from hrn import __version__
from hrn.data.benchmark import TestSet
from hrn.evaluation.evaluate import ImageResult
from hrn.evaluation.metrics import METRICS, PROTOCOL, mean_scores
from hrn.files import SCORES, write_text


@dataclass(frozen=True)
class SetReport:
    """The scores of one method on a test set at one scale, without pixels."""

    name: str
    """Name of the test set."""
    label: str
    """Name of the method."""
    scale: int
    source: str
    """Description of where the HR and LR images come from."""
    protocol: str
    rows: list[dict[str, Any]]
    """One row per image: name, lr_size, METRICS, bicubic_METRICS if scored, and seconds."""

    @property
    def has_bicubic(self) -> bool:
        return "bicubic_psnr_y" in self.rows[0]

    @property
    def seconds(self) -> float | None:
        """Mean seconds per image; None if they were not measured."""
        seconds = [row["seconds"] for row in self.rows]
        return None if None in seconds else float(np.mean(seconds))

    def mean(self, prefix: str = "") -> dict[str, float]:
        """Return the mean of each metric; with prefix `bicubic_`, of bicubic interpolation."""
        return mean_scores([{m: row[prefix + m] for m in METRICS} for row in self.rows])


def set_report(
    test_set: TestSet, label: str, results: list[ImageResult], *, shave: int, raw_grey: Collection[str] = ()
) -> SetReport:
    """Collect the results of a test set; `shave` and `raw_grey` are those used for scoring."""
    rows = []
    for r in results:
        row = {"name": r.name, "lr_size": f"{r.lr_size[1]}x{r.lr_size[0]}", **r.scores}
        row |= {f"bicubic_{m}": v for m, v in (r.bicubic or {}).items()}
        rows.append({**row, "seconds": r.seconds})
    protocol = PROTOCOL.format(shave=shave)
    if raw := sorted(set(raw_grey) & {r.name for r in results}):
        protocol += f"; {', '.join(raw)} scored on raw grey"
    return SetReport(test_set.name, label, test_set.scale, test_set.source, protocol, rows)


def image_table(report: SetReport) -> str:
    """Return a Markdown table with one row per image, and the mean."""
    lines = [
        f"| {report.name} x{report.scale} | bicubic PSNR-Y / SSIM-Y | {report.label} PSNR-Y / SSIM-Y | PSNR-RGB | seconds |",
        "|---|---|---|---|---|",
    ]
    mean: dict[str, Any] = {"name": "**mean**", **report.mean(), "seconds": report.seconds}
    if report.has_bicubic:
        mean |= {f"bicubic_{m}": v for m, v in report.mean("bicubic_").items()}
    for row in [*report.rows, mean]:
        seconds = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
        scores = f"{_format(row, 'bicubic_')} | {_format(row)} | {row['psnr_rgb']:.2f}"
        lines.append(f"| {row['name']} | {scores} | {seconds} |")
    return "\n".join(lines)


def summary_table(reports: list[SetReport]) -> str:
    """Return a Markdown table of mean PSNR-Y / SSIM-Y.

    It has a column per test set, and for each scale a row of bicubic interpolation and one per method.
    """
    names = list(dict.fromkeys(r.name for r in reports))
    lines = ["| PSNR-Y / SSIM-Y | scale | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for scale in dict.fromkeys(r.scale for r in reports):
        at_scale = [r for r in reports if r.scale == scale]
        rows = {"bicubic": {r.name: _format(r.mean("bicubic_")) for r in at_scale if r.has_bicubic}}
        for r in at_scale:
            rows.setdefault(r.label, {})[r.name] = _format(r.mean())
        lines += [
            f"| {label} | x{scale} | " + " | ".join(row.get(name, "") for name in names) + " |"
            for label, row in rows.items()
            if row
        ]
    return "\n".join(lines)


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that scores may depend on."""
    modules = {m.__name__: str(m.__version__) for m in (torch, np, scipy, skimage)}
    return {"hrn": __version__, "python": platform.python_version(), **modules, "pillow": PIL.__version__}


def provenance(device: torch.device | str) -> dict[str, Any]:
    """Return the device and the versions that a network's scores may depend on."""
    device = torch.device(device)
    name = f"{device.type} ({platform.machine()})"
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "versions": library_versions(),
    }


def write_reports(report: SetReport, folder: Path, header: dict[str, Any]) -> None:
    """Write scores.csv, with the header as comment lines, and scores.json to a folder."""
    head = {**header, "set": report.name, "scale": report.scale, "source": report.source, "protocol": report.protocol}
    mean = {**report.mean(), "seconds": report.seconds}
    document = {**head, "mean": _standard_json(mean), "images": [_standard_json(row) for row in report.rows]}
    write_text(folder / SCORES, json.dumps(document, indent=1, allow_nan=False) + "\n")
    text = io.StringIO()
    for key, value in head.items():
        text.write(f"# {key}: {value if isinstance(value, str | int) else json.dumps(value)}\n")
    writer = csv.DictWriter(text, fieldnames=list(report.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.rows)
    write_text(folder / "scores.csv", text.getvalue())


def _standard_json(row: dict[str, Any]) -> dict[str, Any]:
    """Replace the floats that JSON does not have by the strings `Infinity` (a perfect image) and `NaN` (no SSIM)."""
    return {k: json.dumps(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _format(row: dict[str, Any], prefix: str = "") -> str:
    return f"{row[prefix + 'psnr_y']:.2f} / {row[prefix + 'ssim_y']:.4f}" if f"{prefix}psnr_y" in row else ""
