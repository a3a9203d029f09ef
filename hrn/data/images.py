"""Reading and writing images of any kind, as uint8 RGB arrays."""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from hrn.errors import HRNError
from hrn.files import atomic_write

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp")
TOO_DEEP = "has more than 8 bits a channel, which would be lost; convert it to 8 bits first"
MAX_PIXELS = 400_000_000
"""Larger files are refused before they are decoded: a small file can claim any size."""

WITHOUT_ALPHA = (".jpg", ".jpeg", ".bmp")
WITHOUT_GREY = (".webp", ".avif")
WITHOUT_PROFILE = (".bmp",)
LONGEST_SIDE = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500, ".avif": 65536}
"""Of formats that have a limit, in pixels."""
_QUALITY = {
    ".webp": {"lossless": True, "exact": True},
    **{suffix: {"quality": 95, "subsampling": "4:4:4"} for suffix in (".jpg", ".jpeg", ".avif")},
}
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_BITS_PER_SAMPLE = 258  # TIFF's tag
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    IndexError,
    OverflowError,
    RuntimeError,
    MemoryError,
    struct.error,
)
"""What Pillow's decoders raise on damaged files."""
_STRIP_PIXELS = 2**20
"""Converted at once: Pillow and NumPy both make copies."""
_decoding = threading.Lock()


@dataclass(frozen=True)
class Picture:
    """A decoded image file."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    alpha: np.ndarray | None
    """(H, W) uint8, where the file has transparency."""
    grey: bool
    """Whether the file holds one grey channel, here three times."""
    icc_profile: bytes | None = None
    """Of the colours, as they are here."""
    frames: int = 1
    """How many the file has; this is the first."""


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files in a folder, sorted by path; hidden files are left out."""
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(p for p in found if p.suffix.lower() in EXTENSIONS and not p.name.startswith(".") and p.is_file())


def count_pixels(path: Path) -> int:
    """Width times height by the file's header; 0 where that cannot be read."""
    try:
        return _count_pixels(path)
    except (*_DAMAGED, Image.DecompressionBombError):
        return 0


def check_pixels(path: Path, most: int) -> int:
    """Width times height by the file's header, before anything is decoded.

    Raises:
        HRNError: missing, not an image, or more pixels than `most`.
    """
    if not path.is_file():
        raise HRNError(f"no such image file: {path}")
    try:
        pixels = _count_pixels(path)
    except Image.DecompressionBombError:
        raise HRNError(f"{path}: has more pixels than the limit of {most:,}") from None
    except _DAMAGED:
        raise HRNError(f"{path}: not an image that Pillow can read ({', '.join(EXTENSIONS)})") from None
    if pixels > most:
        raise HRNError(f"{path}: has {pixels:,} pixels, more than the limit of {most:,}")
    return pixels


def _count_pixels(path: Path) -> int:
    with _opened(path) as image:
        return image.width * image.height


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A file whose header has been read; Pillow refuses what has more than MAX_PIXELS, there or on decoding."""
    with _decoding, warnings.catch_warnings():  # both settings are the whole program's
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above it, and refuses above twice as many
        try:
            with Image.open(path, formats=_FORMATS) as image:
                yield image
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def read_picture(path: str | Path) -> Picture:
    """Decode an image file: upright (EXIF), 8 bits, RGB and perhaps alpha; the first frame of an animation.

    CMYK and Lab become sRGB, by the file's colour profile where it has one.

    Raises:
        HRNError: the file is missing, truncated, not an image, too large, or has more than 8 bits a channel.
    """
    path = Path(path)
    if not path.is_file():
        raise HRNError(f"no such image file: {path}")
    try:
        with _opened(path) as image:
            if image.mode in _DEEP_MODES or _is_deep(image, path):
                raise HRNError(f"{path}: {TOO_DEEP}")
            ImageOps.exif_transpose(image, in_place=True)
            return replace(_decode(image), frames=getattr(image, "n_frames", 1))
    except HRNError:
        raise
    except UnidentifiedImageError:
        raise HRNError(f"{path}: not an image that Pillow can read ({', '.join(EXTENSIONS)})") from None
    except Image.DecompressionBombError:
        raise HRNError(f"{path}: has more pixels than the limit of {MAX_PIXELS:,}") from None
    except MemoryError:
        raise HRNError(f"{path}: not enough memory for it, or damaged") from None
    except _DAMAGED as error:
        raise HRNError(f"{path}: damaged or truncated image ({error})") from None


def read_rgb(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 of an image file, transparency dropped; errors as :func:`read_picture`."""
    return read_picture(path).rgb


def picture_of(image: Image.Image) -> Picture:
    """The same for an opened Pillow image. Raises HRNError if it has more than 8 bits a channel."""
    if image.mode in _DEEP_MODES:
        raise HRNError(f"an image of mode {image.mode}: {TOO_DEEP}")
    return _decode(ImageOps.exif_transpose(image))


def _decode(image: Image.Image) -> Picture:
    """The samples of an upright image, a strip at once."""
    icc_profile = image.info.get("icc_profile")
    if image.mode in ("CMYK", "LAB"):
        image, icc_profile = _to_srgb(image, icc_profile), None
    image = image.convert("LA") if image.mode == "La" else image
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info
    w, h = image.size
    rgb = np.empty((h, w, 3), np.uint8)
    alpha = np.empty((h, w), np.uint8) if transparent else None
    at_once = max(1, _STRIP_PIXELS // w)
    for top in range(0, h, at_once):
        bottom = min(top + at_once, h)
        strip = image.crop((0, top, w, bottom))
        if transparent:
            strip = strip.convert("RGBA")
            alpha[top:bottom] = strip.getchannel("A")
        rgb[top:bottom] = strip.convert("RGB")
    return Picture(rgb, alpha, image.mode in ("1", "L", "LA"), icc_profile)


def _to_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """CMYK, grey or Lab to sRGB: by its profile, or by Pillow's simple rule where it has none or a broken one."""
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
    """Whether a file has more than 8 bits a channel: Pillow opens several kinds of them as 8-bit ones without a word."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    with path.open("rb") as file:
        head = file.read(4096)
    if image.format == "PNG":
        return head[24:25] == b"\x10"  # the header's bit depth
    if (
        image.format == "AVIF"
    ):  # high_bitdepth of AV1CodecConfigurationRecord, after the name, a version and a profile byte
        configuration = head.find(b"av1C")
        return configuration >= 0 and bool(head[configuration + 6] & 0x40)
    return False


def to_pillow(picture: Picture) -> Image.Image:
    """A Pillow image in mode L, LA, RGB or RGBA."""
    image = Image.fromarray(picture.rgb)
    if picture.grey:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    if picture.icc_profile:
        image.info["icc_profile"] = picture.icc_profile
    return image


def write_image(path: str | Path, picture: Picture | np.ndarray) -> None:
    """Write an image by the suffix of `path`, beside it first and then renamed; JPEG and AVIF in quality 95, WebP lossless.

    Raises:
        HRNError: unknown suffix, or the file cannot be written.
    """
    path = Path(path)
    if isinstance(picture, np.ndarray):
        picture = Picture(picture, None, False)
    check_side(path, picture.rgb.shape[:2])
    if path.suffix.lower() in WITHOUT_ALPHA:
        picture = replace(picture, alpha=None)
    if path.suffix.lower() in WITHOUT_GREY and picture.grey:
        picture = _in_colour(picture)
    image = to_pillow(picture)
    options: dict[str, object] = {"icc_profile": picture.icc_profile} if picture.icc_profile else {}
    options |= _QUALITY.get(path.suffix.lower(), {})
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise HRNError(f"{path}: unknown image suffix {path.suffix!r}; use one of {', '.join(EXTENSIONS)}")
    with atomic_write(path) as beside:
        try:
            image.save(beside, format=kind, **options)
        except (ValueError, RuntimeError) as error:  # what Pillow's encoders raise
            raise HRNError(f"cannot write {path}: {error}") from None


def _in_colour(picture: Picture) -> Picture:
    """A grey picture as an RGB one: in sRGB where its profile is of grey, which must not stand in an RGB file."""
    if not picture.icc_profile or picture.icc_profile[16:20] != b"GRAY":  # the header's colour space
        return replace(picture, grey=False)
    image = _to_srgb(Image.fromarray(picture.rgb).convert("L"), picture.icc_profile)
    return replace(picture, rgb=np.asarray(image), grey=False, icc_profile=None)


def check_side(path: Path, size: tuple[int, int]) -> None:
    """Raises HRNError if an image of height and width `size` is too large for the format of `path`."""
    most = LONGEST_SIDE.get(path.suffix.lower())
    if most and max(size) > most:
        raise HRNError(
            f"{path}: {size[1]}x{size[0]} pixels are too many for {path.suffix}, which ends at {most}; use PNG"
        )
