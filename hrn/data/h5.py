"""HR and LR image pairs in one HDF5 file, in the layout of the CARN repository (2018). Does not need PyTorch.

The file has the group `HR` and a group `X{s}` for each scale. Each holds uint8 (H, W, 3) datasets with the keys "0", "1", ...
A key names the same image in all groups.
"""

import errno
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from hrn.data.images import EXTENSIONS, MAX_PIXELS, check_lr_size
from hrn.errors import HRNError

_DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)
"""The exceptions that h5py raises for damaged files."""
FINGERPRINT_IMAGES = 16
"""Maximum number of images whose pixels enter a fingerprint."""
RESERVE = 64 * 2**20
"""Bytes of disk space that are left free, in part for the index of the h5 file."""


class H5Pairs:
    """Read access to an h5 file of image pairs.

    The object can be pickled: each process opens the file for itself on first use.

    Args:
        path: the h5 file.
        scales: the scales whose groups X{s} must exist.

    Raises:
        HRNError: the file is missing or not HDF5, a group or image is missing, or the sizes of a pair do not match.
    """

    def __init__(self, path: str | Path, scales: tuple[int, ...]) -> None:
        self.path = Path(path)
        self.scales = scales
        self._file: h5py.File | None = None
        if not self.path.is_file():
            raise HRNError(f"no such h5 file: {self.path}. Create it with datasets/div2h5.py (see its --help).")
        with self._h5_errors("not a readable h5 file"), h5py.File(self.path, "r") as file:
            self.keys, self.hr_sizes = self._check(file)

    def _check(self, file: h5py.File) -> tuple[list[str], list[tuple[int, int]]]:
        """Validate the file; return the keys and the HR sizes."""
        for group in self.groups:
            if not isinstance(file.get(group), h5py.Group):
                raise HRNError(
                    f"{self.path}: has no group {group!r} (found: {', '.join(file) or 'none'}); "
                    "list all scales in div2h5.py --scales"
                )
        keys = sorted(file["HR"], key=lambda k: (len(k), k))
        if not keys:
            raise HRNError(f"{self.path}: contains no images")
        sizes = []
        for key in keys:
            size = self._size(file, "HR", key)
            for s in self.scales:
                check_lr_size(f"{self.path}: X{s}/{key}", self._size(file, f"X{s}", key), f"HR/{key}", size, s)
            sizes.append(size)
        return keys, sizes

    def _size(self, file: h5py.File, group: str, key: str) -> tuple[int, int]:
        """Return the height and width of an image after checking its type and shape."""
        data = file[group].get(key)
        if not isinstance(data, h5py.Dataset):
            raise HRNError(f"{self.path}: image {group}/{key} is missing")
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3:
            raise HRNError(f"{self.path}: {group}/{key} is {data.dtype} {data.shape}, expected uint8 (H, W, 3)")
        if data.shape[0] * data.shape[1] > MAX_PIXELS:
            raise HRNError(f"{self.path}: {group}/{key} has more pixels than the limit of {MAX_PIXELS:,}")
        return data.shape[0], data.shape[1]

    def verify(self, first: int = 0, every: int = 1) -> None:
        """Read each image once.

        Args:
            first: the index of the first image to read.
            every: the step between two indices, so that several processes can share the work.

        Raises:
            HRNError: an image cannot be read.
        """
        for index in range(first, len(self), every):
            for group in self.groups:
                self.read(group, index)
        self.close()

    def fingerprint(self) -> str:
        """Return a short hash of the sizes of all images and of the pixels of some of them, to distinguish files with the same name.

        Raises:
            HRNError: an image cannot be read.
        """
        digest = hashlib.sha256(repr((self.keys, self.hr_sizes)).encode())
        for index in range(0, len(self), -(-len(self) // FINGERPRINT_IMAGES)):
            for group in self.groups:
                digest.update(self.read(group, index).tobytes())
        self.close()
        return digest.hexdigest()[:16]

    def close(self) -> None:
        """Close the file until the next read, so that DataLoader processes do not inherit it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of the groups: HR and one for each scale."""
        return ("HR", *(f"X{s}" for s in self.scales))

    @property
    def file(self) -> h5py.File:
        """The open file."""
        if self._file is None:
            self._file = h5py.File(self.path, "r")
        return self._file

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, index: int) -> str:
        """Return the stem of an image's original file if the h5 file states it, else the key. It is a valid file name."""
        key = self.keys[index]
        with self._h5_errors(f"cannot read the name of HR/{key}"):
            stored = self.file["HR"][key].attrs.get("name")
        stored = stored.decode(errors="replace") if isinstance(stored, bytes) else stored
        stem = _stem(stored) if isinstance(stored, str) else ""
        return next(name for name in (stem, key, str(index)) if _is_file_name(name))

    def read(self, group: str, index: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """Read an image or a part of it.

        Args:
            group: `HR`, `X2`, ...
            index: the index of the image.
            rows: the rows to read.
            columns: the columns to read.

        Returns:
            (h, w, 3) uint8. Only this part is read from the disk.

        Raises:
            HRNError: the file is damaged.
        """
        with self._h5_errors(f"cannot read {group}/{self.keys[index]}"):
            return self.file[group][self.keys[index]][rows, columns]

    @contextmanager
    def _h5_errors(self, message: str) -> Iterator[None]:
        """Convert exceptions of h5py to HRNError."""
        try:
            yield
        except _DAMAGED as error:
            raise HRNError(f"{self.path}: {message} ({error})") from None


def write_pair(file: h5py.File, key: int, images: Mapping[str, np.ndarray], name: str) -> None:
    """Add an image and its LR images to an open h5 file.

    Args:
        file: the h5 file, open for writing.
        key: the number of the image.
        images: by group name (`HR`, `X2`, ...), (H, W, 3) uint8.
        name: the name of the original file.

    Raises:
        OSError: the disk is nearly full. HDF5 would crash on a full disk.
    """
    if shutil.disk_usage(Path(file.filename).parent).free < RESERVE + sum(image.nbytes for image in images.values()):
        raise OSError(errno.ENOSPC, "the disk is nearly full")
    for group, image in images.items():
        file.create_dataset(f"{group}/{key}", data=image)
    file[f"HR/{key}"].attrs["name"] = name.encode(errors="backslashreplace").decode()


def _stem(name: str) -> str:
    """Remove the suffix of an image file from a name."""
    return name[: -len(suffix)] if (suffix := Path(name).suffix).lower() in EXTENSIONS else name


def _is_file_name(name: str) -> bool:
    """Return whether a name is a valid file name on any system and contains no path."""
    return name.strip(" .") != "" and name.isprintable() and not re.search(r'[/\\:*?"<>|]', name)
