"""An HTML report with images: one file that contains its pictures and needs no network.

`html_report.html` beside this file is the template. All slider pictures together are kept within BUDGET,
unless several thousand of them, reduced to 64 pixels, exceed it.
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
"""Maximum number of base64 characters of all slider pictures together."""
MAX_SIDE = 1280
"""Maximum side of a slider picture in pixels."""
CROP_SIDE, CROPS = 48, 4
"""Side of a zoomed crop in HR pixels, and number of gaining and of losing crops per set."""
MIN_GAIN = 1.0
"""Smallest change of the mean squared error that is shown, in squared grey levels; less is invisible."""


@dataclass(frozen=True)
class Slider:
    """An image enlarged by bicubic interpolation and by the method, to compare with a slider."""

    name: str
    before: str
    """Bicubic interpolation, as a data URI."""
    after: str
    """The method's result, as a data URI of the same size."""
    size: tuple[int, int]
    """Width and height of both pictures."""
    full_size: tuple[int, int]
    """Width and height of the original image."""


@dataclass(frozen=True)
class Zoom:
    """The same crop of bicubic interpolation, the result and the original, as data URIs."""

    name: str
    crop: Crop
    gain: float
    """Reduction of the mean squared error of Y against bicubic interpolation."""
    bicubic: str
    sr: str
    hr: str


@dataclass
class Section:
    """The part of the report for one test set at one scale."""

    header: dict[str, Any]
    sliders: list[Slider] = field(default_factory=list)
    gains: list[Zoom] = field(default_factory=list)
    losses: list[Zoom] = field(default_factory=list)
    spectra: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    """For each image, the error spectra of bicubic interpolation and of the method."""
    report: SetReport | None = None


class HtmlReport:
    """Collects images as they are scored and keeps only what the report shows.

    Args:
        images: number of images over all sets, scales and methods.
    """

    def __init__(self, images: int) -> None:
        self.picture_budget = BUDGET // max(1, images) // 2
        self.sections: list[Section] = []

    def begin(self, header: dict[str, Any]) -> None:
        """Begin a test set; `header` states what its scores depend on."""
        self.sections.append(Section(header))

    def add(self, result: ImageResult) -> None:
        """Add a scored image of the current test set; it must still have its pixels and bicubic interpolation."""
        section, hr, sr, bicubic = self.sections[-1], result.hr, result.sr, result.bicubic_sr
        before, after = _encode_within(self.picture_budget, bicubic, sr)
        full_size = (sr.shape[1], sr.shape[0])
        section.sliders.append(Slider(result.name, _uri(before[0]), _uri(after[0]), after[1], full_size))
        section.spectra.append((error_spectrum(bicubic, hr), error_spectrum(sr, hr)))
        for zooms, worse, better, sign in ((section.gains, bicubic, sr, 1), (section.losses, sr, bicubic, -1)):
            crop, gain = best_crop(hr, worse, better, CROP_SIDE)
            if gain >= MIN_GAIN:
                parts = [_uri(_png(crop.of(x))) for x in (bicubic, sr, hr)]
                zooms.append(Zoom(result.name, crop, sign * gain, *parts))
                zooms.sort(key=lambda zoom: -abs(zoom.gain))
                del zooms[CROPS:]

    def end(self, report: SetReport) -> None:
        """End the current test set with its scores."""
        self.sections[-1].report = report

    def write(self, path: Path, label: str) -> None:
        """Write the report of the method called `label`."""
        loader = FileSystemLoader(Path(__file__).parent)
        environment = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        sections = [section for section in self.sections if section.report.label == label]
        template = environment.get_template("html_report.html")
        text = template.render(label=label, sections=sections, side=CROP_SIDE, curves=_curves)
        write_text(path, text)


def _encode_within(budget: int, *pictures: np.ndarray) -> list[tuple[bytes, tuple[int, int]]]:
    """Encode pictures of the same size as JPEG, each within `budget` base64 characters; returns the bytes and (width, height)."""
    h, w = pictures[0].shape[:2]
    factor = min(1.0, MAX_SIDE / max(h, w))
    while True:
        size = (max(1, round(w * factor)), max(1, round(h * factor)))
        encoded = [_jpeg(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) for picture in pictures]
        excess = max(map(len, encoded)) * 4 / 3 / budget
        if excess <= 1 or max(size) <= 64:
            return [(code, size) for code in encoded]
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
    """Return the mean error spectra as points of an SVG of this size, with a logarithmic y axis, and the labels of the axis."""
    spectra = mean_spectrum(section.spectra)
    spectra = np.log10(np.maximum(np.sqrt(spectra), 1e-3))
    low, high = np.floor(np.nanmin(spectra)), np.ceil(np.nanmax(spectra))

    def at(value: float) -> float:
        return round(height * (high - value) / max(1, high - low), 1)

    across = np.round(width * frequencies(), 1)
    lines = [" ".join(f"{x},{at(y)}" for x, y in zip(across, line, strict=True) if y == y) for line in spectra]
    decades = [(10.0**d, at(d)) for d in np.arange(low, high + 1)]
    return {"bicubic": lines[0], "model": lines[1], "decades": decades}
