"""Folders of super-resolved images that another program wrote.

File names are matched as papers name them. For the image `baby` at x4: baby.png, babyx4.png, baby_x4.png, baby_x4_SR.png,
baby_HRN.png and so on, in the folder or in subfolders such as Set5/x4/. For img001 of Urban100, also img_001.
"""

import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

import numpy as np

from hrn.data.images import EXTENSIONS, list_images, read_rgb
from hrn.errors import HRNError

_SEPARATORS = re.compile(r"[_\-. ]+")
_SCALE = re.compile(r"x(\d)|(\d)x", re.IGNORECASE)
_SUFFIX = re.compile(r"[_\-. ]|x\d", re.IGNORECASE)
_NOT_RESULTS = {"LR", "HR", "GT"}
"""Words after an image's name that mark inputs and originals."""


class SRFolder:
    """Super-resolved images in a folder and its subfolders.

    Args:
        path: the folder.

    Raises:
        HRNError: no such folder, or no images in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = list_images(path, recursive=True) if path.is_dir() else []
        if not self.files:
            raise HRNError(f"{path}: not a folder with images ({', '.join(EXTENSIONS)})")

    def match(self, names: Collection[str], scale: int, set_name: str | None = None) -> dict[str, Path]:
        """Find the result of each image.

        Files whose name or subfolder states another scale are ignored. If a subfolder is named like the test set, only
        files in it are used. If several names match a file, the longest one is taken.

        Args:
            names: all image names of the test set.
            scale: the scale of the results.
            set_name: name of the test set.

        Returns:
            Image name to file; images without a result are left out.

        Raises:
            HRNError: several files match one image.
        """
        inside = [file for file in self.files if set_name and set_name.lower() in self._folder_words(file)]
        found: dict[str, Path] = {}
        for file in inside or self.files:
            name = _owner(file.stem, names, scale)
            if name is None:
                continue
            stated = _scales(_words(_rest(file.stem, name, scale))) or _scales(self._folder_words(file))
            if stated and scale not in stated:
                continue
            if name in found:
                raise HRNError(f"{self.path}: two results for {name} at x{scale}: {found[name]} and {file}")
            found[name] = file
        return found

    def find(self, name: str, names: Collection[str], scale: int, set_name: str | None = None) -> Path:
        """Return the result of one image; arguments as :meth:`match`. Raises HRNError if there is none."""
        found = self.match({*names, name}, scale, set_name)
        if name not in found:
            raise HRNError(f"{self.path}: no result for {name} at x{scale}")
        return found[name]

    def unused(self, used: Collection[Path]) -> list[str]:
        """Return the files of the folder that are not in `used`, as relative paths."""
        return [str(file.relative_to(self.path)) for file in self.files if file not in used]

    def _folder_words(self, file: Path) -> set[str]:
        """Return the names of the subfolders that contain a file, and the words in them, in lower case."""
        folders = [part.lower() for part in file.relative_to(self.path).parts[:-1]]
        return {word for folder in folders for word in (folder, *_words(folder))}


def read_result(path: Path, size: tuple[int, int], scale: int) -> np.ndarray:
    """Read a super-resolved image, cropped to the size of its original.

    Args:
        path: the file.
        size: height and width of the HR image, cropped to multiples of the scale.
        scale: results may be larger than `size` by less than this, because their program did not crop the HR image.

    Raises:
        HRNError: the file cannot be read or has a different size.
    """
    sr = read_rgb(path)
    if not all(0 <= ours - theirs < scale for ours, theirs in zip(sr.shape[:2], size, strict=True)):
        raise HRNError(
            f"{path}: {sr.shape[1]}x{sr.shape[0]} pixels instead of {size[1]}x{size[0]} (the HR image, cropped to "
            f"multiples of {scale}); only results larger by less than {scale} pixels are cropped. If they were made from other HR "
            "images, such as GTmod12, score them with those as --test_data_dir"
        )
    return sr[: size[0], : size[1]]


def _owner(stem: str, names: Collection[str], scale: int) -> str | None:
    """Return the longest image name that a file's stem can stand for."""
    return max((name for name in names if _rest(stem, name, scale) is not None), key=len, default=None)


def _rest(stem: str, name: str, scale: int) -> str | None:
    """Return the part of a stem after the image's name; None if it is not a result of this image."""
    for base in _spellings(name, scale):
        rest = stem.removeprefix(base) if stem.startswith(base) else None
        if rest == "":
            return rest
        if rest and _SUFFIX.match(rest) and not _NOT_RESULTS.intersection(_words(rest.upper())):
            return rest
    return None


@cache
def _spellings(name: str, scale: int) -> list[str]:
    """Return the name, and the name without a mark of HR images or of the scale at its end: baby for baby_HR_x4.

    Images of Urban100 are called img001 or img_001.
    """
    names = [name, re.sub(rf"([_-]HR|(?<![A-Za-z])HR|[_-]?x{scale})+$", "", name) or name]
    others = [re.sub(r"^img(_?)(?=\d)", lambda found: "img" if found[1] else "img_", text) for text in names]
    return list(dict.fromkeys(names + others))


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text) if word]


def _scales(words: Iterable[str]) -> set[int]:
    """Return the scales stated by words such as x4 or 4x."""
    matches = [match for word in words if (match := _SCALE.fullmatch(word))]
    return {int(match[1] or match[2]) for match in matches}
