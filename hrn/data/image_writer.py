"""Write image files, within the limits of their formats."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from hrn.data.images import EXTENSIONS, Picture, to_pillow, to_srgb
from hrn.errors import HRNError
from hrn.files import atomic_write

WITHOUT_ALPHA = (".jpg", ".jpeg", ".bmp")
"""Formats that cannot store transparency."""
WITHOUT_GREY = (".webp", ".avif")
"""Formats that cannot store a single grey channel."""
WITHOUT_PROFILE = (".bmp",)
"""Formats that cannot store a colour profile."""
LARGEST_FILE = dict.fromkeys((".tif", ".tiff", ".bmp"), 2**32 - 2**20)
"""The largest image of uncompressed formats in bytes: offsets in the file have 32 bits, and the header needs some space."""
LONGEST_SIDE = {".png": 2**31 - 1, ".webp": 16383, ".jpg": 65500, ".jpeg": 65500, ".avif": 65536}
"""The largest height and width of formats that have a limit, in pixels."""
_QUALITY = {
    ".webp": {"lossless": True, "exact": True},
    **{suffix: {"quality": 95, "subsampling": "4:4:4"} for suffix in (".jpg", ".jpeg", ".avif")},
}


def write_image(path: str | Path, picture: Picture | np.ndarray) -> None:
    """Write an image atomically, in the format of the suffix: JPEG and AVIF with quality 95, WebP lossless.

    Args:
        path: the file to write.
        picture: a picture, or an array (H, W, 3) uint8.

    Raises:
        HRNError: the suffix is unknown, the image is too large for the format, or the file cannot be written.
    """
    path = Path(path)
    if isinstance(picture, np.ndarray):
        picture = Picture(picture, None, False)
    check_format(path, picture.rgb.shape[:2], picture.channels)
    with atomic_write(path) as temporary:
        save_image(temporary, picture, path)


def save_image(file: Path, picture: Picture, path: Path) -> None:
    """Write an image to `file` in the format of `path`'s suffix, as :func:`write_image` does after its checks."""
    suffix = path.suffix.lower()
    if suffix in WITHOUT_ALPHA:
        picture = replace(picture, alpha=None)
    if suffix in WITHOUT_GREY and picture.grey:
        picture = _in_colour(picture)
    options: dict[str, object] = {"icc_profile": picture.icc_profile} if picture.icc_profile else {}
    options |= _QUALITY.get(suffix, {})
    try:
        to_pillow(picture).save(file, format=Image.registered_extensions()[suffix], **options)
    except (ValueError, RuntimeError, struct.error) as error:  # raised by Pillow's encoders
        raise HRNError(f"cannot write {path}: {error}") from None


def _in_colour(picture: Picture) -> Picture:
    """Convert a grey picture to RGB. A grey profile is not valid in an RGB file, so such colours become sRGB."""
    if not picture.icc_profile or picture.icc_profile[16:20] != b"GRAY":  # the header's colour space
        return replace(picture, grey=False)
    image = to_srgb(Image.fromarray(picture.rgb).convert("L"), picture.icc_profile)
    return replace(picture, rgb=np.asarray(image), grey=False, icc_profile=None)


def check_format(path: Path, size: tuple[int, int], channels: int) -> None:
    """Raise HRNError if Pillow cannot write the format, or if the height and width `size` exceed its limits."""
    suffix = path.suffix.lower()
    if Image.registered_extensions().get(suffix) not in Image.SAVE:
        raise HRNError(f"{path}: unknown image suffix {path.suffix!r}; use one of {', '.join(EXTENSIONS)}")
    side, largest = LONGEST_SIDE.get(suffix), LARGEST_FILE.get(suffix)
    if side and max(size) > side:
        other = "" if suffix == ".png" else "; use PNG"
        raise HRNError(f"{path}: {size[1]}x{size[0]} exceeds the limit of {suffix}, {side} pixels per side{other}")
    if largest and size[0] * size[1] * channels > largest:
        raise HRNError(f"{path}: {size[1]}x{size[0]} exceeds the limit of {suffix}, 4 GiB; use PNG")
