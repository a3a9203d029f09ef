"""Test sets in the layouts in common use: pairs of HR and LR images, found from the path alone."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hrn.data.images import EXTENSIONS, check_lr_size, list_images, picture_of, read_rgb
from hrn.data.resize import bicubic_lr, modcrop
from hrn.errors import HRNError

if TYPE_CHECKING:
    from hrn.data.h5 import H5Pairs

STANDARD_SETS = ("Set5", "Set14", "B100", "Urban100", "Manga109")
"""Standard test sets. A folder whose name differs only in capitalisation is reported under this spelling."""
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")
"""The images of scikit-image that make up the set `photographs`."""
FINGERPRINT_IMAGES = 4
"""Maximum number of images whose pixels enter a fingerprint."""
HR_IN_NAME = re.compile(r"(?<![A-Z])HR(?![A-Z])")
"""`HR` in a file name, but not within a word such as CHRIS."""
LAYOUTS = """\
  Set5/Set5_HRx{s}/*.png    with  Set5/Set5_LR_bicubic/X{s}/*.png   (path Set5/Set5 or Set5)
  Set5/HR/*                 with  Set5/LR_bicubic/X{s}/*            (LR is made if this folder is missing)
  Set5/GTmod12/*            with  Set5/LRbicx{s}/*                  (of BasicSR)
  Set5/x{s}/*_HR.png        with  Set5/x{s}/*_LR.png
  Set5/*                    HR images; LR is made by MATLAB's bicubic
  set.h5                    written by datasets/div2h5.py"""


@dataclass(frozen=True)
class Pair:
    """An HR image, cropped to `scale` times the size of its LR image; (H, W, 3) uint8 each."""

    hr: np.ndarray
    lr: np.ndarray


@dataclass(frozen=True)
class TestImage:
    """An image of a test set."""

    name: str
    read: Callable[[], tuple[np.ndarray, np.ndarray | None]]
    """Reads HR and LR, (H, W, 3) uint8. LR is None if the set has no LR images."""

    def load(self, scale: int) -> Pair:
        """Read the pair. A missing LR image is made from the cropped HR image by MATLAB's bicubic.

        Raises:
            HRNError: an image is unreadable or too small, or the sizes of HR and LR do not match.
        """
        hr, lr = self.read_checked(scale)
        return Pair(hr, bicubic_lr(hr, scale) if lr is None else lr)

    def read_checked(self, scale: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Read HR, cropped to a multiple of `scale`, and LR if the set has it. Raises the errors of :meth:`load`."""
        hr, lr = self.read()
        height, width = hr.shape[:2]
        if min(height, width) < scale:
            raise HRNError(f"{self.name}: {width}x{height} is too small for x{scale}")
        if lr is not None:
            check_lr_size(f"{self.name}: LR", lr.shape[:2], "HR", (height, width), scale)
        return modcrop(hr, scale), lr


@dataclass(frozen=True)
class TestSet:
    """A named list of test images at one scale."""

    name: str
    scale: int
    images: tuple[TestImage, ...]
    source: str
    """The origin of the HR and LR images, for the report."""

    @property
    def has_lr(self) -> bool:
        """Whether the set has LR images of its own. Raises HRNError if the first image cannot be read."""
        return self.images[0].read()[1] is not None

    def check_names(self) -> None:
        """Raise HRNError if two images have the same name."""
        counts = Counter(image.name for image in self.images)
        if double := next((name for name, count in counts.items() if count > 1), None):
            raise HRNError(f"{self.source}: two images are called {double}; rename one of them")

    def verify(self, least: int, first: int = 0, every: int = 1) -> None:
        """Read each pair once, so that unusable images are found before a long run.

        Args:
            least: the least height and width of HR in pixels that scores need.
            first: the index of the first image to read.
            every: the step between two indices, so that several processes can share the work.

        Raises:
            HRNError: a pair cannot be read, or its HR image is smaller.
        """
        for image in self.images[first::every]:
            h, w = image.read_checked(self.scale)[0].shape[:2]
            if min(h, w) < least:
                raise HRNError(f"{self.name}: {image.name}: {w}x{h} pixels, but scores need at least {least}x{least}")

    def fingerprint(self) -> str:
        """Return a short hash of the names of all images and of the pixels of some of them, to distinguish sets with the same name.

        Raises:
            HRNError: an image cannot be read.
        """
        digest = hashlib.sha256(repr([image.name for image in self.images]).encode(errors="backslashreplace"))
        for image in self.images[:: -(-len(self.images) // FINGERPRINT_IMAGES)]:
            for pixels in image.read():
                digest.update(b"" if pixels is None else pixels.tobytes())
        return digest.hexdigest()[:16]


def find_test_set(path: str | Path, scale: int) -> TestSet:
    """Find the test set at `path` in any of the layouts in LAYOUTS.

    Raises:
        HRNError: no test set was found, or LR images are missing for some HR images.
    """
    path = Path(path)
    path = path if path.name not in ("", "..") else path.resolve()
    if path.is_file() and path.suffix.lower() in (".h5", ".hdf5"):
        return _h5_test_set(path, scale)
    folder = path.name or "root"
    candidates = [  # HR folder, and LR folder or None
        (path.parent / f"{path.name}_HRx{scale}", path.parent / f"{path.name}_LR_bicubic" / f"X{scale}"),
        (path / f"{path.name}_HRx{scale}", path / f"{path.name}_LR_bicubic" / f"X{scale}"),
        (path / "HR", path / "LR_bicubic" / f"X{scale}"),
        (path / "GTmod12", path / f"LRbicx{scale}"),
        (path / "HR", None),
        (path / "GTmod12", None),
        (path / f"x{scale}", path / f"x{scale}"),
        (path, None),
    ]
    for hr_folder, lr_folder in candidates:
        if not hr_folder.is_dir() or (lr_folder is not None and not lr_folder.is_dir()):
            continue
        hr_paths = list_images(hr_folder)
        if lr_folder is None and _has_pairs(hr_paths):
            lr_folder = hr_folder
        if lr_folder == hr_folder:
            hr_paths = [p for p in hr_paths if HR_IN_NAME.search(p.stem)]
        if hr_paths:
            lr_paths = [find_lr(p, lr_folder, scale) if lr_folder else None for p in hr_paths]
            pairs = zip(hr_paths, lr_paths, strict=True)
            images = tuple(TestImage(hr.stem, partial(_read_files, hr, lr)) for hr, lr in pairs)
            name = next((name for name in STANDARD_SETS if name.lower() == folder.lower()), folder)
            return TestSet(name, scale, images, f"HR {hr_folder}, LR {lr_folder or 'MATLAB bicubic of HR'}")
    raise HRNError(
        f"no test images for x{scale} at {path}. Supported layouts ({', '.join(EXTENSIONS)}):\n"
        + LAYOUTS.replace("{s}", str(scale)).replace("Set5", folder)
    )


def _has_pairs(paths: list[Path]) -> bool:
    """Return whether the images of a folder include HR and LR of one image, such as img_HR.png and img_LR.png."""
    stems = {path.stem for path in paths}
    return any(HR_IN_NAME.search(stem) and HR_IN_NAME.sub("LR", stem) in stems for stem in stems)


def find_lr(hr: Path, folder: Path, scale: int) -> Path:
    """Find the LR file of an HR file by the naming conventions in use.

    For 0001, the LR file may be 0001x4, 0001, 0001_LR or 0001_LRx4. `HR` in the HR file's name, and x1 or x4 at its end, may
    be omitted. In the folder of the HR file itself, img_LR belongs to img_HR.

    Raises:
        HRNError: no such file exists.
    """
    bare = re.sub(rf"_HR|HR$|(x1|x{scale})$", "", hr.stem)
    names = (
        [HR_IN_NAME.sub("LR", hr.stem)]
        if hr.parent == folder
        else [f"{stem}{end}" for stem in (hr.stem, bare) for end in (f"x{scale}", "", "_LR", f"_LRx{scale}")]
    )
    for name in names:
        for suffix in dict.fromkeys((hr.suffix, *EXTENSIONS)):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise HRNError(f"{hr}: no LR image in {folder}; tried the names {', '.join(dict.fromkeys(names))}")


def single_test_image(path: Path) -> TestImage:
    """Return a single HR file as a test image. Its LR image is made by MATLAB's bicubic."""
    return TestImage(path.stem, partial(_read_files, path, None))


def photographs(scale: int) -> TestSet:
    """Return the photographs included in scikit-image as a test set that needs no download."""
    images = tuple(TestImage(name, partial(_read_photograph, name)) for name in PHOTOGRAPHS)
    return TestSet("photographs", scale, images, "HR scikit-image's data, LR MATLAB bicubic of HR")


def _read_photograph(name: str) -> tuple[np.ndarray, None]:
    import skimage.data

    return picture_of(Image.fromarray(getattr(skimage.data, name)())).rgb, None


def _h5_test_set(path: Path, scale: int) -> TestSet:
    from hrn.data.h5 import H5Pairs  # h5py is not needed for image files

    pairs = H5Pairs(path, (scale,))
    images = tuple(TestImage(pairs.name(i), partial(_read_h5, pairs, i, scale)) for i in range(len(pairs)))
    return TestSet(path.stem, scale, images, f"{path}: HR and X{scale}")


def _read_h5(pairs: "H5Pairs", index: int, scale: int) -> tuple[np.ndarray, np.ndarray]:
    return pairs.read("HR", index), pairs.read(f"X{scale}", index)


def _read_files(hr: Path, lr: Path | None) -> tuple[np.ndarray, np.ndarray | None]:
    return read_rgb(hr), read_rgb(lr) if lr else None
