"""Write a PNG file strip by strip, so that the whole image is never in memory.

The format is ISO/IEC 15948 (https://www.w3.org/TR/png-3/), with 8 bits per sample and no interlacing. Each row is stored as
its difference to the row above (filter "up"). For upscaled photographs, this gives smaller files than choosing a filter for
each row.
"""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hrn.files import atomic_write

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""The PNG colour type for each number of channels: grey, grey and alpha, RGB, RGB and alpha."""
FILTER_UP = 2
LEVEL = 4
"""The zlib compression level. Higher levels take much longer and save little."""


def write_png(
    path: str | Path,
    size: tuple[int, int],
    channels: int,
    strips: Iterable[np.ndarray],
    icc_profile: bytes | None = None,
) -> None:
    """Write an image from strips of rows, atomically.

    Args:
        path: the file to write. If `strips` raises, it is left unchanged.
        size: height and width.
        channels: 1 to 4, see COLOUR_TYPES.
        strips: arrays (h, W, channels) uint8, from top to bottom. Grey strips may be (h, W).
        icc_profile: the colour profile to embed.

    Raises:
        HRNError: the file cannot be written.
        ValueError: the strips do not have this size.
    """
    height, width = size
    with atomic_write(path) as temporary, temporary.open("wb") as file:

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
        filtered[:, 0] = FILTER_UP
        rows = 0
        for strip in strips:
            if strip.shape[1:] not in ((width, channels), (width,) * (channels == 1)):
                raise ValueError(f"the strip {strip.shape} does not fit a width of {width} and {channels} channels")
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
            raise ValueError(f"got {rows} rows, expected {height}")
        chunk(b"IDAT", compressor.flush())
        chunk(b"IEND", b"")
