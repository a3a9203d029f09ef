"""Scores to look at: one HTML page that holds its pictures, opens from disk and needs no network.

`html_report.html` beside this file is its template. Its sliders' pictures, as many as there are, share BUDGET.
"""

import base64
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from hrn.evaluation.crops import Crop, best_crop
from hrn.evaluation.evaluate import ImageResult
from hrn.evaluation.frequency import error_spectrum, frequencies, mean_spectrum
from hrn.evaluation.report import SetReport
from hrn.files import write_text

BUDGET = 24 * 2**20
"""Characters that all pictures of the sliders may take."""
LONGEST_SIDE = 1280
"""Of a picture in a slider."""
CROP_SIDE, CROPS = 48, 4
"""Of a zoomed crop in HR pixels, and how many of each kind a set shows."""
LEAST_GAIN = 1.0
"""Squared grey levels; less cannot be seen."""


@dataclass(frozen=True)
class Slider:
    """An image enlarged in two ways, one above the other."""

    name: str
    before: str
    after: str
    """Data URIs of pictures of the same size."""
    size: tuple[int, int]
    """Width and height of these pictures."""
    full_size: tuple[int, int]
    """Of the images."""


@dataclass(frozen=True)
class Zoom:
    """A crop in three ways."""

    name: str
    crop: Crop
    gain: float
    """By how much the mean squared error of Y is less than bicubic's."""
    bicubic: str
    sr: str
    hr: str


@dataclass
class Section:
    """What the page shows of a test set at a scale."""

    header: dict[str, Any]
    sliders: list[Slider] = field(default_factory=list)
    gains: list[Zoom] = field(default_factory=list)
    losses: list[Zoom] = field(default_factory=list)
    spectra: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """Of bicubic's and of the model's error, for each image."""
    report: SetReport | None = None


class Page:
    """Takes images as they are scored, and keeps only what it will show.

    Args:
        images: how many there will be, over all sets and scales.
    """

    def __init__(self, images: int) -> None:
        self.share = BUDGET // max(1, images) // 2
        self.sections: list[Section] = []

    def begin(self, header: dict[str, Any]) -> None:
        """Begin a test set; `header` is what its scores depend on."""
        self.sections.append(Section(header))

    def add(self, result: ImageResult) -> None:
        """Add a scored image of the set, with its pictures, bicubic's too."""
        section, hr, sr, bicubic = self.sections[-1], result.hr, result.sr, result.bicubic_sr
        before, after = _within(self.share, bicubic, sr)
        full_size = (sr.shape[1], sr.shape[0])
        section.sliders.append(Slider(result.name, _uri(before[0]), _uri(after[0]), after[1], full_size))
        section.spectra.append((error_spectrum(bicubic, hr), error_spectrum(sr, hr)))
        for zooms, worse, better, sign in ((section.gains, bicubic, sr, 1), (section.losses, sr, bicubic, -1)):
            crop, gain = best_crop(hr, worse, better, CROP_SIDE)
            if gain >= LEAST_GAIN:
                parts = [_uri(_png(crop.of(x))) for x in (bicubic, sr, hr)]
                zooms.append(Zoom(result.name, crop, sign * gain, *parts))
                zooms.sort(key=lambda zoom: -abs(zoom.gain))
                del zooms[CROPS:]

    def end(self, report: SetReport) -> None:
        """End the set that was begun last, with its scores."""
        self.sections[-1].report = report

    def write(self, path: Path, label: str) -> None:
        """Write the page of the sets that `label` enlarged."""
        loader = FileSystemLoader(Path(__file__).parent)
        environment = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        sections = [section for section in self.sections if section.report.label == label]
        template = environment.get_template("html_report.html")
        text = template.render(label=label, sections=sections, side=CROP_SIDE, curves=_curves)
        write_text(path, text)


def _within(most: int, *pictures: np.ndarray) -> list[tuple[bytes, tuple[int, int]]]:
    """Pictures of one size as JPEG, and that size: as large as fits into `most` characters for each."""
    h, w = pictures[0].shape[:2]
    factor = min(1.0, LONGEST_SIDE / max(h, w))
    while True:
        size = (max(1, round(w * factor)), max(1, round(h * factor)))
        coded = [_jpeg(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) for picture in pictures]
        excess = max(map(len, coded)) * 4 / 3 / most
        if excess <= 1 or max(size) <= 64:
            return [(code, size) for code in coded]
        factor *= min(0.9, 0.95 * excess**-0.5)


def _jpeg(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90, subsampling="4:4:4")
    return file.getvalue()


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return file.getvalue()


def _uri(code: bytes) -> str:
    kind = "png" if code.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(code).decode('ascii')}"


def _curves(section: Section, width: int, height: int) -> dict[str, Any]:
    """The mean spectra of the errors as points of an SVG of that size, logarithmic upwards, and the labels of its axis."""
    spectra = mean_spectrum(section.spectra)
    spectra = np.log10(np.maximum(np.sqrt(spectra), 1e-3))
    low, high = np.floor(np.nanmin(spectra)), np.ceil(np.nanmax(spectra))

    def at(value: float) -> float:
        return round(height * (high - value) / max(1, high - low), 1)

    across = np.round(width * frequencies(), 1)
    lines = [" ".join(f"{x},{at(y)}" for x, y in zip(across, line, strict=True) if y == y) for line in spectra]
    decades = [(10.0**d, at(d)) for d in np.arange(low, high + 1)]
    return {"bicubic": lines[0], "model": lines[1], "decades": decades}
