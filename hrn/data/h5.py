"""Training and validation pairs in one HDF5 file, in the layout that CARN's users have had since 2018.

Groups `HR`, `X2`, `X3`, `X4`, `X8`; in each, uint8 (H, W, 3) datasets keyed "0", "1", ...; the same key is the same image.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from hrn.data.images import EXTENSIONS
from hrn.errors import HRNError

_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""What h5py raises on damaged files."""


class H5Pairs:
    """Read access to an h5 file of pairs. The file is opened at first use, once in each process, so this can be pickled.

    Args:
        path: the h5 file.
        scales: the groups X{s} that must be there.

    Raises:
        HRNError: no such file, not an HDF5 file, a group or image missing, or sizes of a pair that do not match.
    """

    def __init__(self, path: str | Path, scales: tuple[int, ...]) -> None:
        self.path = Path(path)
        self.scales = scales
        self._file: h5py.File | None = None
        if not self.path.is_file():
            raise HRNError(f"no such h5 file: {self.path}\nMake it with: python datasets/div2h5.py (--help tells how)")
        with self._reading("not a readable h5 file"), h5py.File(self.path, "r") as file:
            self.keys, self.hr_sizes = self._check(file)

    def _check(self, file: h5py.File) -> tuple[list[str], list[tuple[int, int]]]:
        for group in self.groups:
            if not isinstance(file.get(group), h5py.Group):
                raise HRNError(
                    f"{self.path}: has no group {group!r}, only {', '.join(file) or 'nothing'}; write it with div2h5.py --scales"
                )
        keys = sorted(file["HR"], key=lambda k: (len(k), k))
        if not keys:
            raise HRNError(f"{self.path}: holds no images")
        sizes = []
        for key in keys:
            h, w = self._size(file, "HR", key)
            for s in self.scales:
                lr_h, lr_w = self._size(file, f"X{s}", key)
                if (lr_h, lr_w) != (h // s, w // s):
                    raise HRNError(
                        f"{self.path}: X{s}/{key} is {lr_w}x{lr_h}, but HR/{key} of {w}x{h} needs {w // s}x{h // s}"
                    )
            sizes.append((h, w))
        return keys, sizes

    def _size(self, file: h5py.File, group: str, key: str) -> tuple[int, int]:
        data = file[group].get(key)
        if not isinstance(data, h5py.Dataset):
            raise HRNError(f"{self.path}: image {group}/{key} is missing")
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3:
            raise HRNError(f"{self.path}: {group}/{key} is {data.dtype} {data.shape}, not uint8 (H, W, 3)")
        return data.shape[0], data.shape[1]

    def verify(self, first: int = 0, every: int = 1) -> None:
        """Read every image once, or every `every`-th one from `first`.

        Raises:
            HRNError: one cannot be read.
        """
        for index in range(first, len(self), every):
            for group in self.groups:
                self.read(group, index)
        self.file.close()
        self._file = None  # loading processes are to open it for themselves

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that hold a dataset for each image."""
        return ("HR", *(f"X{s}" for s in self.scales))

    @property
    def file(self) -> h5py.File:
        if self._file is None:
            self._file = h5py.File(self.path, "r")
        return self._file

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        """The stem of the file that an image was made from, where the h5 says it, else its key; can name a file."""
        key = self.keys[index]
        with self._reading(f"cannot read the name of HR/{key}"):
            said = self.file["HR"][key].attrs.get("name")
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        stem = _stem(said) if isinstance(said, str) else ""
        return next(name for name in (stem, key, str(index)) if _names_a_file(name))

    def read(self, group: str, index: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """A part of an image, (h, w, 3) uint8; only that part is read from the disk."""
        with self._reading(f"cannot read {group}/{self.keys[index]}"):
            return self.file[group][self.keys[index]][rows, columns]

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """Errors of h5py in words."""
        try:
            yield
        except _DAMAGED as error:
            raise HRNError(f"{self.path}: {what} ({error})") from None


def _stem(name: str) -> str:
    """A file's name without what ends the name of an image."""
    return name[: -len(suffix)] if (suffix := Path(name).suffix).lower() in EXTENSIONS else name


def _names_a_file(name: str) -> bool:
    """Whether a file can have this name on any system, and does not lie elsewhere by it."""
    return name.strip(" .") != "" and name.isprintable() and not re.search(r'[/\\:*?"<>|]', name)
