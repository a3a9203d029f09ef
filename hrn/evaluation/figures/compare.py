"""Crops of several methods beside the original, in the layout of super-resolution papers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hrn.data.benchmark import TestImage, find_test_set, image_file
from hrn.data.images import EXTENSIONS, list_images, read_rgb
from hrn.data.resize import Bicubic
from hrn.errors import HRNError
from hrn.evaluation.crops import Crop, best_crop
from hrn.evaluation.figures.canvas import plt, save
from hrn.evaluation.metrics import score
from hrn.inference.enlarger import Enlarger
from hrn.inference.upscale import load_model
from hrn.model import PRESETS

Method = Callable[[str, np.ndarray], np.ndarray]
"""The name of an image and its LR (H, W, 3) uint8 to the super-resolved image."""


@dataclass(frozen=True)
class Comparison:
    """A row of crops of an image."""

    title: str
    hr: np.ndarray
    """(H, W, 3) uint8 original, which is drawn whole at the left, and as the last crop."""
    methods: dict[str, np.ndarray]
    """Name to super-resolved image, of HR's size."""
    crop: Crop
    shave: int
    """Of the scores under each crop."""


def compare(path: Path, *comparisons: Comparison) -> None:
    """Draw comparisons, one below the other, as PNG, PDF, SVG or WebP."""
    height = 3.2 if len(comparisons) == 1 else 2.4  # inches
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
    axes[0].set_xlabel(comparison.title, parse_math=False)
    for axis, (name, image) in zip(axes[1:-1], comparison.methods.items(), strict=True):
        axis.imshow(crop.of(image), interpolation="nearest")
        scores = score(image, hr, comparison.shave)
        axis.set_xlabel(f"{name}\n{scores['psnr_y']:.2f} dB / {scores['ssim_y']:.4f}", parse_math=False)
    axes[-1].imshow(crop.of(hr), interpolation="nearest")
    axes[-1].set_xlabel("original")
    for axis in axes:
        axis.set(xticks=[], yticks=[])


def comparisons_of(
    images: Sequence[str], test_sets: Sequence[Path], methods: Sequence[str], scale: int, crops: Sequence[Crop] = ()
) -> list[Comparison]:
    """Enlarge images by methods, or take what others made of them.

    Args:
        images: files of originals, or names of images in the test sets.
        test_sets: where the names are looked for.
        methods: `bicubic`; a folder with a super-resolved file of each image's name, anybody's; a checkpoint, or the name of
            one; a model, whose shipped checkpoint is taken. `LABEL=METHOD` says what to call it.
        scale: of all.
        crops: one for each image, or one for all; by default where the last method gains most over the first.

    Raises:
        HRNError: an image or a method that cannot be found, sizes that differ, an image that is too small to be scored,
            or a crop beyond an image.
    """
    if len(crops) > 1 and len(crops) != len(images):
        raise HRNError(f"{len(crops)} crops for {len(images)} images; give one for each, or one for all")
    ways: dict[str, Method] = {}
    for method in methods:
        label, way = _method(method, scale)
        if label in ways:
            raise HRNError(f"two methods are called {label}; name them by LABEL=METHOD")
        ways[label] = way
    found = []
    for i, image in enumerate(_find(images, test_sets, scale)):
        pair = image.load(scale)
        if min(pair.hr.shape[:2]) <= 2 * scale:
            size = f"{pair.hr.shape[1]}x{pair.hr.shape[0]}"
            raise HRNError(
                f"{image.name}: {size} is too small to be scored at x{scale}, without {scale} pixels of border"
            )
        made = {label: way(image.name, pair.lr) for label, way in ways.items()}
        for label, sr in made.items():
            if sr.shape != pair.hr.shape:
                sizes = ["x".join(map(str, x.shape[1::-1])) for x in (sr, pair.hr)]
                raise HRNError(f"{image.name} by {label} is {sizes[0]}, but the original at x{scale} {sizes[1]}")
        first, *_, last = *(made.values() if len(made) > 1 else [Bicubic(scale)(pair.lr)]), *made.values()
        crop = crops[i % len(crops)] if crops else best_crop(pair.hr, first, last)[0]
        if not crop.lies_in(pair.hr.shape[:2]):
            raise HRNError(f"{image.name} is {pair.hr.shape[1]}x{pair.hr.shape[0]}; {crop} is not all in it")
        found.append(Comparison(image.name, pair.hr, made, crop, scale))
    return found


def _find(images: Sequence[str], test_sets: Sequence[Path], scale: int) -> list[TestImage]:
    known = {image.name: image for path in test_sets for image in find_test_set(path, scale).images}
    found = []
    for name in images:
        if name not in known and not Path(name).is_file():
            raise HRNError(f"no image {name}: neither a file nor in {', '.join(map(str, test_sets)) or 'a test set'}")
        found.append(known[name] if name in known else image_file(Path(name)))
    return found


def _method(text: str, scale: int) -> tuple[str, Method]:
    """What a method is called, and how it is applied."""
    label, _, what = text.rpartition("=")
    if what == "bicubic":
        bicubic = Bicubic(scale)
        return label or what, lambda _, lr: bicubic(lr)
    if Path(what).is_dir():
        return label or Path(what).resolve().name, partial(_read_result, Path(what), scale)
    enlarger = Enlarger(load_model(f"{what}_x{scale}" if what in PRESETS else what), scale)
    return label or Path(what).stem, lambda _, lr: enlarger(lr)


def _read_result(folder: Path, scale: int, name: str, lr: np.ndarray) -> np.ndarray:
    """The file in a folder, or in its subfolders, that is called like the image: img.png, imgx4.png, img_x4_EDSR.png."""
    found = [p for p in list_images(folder, recursive=True) if p.stem == name or _is_result(p.stem, name, scale)]
    at_scale = [p for p in found if f"x{scale}" in (part.lower() for part in p.parts)]  # as hrn/sample.py sorts them
    found = at_scale or found
    if len(found) != 1:
        told = " and ".join(map(str, found[:2])) if found else f"none of {', '.join(EXTENSIONS)}"
        raise HRNError(f"{folder}: one file of {name} at x{scale} is needed, but there is {told}")
    return read_rgb(found[0])


def _is_result(stem: str, name: str, scale: int) -> bool:
    rest = stem.removeprefix(name).lower() if stem.startswith(name) else ""
    return rest.startswith((f"x{scale}", f"_x{scale}", f"-x{scale}", "_sr", "-sr"))
