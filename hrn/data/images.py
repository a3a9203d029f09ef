"""Read image files as uint8 RGB arrays."""

import io
import math
import os
import struct
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from hrn.errors import HRNError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp")
UNSUPPORTED = (
    ".heic",
    ".heif",
    ".gif",
    ".jfif",
    ".jp2",
    ".jxl",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
    ".raf",
    ".psd",
)
"""Common suffixes of images that are not enlarged in a folder, to report them."""
TOO_DEEP = "more than 8 bits per channel are not supported; convert the image to 8 bits first, for example with ImageMagick: magick a.tif -depth 8 b.tif"
MAX_PIXELS = 400_000_000
"""The largest image to decode. The header is checked first, because a small file can claim any size."""

MAX_PROFILE = 2**20
"""The largest colour profile in bytes that is kept. Pillow cannot read PNG files with larger ones."""
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_BITS_PER_SAMPLE = 258  # TIFF tag
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    IndexError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    AssertionError,
    struct.error,
)
"""The exceptions that Pillow's decoders raise for damaged files."""
_STRIP_PIXELS = 2**20
"""The number of pixels to convert at once, because Pillow and NumPy both make copies."""
_pillow_settings = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A decoded image file."""

    rgb: np.ndarray
    """The colours, (H, W, 3) uint8."""
    alpha: np.ndarray | None
    """The opacity, (H, W) uint8; None if the file has no transparency."""
    grey: bool
    """Whether the file has a single grey channel, which `rgb` repeats three times."""
    icc_profile: bytes | None = None
    """The colour profile of `rgb`; None if the file has no usable one."""
    animated: bool = False
    """Whether the file has several frames. Only the first is decoded."""

    @property
    def channels(self) -> int:
        """The number of channels that a file of this image needs: grey or RGB, and opacity."""
        return (1 if self.grey else 3) + (self.alpha is not None)


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """Return the image files in a folder, sorted by path. Hidden files and folders are skipped.

    Raises:
        HRNError: the folder or a file in it cannot be accessed.
    """
    try:
        found = _walk(folder) if recursive else folder.iterdir()
        return sorted(p for p in found if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file())
    except OSError as error:
        raise HRNError(f"cannot read the folder {error.filename or folder}: {error.strerror or error}") from None


def count_unsupported(folder: Path) -> dict[str, int]:
    """Count the files in a folder and its subfolders whose suffix is in UNSUPPORTED. Empty if one cannot be read."""
    with suppress(OSError):  # list_images reports it
        return dict(Counter(path.suffix.lower() for path in _walk(folder) if path.suffix.lower() in UNSUPPORTED))
    return {}


def linked_folders(folder: Path) -> list[Path]:
    """Return the links to folders in a folder and its subfolders, which :func:`list_images` does not follow."""
    links = []
    for root, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links += [Path(root, name) for name in folders if os.path.islink(Path(root, name))]
    return sorted(links)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and in subfolders that are not hidden. Raises OSError if a folder cannot be read."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files)


def check_lr_size(lr_name: str, lr_size: tuple[int, int], hr_name: str, hr_size: tuple[int, int], scale: int) -> None:
    """Raise HRNError unless an LR image has the size of the HR image divided by the scale, rounded down.

    Args:
        lr_name, hr_name: names of the images for the error message.
        lr_size, hr_size: height and width.
        scale: the scale of the LR image.
    """
    (lr_h, lr_w), (h, w) = lr_size, hr_size
    if lr_size != (h // scale, w // scale):
        needed = f"{w // scale}x{h // scale}"
        raise HRNError(f"{lr_name} is {lr_w}x{lr_h}; {hr_name} is {w}x{h} and needs {needed} at x{scale}")


def count_pixels(path: Path) -> int:
    """Return width times height from the file's header, or 0 if it cannot be read."""
    try:
        return math.prod(_read_size(path))
    except (*_DAMAGED, Image.DecompressionBombError):
        return 0


def check_pixels(path: Path, limit: int) -> tuple[int, int]:
    """Return height and width from the file's header, without decoding the image. EXIF orientation is ignored.

    Raises:
        HRNError: the file is missing, is not an image, or has more than `limit` pixels.
    """
    if not path.is_file():
        raise HRNError(f"no such image file: {path}")
    try:
        height, width = _read_size(path)
    except Image.DecompressionBombError:
        raise HRNError(f"{path}: has more pixels than the limit of {limit:,}") from None
    except _DAMAGED as error:
        _check_access(path, error)
        raise HRNError(f"{path}: not an image that Pillow can read ({', '.join(EXTENSIONS)})") from None
    if height * width > limit:
        raise HRNError(f"{path}: has {height * width:,} pixels, more than the limit of {limit:,}")
    return height, width


def _check_access(path: Path, error: Exception) -> None:
    """Raise HRNError if an exception comes from the file system and not from Pillow, whose errors have no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise HRNError(f"{path}: cannot be read: {error.strerror}") from None


def _read_size(path: Path) -> tuple[int, int]:
    with _opened(path) as image:
        return image.height, image.width


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a file and read its header. Pillow refuses more than MAX_PIXELS, here or during decoding."""
    with _pillow_settings, warnings.catch_warnings():  # the pixel limit and the warning filters are global
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this number and refuses twice as many
        try:
            with Image.open(path, formats=_FORMATS) as image:
                yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def read_picture(path: str | Path) -> Picture:
    """Decode an image file with 8 bits per channel.

    The EXIF orientation is applied. CMYK, Lab, and colour images with a profile larger than MAX_PROFILE are converted to
    sRGB, with the file's colour profile if it has one. Grey images lose such a large profile. Only the first frame of an animation is read.

    Raises:
        HRNError: the file is missing, damaged, not an image, too large, or has more than 8 bits per channel.
    """
    path = Path(path)
    if not path.is_file():
        raise HRNError(f"no such image file: {path}")
    try:
        with _opened(path) as image:
            if image.mode in _DEEP_MODES or _is_deep(image, path):
                raise HRNError(f"{path}: {TOO_DEEP}")
            _apply_orientation(image)
            picture, animated = _decode(image), False
            with suppress(*_DAMAGED):  # later frames may be damaged
                animated = getattr(image, "is_animated", False)  # n_frames would read every frame
            return replace(picture, animated=animated)
    except HRNError:
        raise
    except UnidentifiedImageError:
        raise HRNError(f"{path}: not an image that Pillow can read ({', '.join(EXTENSIONS)})") from None
    except Image.DecompressionBombError:
        raise HRNError(
            f"{path}: has more pixels than the limit of {MAX_PIXELS:,}; reduce it or cut it into parts"
        ) from None
    except MemoryError:
        raise HRNError(f"{path}: damaged, or too large for the available memory") from None
    except _DAMAGED as error:
        _check_access(path, error)
        raise HRNError(f"{path}: damaged or truncated image ({error})") from None


def read_rgb(path: str | Path) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 and drop transparency. Raises the errors of :func:`read_picture`."""
    return read_picture(path).rgb


def picture_of(image: Image.Image) -> Picture:
    """Convert a Pillow image. Raises HRNError if it has more than 8 bits per channel."""
    if image.mode in _DEEP_MODES:
        raise HRNError(f"image of mode {image.mode}: {TOO_DEEP}")
    image = image.copy()
    _apply_orientation(image)
    return _decode(image)


def _apply_orientation(image: Image.Image) -> None:
    """Rotate an image by its EXIF orientation, in place. A damaged EXIF block is ignored."""
    image.load()  # damaged pixels raise here
    with suppress(*(kind for kind in _DAMAGED if kind is not MemoryError)):
        ImageOps.exif_transpose(image, in_place=True)


def _decode(image: Image.Image) -> Picture:
    """Convert an upright image, strip by strip to save memory."""
    icc_profile = image.info.get("icc_profile")
    if image.mode in ("CMYK", "LAB"):
        image, icc_profile = to_srgb(image, icc_profile), None
    elif len(icc_profile or b"") > MAX_PROFILE:
        image, icc_profile = _apply_profile(image, icc_profile), None
    image = image.convert("LA") if image.mode == "La" else image
    transparent = image.has_transparency_data
    w, h = image.size
    rgb = np.empty((h, w, 3), np.uint8)
    alpha = np.empty((h, w), np.uint8) if transparent else None
    rows = max(1, _STRIP_PIXELS // w)
    for top in range(0, h, rows):
        bottom = min(top + rows, h)
        strip = image.crop((0, top, w, bottom))
        if transparent:
            strip = strip.convert("RGBA")
            alpha[top:bottom] = strip.getchannel("A")
        rgb[top:bottom] = strip.convert("RGB")
    return Picture(rgb, alpha, image.mode in ("1", "L", "LA"), icc_profile)


def _apply_profile(image: Image.Image, icc_profile: bytes) -> Image.Image:
    """Convert a colour image to sRGB, with its opacity if it has any. Grey images are returned unchanged."""
    if image.mode in ("1", "L", "LA", "La"):
        return image
    if not image.has_transparency_data:
        return to_srgb(image.convert("RGB"), icc_profile)
    image = image.convert("RGBA")
    converted = to_srgb(image.convert("RGB"), icc_profile)
    converted.putalpha(image.getchannel("A"))
    return converted


def to_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert CMYK, RGB, grey or Lab to sRGB with the profile, or by Pillow's simple rule if it is missing or broken."""
    try:
        if image.mode == "LAB":
            profile = ImageCms.createProfile("LAB")
        elif icc_profile:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        else:
            return image.convert("RGB")
        return ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB")


def _is_deep(image: Image.Image, path: Path) -> bool:
    """Return whether a file has more than 8 bits per channel. Pillow opens several such formats silently as 8-bit."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    with path.open("rb") as file:
        head = file.read(4096)
    if image.format == "PNG":
        return head[24:25] == b"\x10"  # bit depth in the header
    if image.format == "AVIF":  # bit high_bitdepth of AV1CodecConfigurationRecord, after name, version and profile
        configuration = head.find(b"av1C")
        return configuration >= 0 and bool(head[configuration + 6] & 0x40)
    return False


def to_pillow(picture: Picture) -> Image.Image:
    """Convert a picture to a Pillow image in mode L, LA, RGB or RGBA."""
    image = Image.fromarray(picture.rgb)
    if picture.grey:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc_profile:
        image.info["icc_profile"] = picture.icc_profile
    return image
