"""Scores as a table, as CSV and as JSON; each says by which protocol and from which checkpoint."""

import csv
import io
import json
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
from hrn.evaluation.evaluate import METRICS, ImageResult, mean_scores
from hrn.evaluation.metrics import PROTOCOL
from hrn.files import write_text


@dataclass(frozen=True)
class SetReport:
    """The scores of a test set at one scale; pictures are not kept."""

    name: str
    label: str
    """What enlarged."""
    scale: int
    source: str
    protocol: str
    rows: list[dict[str, Any]]
    """One for each image: name, lr_size, seconds, METRICS, and bicubic_METRICS."""

    def mean(self, prefix: str = "") -> dict[str, float]:
        return mean_scores([{m: row[prefix + m] for m in METRICS} for row in self.rows])

    @property
    def seconds(self) -> float:
        return float(np.mean([row["seconds"] for row in self.rows]))


def set_report(
    test_set: TestSet, label: str, results: list[ImageResult], *, shave: int, raw_grey: Collection[str] = ()
) -> SetReport:
    """Gather the results of a test set."""
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
    """A Markdown table with a row for each image and the mean."""
    lines = [
        f"| {report.name} x{report.scale} | bicubic PSNR-Y / SSIM-Y | {report.label} PSNR-Y / SSIM-Y | PSNR-RGB | seconds |",
        "|---|---|---|---|---|",
    ]
    for row in report.rows:
        lines.append(
            f"| {row['name']} | {_pair(row, 'bicubic_')} | {_pair(row)} | {row['psnr_rgb']:.2f} | {row['seconds']:.2f} |"
        )
    mean = {
        **report.mean(),
        **(
            {f"bicubic_{m}": v for m, v in report.mean("bicubic_").items()}
            if "bicubic_psnr_y" in report.rows[0]
            else {}
        ),
    }
    lines.append(
        f"| **mean** | {_pair(mean, 'bicubic_')} | {_pair(mean)} | {mean['psnr_rgb']:.2f} | {report.seconds:.2f} |"
    )
    return "\n".join(lines)


def summary_table(reports: list[SetReport]) -> str:
    """A Markdown table with a row for bicubic and one for the model at each scale, a column for each set; PSNR-Y / SSIM-Y."""
    names = list(dict.fromkeys(r.name for r in reports))
    lines = ["| PSNR-Y / SSIM-Y | scale | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for scale in dict.fromkeys(r.scale for r in reports):
        here = {r.name: r for r in reports if r.scale == scale}
        first = next(iter(here.values()))
        for who, prefix in (("bicubic", "bicubic_"), (first.label, "")):
            if f"{prefix}psnr_y" in first.rows[0]:
                cells = (_pair(here[n].mean(prefix)) if n in here else "" for n in names)
                lines.append(f"| {who} | x{scale} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def provenance(device: torch.device | str) -> dict[str, Any]:
    """What a score may depend on besides the checkpoint."""
    return {
        "device": torch.cuda.get_device_name(device)
        if torch.device(device).type == "cuda"
        else f"{torch.device(device).type} ({platform.machine()})",
        "versions": {
            "hrn": __version__,
            "python": platform.python_version(),
            **{m.__name__: str(m.__version__) for m in (torch, np, scipy, skimage)},
            "pillow": PIL.__version__,
        },
    }


def write_reports(report: SetReport, folder: Path, header: dict[str, Any]) -> None:
    """Write scores.csv and scores.json; the CSV's comment lines hold the header too."""
    head = {**header, "set": report.name, "scale": report.scale, "source": report.source, "protocol": report.protocol}
    document = {**head, "mean": {**report.mean(), "seconds": report.seconds}, "images": report.rows}
    write_text(folder / "scores.json", json.dumps(document, indent=1) + "\n")
    text = io.StringIO()
    for key, value in head.items():
        text.write(f"# {key}: {value if isinstance(value, str | int) else json.dumps(value)}\n")
    writer = csv.DictWriter(text, fieldnames=list(report.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(report.rows)
    write_text(folder / "scores.csv", text.getvalue())


def _pair(row: dict[str, Any], prefix: str = "") -> str:
    return f"{row[prefix + 'psnr_y']:.2f} / {row[prefix + 'ssim_y']:.4f}" if f"{prefix}psnr_y" in row else ""
