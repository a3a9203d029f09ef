"""Test sets as people have them on disk: pairs of HR and LR images, found without flags."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from hrn.data.h5 import H5Pairs
from hrn.data.images import EXTENSIONS, Picture, list_images, picture_of, read_picture, read_rgb
from hrn.data.resize import bicubic_lr, modcrop
from hrn.errors import HRNError


@dataclass(frozen=True)
class Pair:
    """An HR image, cropped to `scale` times the size of its LR image; (H, W, 3) uint8 each."""

    hr: np.ndarray
    lr: np.ndarray


@dataclass(frozen=True)
class TestImage:
    """An image to be scored."""

    name: str
    read: Callable[[], tuple[Picture, np.ndarray | None]]
    """Gives the HR picture, and the LR image where there is one."""

    def load(self, scale: int) -> Pair:
        """Read the pair; where there is no LR image, it is MATLAB's bicubic of the cropped HR.

        Raises:
            HRNError: unreadable, too small, or sizes that do not belong together.
        """
        picture, lr = self.read()
        height, width = picture.rgb.shape[:2]
        h, w = height // scale, width // scale
        if min(h, w) < 1:
            raise HRNError(f"{self.name}: {width}x{height} is too small for x{scale}")
        hr = modcrop(picture.rgb, scale)
        if lr is None:
            lr = bicubic_lr(hr, scale)
        if lr.shape[:2] != (h, w):
            raise HRNError(
                f"{self.name}: LR is {lr.shape[1]}x{lr.shape[0]}, but HR of {width}x{height} needs {w}x{h} at x{scale}"
            )
        return Pair(hr, lr)


@dataclass(frozen=True)
class TestSet:
    """A named list of test images at one scale."""

    name: str
    scale: int
    images: tuple[TestImage, ...]
    source: str
    """Where HR and LR come from, for the report."""


LAYOUTS = """\
  Set5/Set5_HRx{s}/*.png    with  Set5/Set5_LR_bicubic/X{s}/*.png   (name it Set5/Set5 or Set5)
  Set5/HR/*                 with  Set5/LR_bicubic/X{s}/*            (without it, LR is made)
  Set5/x{s}/*_HR.png        with  Set5/x{s}/*_LR.png
  Set5/*                    HR images; LR is made by MATLAB's bicubic
  set.h5                    as datasets/div2h5.py writes it"""


def find_test_set(path: str | Path, scale: int) -> TestSet:
    """Find the test set at `path` in any of the layouts above.

    Raises:
        HRNError: nothing of the kind is there, or LR images are missing for some HR images.
    """
    path = Path(path)
    path = path if path.name not in ("", "..") else path.resolve()
    name = path.name or "root"
    if path.is_file() and path.suffix.lower() in (".h5", ".hdf5"):
        pairs = H5Pairs(path, (scale,))
        images = tuple(TestImage(pairs.name(i), partial(_read_h5, pairs, i, scale)) for i in range(len(pairs)))
        return TestSet(path.stem, scale, images, f"{path}: HR and X{scale}")
    # (HR folder, LR folder or None, name, what ends an HR stem)
    candidates = [
        (path.parent / f"{path.name}_HRx{scale}", path.parent / f"{path.name}_LR_bicubic" / f"X{scale}"),
        (path / f"{path.name}_HRx{scale}", path / f"{path.name}_LR_bicubic" / f"X{scale}"),
        (path / "HR", path / "LR_bicubic" / f"X{scale}"),
        (path / "HR", None),
        (path / f"x{scale}", path / f"x{scale}"),
        (path, None),
    ]
    for hr_folder, lr_folder in candidates:
        if not hr_folder.is_dir() or (lr_folder is not None and not lr_folder.is_dir()):
            continue
        hr_paths = list_images(hr_folder)
        if lr_folder == hr_folder:
            hr_paths = [p for p in hr_paths if "HR" in p.stem]
        if hr_paths:
            lr_paths = [find_lr(p, lr_folder, scale) if lr_folder else None for p in hr_paths]
            pairs = zip(hr_paths, lr_paths, strict=True)
            images = tuple(TestImage(hr.stem, partial(_read_files, hr, lr)) for hr, lr in pairs)
            source = f"HR {hr_folder}, LR {lr_folder or 'MATLAB bicubic of HR'}"
            return TestSet(name, scale, images, source)
    raise HRNError(
        f"no test images for x{scale} at {path}; looked for ({', '.join(EXTENSIONS)})\n"
        + LAYOUTS.replace("{s}", str(scale)).replace("Set5", name)
    )


def find_lr(hr: Path, folder: Path, scale: int) -> Path:
    """The LR file of an HR file, in any of the field's ways.

    For 0001: 0001x4, 0001, 0001_LR or 0001_LRx4. An HR in the HR file's name, or x1 or x4 at its end, may be left out.
    In the folder of the HR file itself: img_LR for img_HR.

    Raises:
        HRNError: there is none.
    """
    bare = re.sub(rf"_HR|HR$|(x1|x{scale})$", "", hr.stem)
    names = (
        [hr.stem.replace("HR", "LR")]
        if hr.parent == folder
        else [f"{stem}{end}" for stem in (hr.stem, bare) for end in (f"x{scale}", "", "_LR", f"_LRx{scale}")]
    )
    for name in names:
        for suffix in dict.fromkeys((hr.suffix, *EXTENSIONS)):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise HRNError(f"{hr}: no LR image for it in {folder}; looked for {' or '.join(dict.fromkeys(names))}")


def image_file(path: Path) -> TestImage:
    """An original in a file of its own, whose LR is made by MATLAB's bicubic."""
    return TestImage(path.stem, partial(_read_files, path, None))


def photographs(scale: int) -> TestSet:
    """The photographs that scikit-image carries, as a test set that needs no download."""
    images = tuple(TestImage(name, partial(_read_photograph, name)) for name in PHOTOGRAPHS)
    return TestSet("photographs", scale, images, "HR scikit-image's data, LR MATLAB bicubic of HR")


PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


def _read_photograph(name: str) -> tuple[Picture, None]:
    import skimage.data

    return picture_of(Image.fromarray(getattr(skimage.data, name)())), None


def _read_h5(pairs: H5Pairs, index: int, scale: int) -> tuple[Picture, np.ndarray]:
    return Picture(pairs.read("HR", index), None, False), pairs.read(f"X{scale}", index)


def _read_files(hr: Path, lr: Path | None) -> tuple[Picture, np.ndarray | None]:
    return read_picture(hr), read_rgb(lr) if lr else None
