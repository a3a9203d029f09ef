"""Crops of several methods beside the original, in the layout of super-resolution papers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrn.cli import split_label
from hrn.data.benchmark import Pair, TestImage, find_test_set, single_test_image
from hrn.data.resize import Bicubic
from hrn.errors import HRNError
from hrn.evaluation.crops import Crop, best_crop
from hrn.evaluation.figures.canvas import plt, save
from hrn.evaluation.metrics import score
from hrn.evaluation.sr_folder import SRFolder, read_result
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model
from hrn.model import PRESETS


@dataclass(frozen=True)
class Original:
    """An image to compare methods on."""

    image: TestImage
    set_name: str | None
    """Name of its test set; None for a file of its own."""
    names: tuple[str, ...]
    """Names of all images in its test set, so that files of other images are not taken for results of this one."""


SuperResolver = Callable[[Original, Pair], np.ndarray]
"""Maps an image and its pixels to the super-resolved image, (H, W, 3) uint8."""


@dataclass(frozen=True)
class Comparison:
    """One row of the figure: crops of an image."""

    title: str
    hr: np.ndarray
    """(H, W, 3) uint8 original, drawn as a whole at the left and as the last crop."""
    methods: dict[str, np.ndarray]
    """Maps method names to super-resolved images of the original's size."""
    crop: Crop
    shave: int
    """Border in HR pixels to leave out of the scores below the crops."""


def compare(path: Path, *comparisons: Comparison) -> None:
    """Draw comparisons below one another as PNG, PDF, SVG or WebP."""
    height = 3.2 if len(comparisons) == 1 else 2.4  # in inches
    widths = [
        [height * min(1.5, c.hr.shape[1] / c.hr.shape[0])]
        + [height * c.crop.width / c.crop.height] * (len(c.methods) + 1)
        for c in comparisons
    ]
    across = max(sum(row) + 0.1 * len(row) for row in widths)
    figure = plt.figure(figsize=(across, (height + 0.5) * len(comparisons)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(comparisons), 1))
    for part, comparison, row in zip(parts, comparisons, widths, strict=True):
        _draw_row(part.subplots(1, len(row), width_ratios=row), comparison)
    save(figure, path)


def _draw_row(axes: np.ndarray, comparison: Comparison) -> None:
    hr, crop = comparison.hr, comparison.crop
    axes[0].imshow(hr, interpolation="antialiased")
    corner = (crop.x - 0.5, crop.y - 0.5)
    box = plt.Rectangle(corner, crop.width, crop.height, fill=False, edgecolor="#e02020", linewidth=1.6)
    axes[0].add_patch(box)
    axes[0].set_xlabel(_drawable(comparison.title), parse_math=False)
    for axis, (name, image) in zip(axes[1:-1], comparison.methods.items(), strict=True):
        axis.imshow(crop.of(image), interpolation="nearest")
        scores = score(image, hr, comparison.shave)
        axis.set_xlabel(f"{_drawable(name)}\n{scores['psnr_y']:.2f} dB / {scores['ssim_y']:.4f}", parse_math=False)
    axes[-1].imshow(crop.of(hr), interpolation="nearest")
    axes[-1].set_xlabel("original")
    for axis in axes:
        axis.set(xticks=[], yticks=[])


def _drawable(text: str) -> str:
    """Escape what Matplotlib cannot draw: bytes of a file name that is not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def comparisons_of(
    images: Sequence[str], test_sets: Sequence[Path], methods: Sequence[str], scale: int, crops: Sequence[Crop] = ()
) -> list[Comparison]:
    """Super-resolve images with several methods, or read SR images of other programs.

    Args:
        images: files of originals, or names of images in the test sets.
        test_sets: test sets to search for the names.
        methods: each `bicubic`, a folder of SR images (see :class:`hrn.evaluation.sr_folder.SRFolder`), a
            checkpoint or the name of one, or a model whose included checkpoint is used (a folder of a model's name needs
            `./`); `LABEL=METHOD` names it.
        scale: scale of all methods.
        crops: one for each image, or one for all; by default the crop in which the last method gains most over the first.

    Raises:
        HRNError: an image or a method that cannot be found, sizes that differ, an image that is too small to score, or a
            crop outside of an image.
    """
    if len(crops) > 1 and len(crops) != len(images):
        raise HRNError(f"{len(crops)} crops for {len(images)} images; pass one for each image, or one for all")
    named: dict[str, SuperResolver] = {}
    for text in methods:
        label, method = _method(text, scale)
        if label in named:
            raise HRNError(f"two methods are called {label}; name them, as in LABEL=METHOD")
        named[label] = method
    originals = _find_originals(images, test_sets, scale)
    chosen = [crops[i % len(crops)] if crops else None for i in range(len(originals))]
    return [_compare_methods(original, named, scale, crop) for original, crop in zip(originals, chosen, strict=True)]


def _compare_methods(
    original: Original, methods: Mapping[str, SuperResolver], scale: int, crop: Crop | None
) -> Comparison:
    """Super-resolve one image with all methods."""
    name, pair = original.image.name, original.image.load(scale)
    size = f"{pair.hr.shape[1]}x{pair.hr.shape[0]}"
    if min(pair.hr.shape[:2]) <= 2 * scale:
        raise HRNError(
            f"{name}: {size} pixels are too few to be scored at x{scale}, which leaves out {scale} at each border"
        )
    results = {label: method(original, pair) for label, method in methods.items()}
    for label, sr in results.items():
        if sr.shape != pair.hr.shape:
            raise HRNError(f"{name} by {label} is {sr.shape[1]}x{sr.shape[0]}, but the original at x{scale} is {size}")
    srs = list(results.values())
    crop = crop or best_crop(pair.hr, srs[0] if len(srs) > 1 else Bicubic(scale)(pair.lr), srs[-1])[0]
    if not crop.lies_in(pair.hr.shape[:2]):
        raise HRNError(f"{name}: {crop} is not inside the image of {size} pixels")
    return Comparison(name, pair.hr, results, crop, scale)


def _find_originals(images: Sequence[str], test_sets: Sequence[Path], scale: int) -> list[Original]:
    known: dict[str, Original] = {}
    for test_set in (find_test_set(path, scale) for path in test_sets):
        names = tuple(image.name for image in test_set.images)
        if twice := known.keys() & set(names) & set(images):
            raise HRNError(
                f"{min(twice)}: an image of both {known[min(twice)].set_name} and {test_set.name}; pass its file"
            )
        known |= {image.name: Original(image, test_set.name, names) for image in test_set.images}
    found = []
    for name in images:
        if name not in known and not Path(name).is_file():
            raise HRNError(f"{name}: neither a file nor an image of {', '.join(map(str, test_sets)) or 'a test set'}")
        found.append(
            known[name] if name in known else Original(single_test_image(Path(name)), None, (Path(name).stem,))
        )
    return found


def _method(text: str, scale: int) -> tuple[str, SuperResolver]:
    """Parse METHOD or LABEL=METHOD; returns the label and the method."""
    label, name = split_label(text)
    if name == "bicubic":
        bicubic = Bicubic(scale)
        return label or name, lambda _, pair: bicubic(pair.lr)
    if name not in PRESETS and Path(name).is_dir():
        results = SRFolder(Path(name))
        return label or Path(name).resolve().name, lambda original, pair: _read(results, original, pair, scale)
    enlarger = Enlarger(load_model(f"{name}_x{scale}" if name in PRESETS else name), scale)
    return label or Path(name).stem, lambda _, pair: enlarger(pair.lr)


def _read(results: SRFolder, original: Original, pair: Pair, scale: int) -> np.ndarray:
    file = results.find(original.image.name, original.names, scale, original.set_name)
    return read_result(file, pair.hr.shape[:2], scale)
