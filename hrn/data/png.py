"""Writing a PNG strip by strip, so that an image need never be whole in memory.

ISO/IEC 15948 (https://www.w3.org/TR/png-3/): 8 bits a sample, not interlaced, each row as its difference to the row above
(filter "up"), which makes smaller files of enlarged photographs than the filter chosen anew for each row.
"""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hrn.files import atomic_write

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""By the number of channels: grey, grey and alpha, RGB, RGB and alpha."""
UP = 2
LEVEL = 4
"""zlib's; higher ones take much longer for little."""


def write_png(
    path: str | Path,
    size: tuple[int, int],
    channels: int,
    strips: Iterable[np.ndarray],
    icc_profile: bytes | None = None,
) -> None:
    """Write an image whose strips come from its top to its bottom; beside `path` first, and then renamed.

    Args:
        path: of the file.
        size: height and width.
        channels: 1 to 4, see COLOUR_TYPES.
        strips: (h, W, channels) uint8, that together have all rows; their errors leave no file.
        icc_profile: of the colours.

    Raises:
        HRNError: the file cannot be written.
        ValueError: the strips are not of this size.
    """
    height, width = size
    with atomic_write(path) as beside, beside.open("wb") as file:

        def chunk(kind: bytes, data: bytes) -> None:
            file.write(
                struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
            )

        file.write(b"\x89PNG\r\n\x1a\n")
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0))
        if icc_profile:
            chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc_profile))
        compressor = zlib.compressobj(LEVEL)
        above = np.zeros((1, width * channels), np.uint8)
        filtered = np.empty((64, 1 + width * channels), np.uint8)
        filtered[:, 0] = UP
        rows = 0
        for strip in strips:
            if strip.shape[1:] not in ((width, channels), (width,) * (channels == 1)):
                raise ValueError(f"a strip of {strip.shape} in an image of {width} pixels and {channels} channels")
            lines = strip.reshape(len(strip), width * channels)
            for first in range(0, len(lines), len(filtered)):
                part = lines[first : first + len(filtered)]
                np.subtract(part[:1], above, out=filtered[:1, 1:])
                np.subtract(part[1:], part[:-1], out=filtered[1 : len(part), 1:])
                above = part[-1:].copy()
                if data := compressor.compress(filtered[: len(part)]):
                    chunk(b"IDAT", data)
            rows += len(lines)
        if rows != height:
            raise ValueError(f"{rows} rows for an image of {height}")
        chunk(b"IDAT", compressor.flush())
        chunk(b"IEND", b"")
