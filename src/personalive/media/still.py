"""Still images in, always as upright 8-bit RGB, and PNG out, by Pillow."""

from __future__ import annotations

import io
import mmap
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from personalive.errors import InputError
from personalive.media.config import MediaConfig
from personalive.media.credentials import PNG, Origin, sign_bytes
from personalive.media.paths import check_input, check_output, reason, write_whole
from personalive.media.worker import Link

# Named one by one: Pillow can also run Ghostscript and read things that are not photographs.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF")
# Pillow takes PNGs with text or profiles of more than 1 MB for attacks; editors and generators write such.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY
_ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")  # the others hold pages or views, not time
_IMAGE_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")
_NO_IMAGE = "is not an image that can be read; give a PNG, JPEG, HEIC, AVIF, WebP, GIF, BMP or TIFF file"
# What Pillow lets escape on damaged files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    struct.error,
)


def load_still(path: str | os.PathLike[str], config: MediaConfig | None = None) -> np.ndarray:
    """The image in ``path``: uint8 ``(H, W, 3)`` RGB, 0..255, in sRGB, upright.

    EXIF orientation is applied, an embedded colour profile converted, 16-bit scaled to 8, CMYK and palettes
    converted, transparency put on a neutral grey, and of an animation the first frame is taken.

    Raises:
        InputError: not a readable image, damaged, or outside the size limits of ``MediaConfig``, which are
            checked on the file's header before anything is decoded.
    """
    config = config or MediaConfig()
    path = check_input(path)
    with open_image(path, config) as image:
        return image_array(path, image, config)


def is_still(path: str | os.PathLike[str]) -> bool:
    """Return True if ``path`` is an image without motion. Reads headers only.

    Raises:
        InputError: the file is missing, empty or may not be read.
    """
    return _animated(check_input(path)) is False


def is_animation(path: str | os.PathLike[str]) -> bool:
    """Return True if ``path`` is a moving GIF, WebP, PNG or AVIF. Reads headers only.

    Raises:
        InputError: the file is missing, empty or may not be read.
    """
    return _animated(check_input(path)) is True


def _animated(path: Path) -> bool | None:
    """True or False for an image, None for anything else."""
    with _no_warnings():
        try:
            with Image.open(path, formats=_known_formats()) as image:
                return image.format in _ANIMATED_FORMATS and bool(getattr(image, "is_animated", False))
        except Image.DecompressionBombError:
            return False
        except DECODE_ERRORS:
            return False if _is_image_container(path) else None


def _is_image_container(path: Path) -> bool:
    """Return True for HEIC and AVIF, which FFmpeg takes for videos: of a tiled image it gives one tile."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    # Phones put thumbnails, depth and gain maps beside the image.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return tuple(name for name in _FORMATS if name in Image.OPEN)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Pillow warns of sizes, for which ``MediaConfig`` has limits here, and of tags that it skips."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def open_image(path: Path, config: MediaConfig) -> Iterator[Image.Image]:
    """An undecoded Pillow image whose header is within the limits of ``config``; closed afterwards.

    Raises:
        InputError: not an image, or too large or small.
    """
    with _no_warnings():
        try:
            image = Image.open(path, formats=_known_formats())
        except Image.DecompressionBombError:
            limit = config.max_image_pixels // 1_000_000
            raise InputError(f"{path}: has more than {limit} million pixels; shrink it first") from None
        except UnidentifiedImageError:
            raise InputError(f"{path}: {_NO_IMAGE}") from None
        except DECODE_ERRORS as error:
            raise InputError(f"{path}: is a damaged image ({reason(error)}); export it again") from None
    with image:
        check_size(path, image.width, image.height, config)
        yield image


def check_size(path: Path, width: int, height: int, config: MediaConfig) -> None:
    """Refuse images and clips whose stated size in pixels is outside the limits of ``config``.

    Raises:
        InputError: too many pixels, or a side too short to hold a face.
    """
    if width * height > config.max_image_pixels:
        limit = config.max_image_pixels // 1_000_000
        raise InputError(f"{path}: is {width} x {height}, more than {limit} million pixels; shrink it first")
    if min(width, height) < config.min_image_side_px:
        raise InputError(f"{path}: is {width} x {height}; each side needs at least {config.min_image_side_px} pixels")


def image_array(path: Path, image: Image.Image, config: MediaConfig) -> np.ndarray:
    """Decode the current frame of ``image`` to uint8 ``(H, W, 3)`` sRGB, upright, without transparency.

    Raises:
        InputError: the pixels are damaged or of a kind that cannot be converted.
    """
    try:
        image.load()
        return np.array(_rgb(_upright(image), config.background_grey))
    except DECODE_ERRORS as error:
        raise InputError(f"{path}: is damaged or cut off ({reason(error)}); export or copy it again") from None


_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The orientation that EXIF states, whatever its other tags hold; 1, upright, where it states none."""
    with suppress(*DECODE_ERRORS), _no_warnings():
        if found := image.getexif().get(ExifTags.Base.Orientation):
            return int(found)
    return _raw_orientation(image.info.get("exif") or b"")


def _raw_orientation(exif: bytes) -> int:
    """The orientation in the first directory of an EXIF block that Pillow cannot read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    with suppress(struct.error, KeyError):
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == ExifTags.Base.Orientation:
                return value
    return 1


def _rgb(image: Image.Image, grey: int) -> Image.Image:
    """Any mode to RGB in sRGB; transparency is put on a grey of that level."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.has_transparency_data:
        image = _to_srgb(image.convert("RGBA"), image.info.get("icc_profile"), "RGBA")
        backdrop = Image.new("RGBA", image.size, (grey, grey, grey, 255))
        return Image.alpha_composite(backdrop, image).convert("RGB")
    if image.mode not in ("RGB", "CMYK", "L"):
        image = image.convert("RGB")
    return _to_srgb(image, image.info.get("icc_profile"), "RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """One channel of 16 or 32 bits to "L". Pillow's own conversion would clip at 255."""
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        full_scale = 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
    else:  # "I" holds 8-bit values in some files, 16-bit ones in most
        full_scale = 255.0 if image.mode == "I" and values.max(initial=0.0) <= 255.0 else 65535.0
    return Image.fromarray((np.nan_to_num(values / full_scale).clip(0.0, 1.0) * 255.0).round().astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes | None, mode: str) -> Image.Image:
    """Convert from the embedded ICC ``profile`` where it fits the image, else by mode alone."""
    if profile:
        with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
            converted = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), _srgb(), outputMode=mode
            )
            if converted is not None:
                return converted
    return image.convert(mode)


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def png_bytes(image: np.ndarray) -> bytes:
    """Return an image, (H, W, 3 or 4) uint8, as a PNG file."""
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(content, format="PNG")
    return content.getvalue()


def save_png(
    path: str | os.PathLike[str],
    image: np.ndarray,
    inputs: tuple[str | os.PathLike[str], ...] = (),
    origin: Origin | None = None,
) -> Path:
    """Write ``image``, uint8 ``(H, W, 3)`` RGB, as a PNG that appears whole or not at all.

    Args:
        inputs: see ``check_output``.
        origin: what its content credentials tell; None for an image without any.

    Returns:
        The file written, links followed.

    Raises:
        OutputError: it cannot be written there; see ``check_output``.
    """
    target = check_output(path, inputs, suffix=".png")
    png = png_bytes(image)
    write_whole(target, png if origin is None else sign_bytes(png, PNG, origin))
    return target


def send_still(link: Link) -> None:
    """Answer ``load_isolated_still``, in a process that imports no more than images need."""
    link.on_progress()
    image = load_still(link.path, link.config)
    height, width = image.shape[:2]
    link.send({"width": width, "height": height})
    link.wait_for_slot()
    shared = mmap.mmap(link.request["descriptor"], 0)
    np.frombuffer(shared, np.uint8).reshape(image.shape)[:] = image
    link.send({})
