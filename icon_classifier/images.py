"""Untrusted bytes become an upright RGB picture, within limits.

The page, the API, the command line and the cleaning of training data all read photos here, so that
the same bytes give the same pixels everywhere. Whatever is wrong with the bytes raises an
:class:`~icon_classifier.errors.ImageError`, and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import (  # each plug-in by name: Pillow would import all its forty to find one of them
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from icon_classifier.errors import (
    FILE_NOT_OPENED,
    DamagedImageError,
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    UnsupportedImageError,
    too_many_bytes,
    too_many_pixels,
)
from icon_classifier.formats import FORMATS, SUFFIXES
from icon_classifier.structure import checked_bytes

PREVIEW_SIDE = 640
"""Longer side of a photo as the page shows it, in pixels."""

_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8|BM.{4}\0{4}|II\*\0|MM\0\*|RIFF.{4}WEBP"
    rb"|.{4}ftyp(avi|hei|hev|mif1|msf1)",
    re.DOTALL,
)
"""What the formats that are read begin with."""

pillow_heif.register_heif_opener(thumbnails=False)

MAX_WHOLE_PIXELS = 24_000_000
"""A picture of more pixels is halved while it is decoded, to stay below 300 MB: Pillow keeps four
bytes a pixel, and turning or flattening needs a second picture. The model resizes photos to far
fewer pixels, so that no label depends on it."""

_MEMORY = 290_000_000
"""Bytes that decoding a picture may take; the memory of a visitor's kernel is computed from it."""

_BYTES_A_PIXEL = {"AVIF": 9, "WEBP": 20}
"""Measured memory of the decoders that take more than the others and have no option for less."""

_HEIF_BYTES = {None: (3, 5), 420: (5.8, 8), 422: (9, 14), 444: (10, 16)}
"""The same for a HEIC by its subsampling, None for grey: with 8 bits, with more."""

_HEIF_ALPHA_BYTES = (3, 5)
"""What transparency adds to them."""

_BYTES_A_VALUE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}
"""Memory of a pixel in Pillow by mode; all other modes take four bytes."""

_JPEG_PIECE = 4 / 3
"""Memory of a strip or tile that is a JPEG, as a multiple of its decoded size: one may keep all
coefficients."""

_NO_MEMORY = ("memory", "c++ exception")
"""What decoders in C and C++ say where Python would raise a MemoryError."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that undoes each EXIF orientation (CIPA DC-008, tag 0x0112)."""

_ROWS = 512
"""Height of the strips, in pixels, in which large pictures are converted; fewer of wide ones."""

_STRIP = 2_000_000
"""Most pixels of a strip."""


@dataclass(frozen=True)
class Limits:
    """What a picture may cost.

    Attributes
    ----------
    max_bytes : int
        Size of the file at most, in bytes.
    max_pixels : int
        Width times height at most, in pixels; checked before anything is decoded.
    min_side, max_side : int
        Shorter side at least and longer side at most, in pixels.
    """

    max_bytes: int = 25 * 2**20
    max_pixels: int = 50_000_000
    min_side: int = 8
    max_side: int = 65_535


def read_image(
    data: bytes | bytearray | memoryview,
    limits: Limits = Limits(),
    *,
    side: int | None = None,
) -> Image.Image:
    """Decode a photo.

    Parameters
    ----------
    data : bytes, bytearray or memoryview
        The content of the file, of any length. ``FileUpload`` gives a memoryview.
    limits : Limits, optional
        What the picture may cost.
    side : int, optional
        Where a smaller picture will do: both its sides at least, in pixels. A JPEG is then decoded
        to a half, quarter or eighth of its size, which is faster.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, upright by its EXIF orientation, transparent parts on white, 16 bits scaled to 8;
        the first frame of an animation.

    Raises
    ------
    ImageError
        One of its kinds: empty, unsupported, damaged, too large, too small.
    """
    size = memoryview(data).nbytes
    if size == 0:
        raise EmptyImageError("expected the bytes of a picture, got none")
    if size > limits.max_bytes:
        raise ImageTooLargeError(
            f"expected at most {limits.max_bytes} bytes, got {size}",
            words=too_many_bytes(limits.max_bytes),
        )
    with _opened(data) as image:
        _check_size(image, limits)
        if _needs_halving_in_rows(image):
            picture = _halve(image.size, _heif_rows(data, image.size), _converter(image))
            return _upright(picture, read_orientation(image))
        halved = _half_decoded(image)
        if side and not halved:
            image.draft(image.mode, (side, side))
        image.load()
        _check_size(image, limits)  # some formats tell their true size only now
        # Flattened first: a large picture is halved there, and the turned copy is small.
        halve = not halved and image.width * image.height > MAX_WHOLE_PIXELS
        return _upright(_flatten(image, halve=halve), read_orientation(image))


def read_image_file(
    path: str | Path, limits: Limits = Limits(), *, side: int | None = None
) -> Image.Image:
    """Decode a photo from a file; see :func:`read_image`.

    Raises
    ------
    ImageError
        Also where the file is missing, a folder, or may not be read.
    """
    try:
        with Path(path).open("rb") as file:
            # One byte more than allowed is enough to see that a file is too large.
            data = file.read(limits.max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(f"cannot read {path}: {error}", words=FILE_NOT_OPENED) from error
    return read_image(data, limits, side=side)


def read_format(data: bytes) -> str:
    """Return Pillow's name of a picture's format; only the header is read.

    Raises
    ------
    ImageError
        The bytes are not a picture, or its header is broken.
    """
    with _opened(data) as image:
        return image.format or ""


def is_photo_file(path: str | Path) -> bool:
    """Whether a file is named like a photo, or begins like one: ``photo.jpg_large``, say."""
    if str(path).lower().endswith(SUFFIXES):
        return True
    if not Path(path).is_file():  # to open a pipe would wait for its writer
        return False
    try:
        with Path(path).open("rb") as file:
            return _START.match(file.read(16)) is not None
    except OSError:
        return False


def read_orientation(image: Image.Image) -> int:
    """Read the EXIF orientation of an opened picture: 1 where EXIF is missing or broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - a photo with broken metadata is still a photo
        return 1
    return value if isinstance(value, int) else 1


def thumbnail(image: Image.Image, side: int = 128) -> bytes:
    """Shrink a picture for the page.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB; stays as it is.
    side : int, optional
        Longer side at most, in pixels.

    Returns
    -------
    bytes
        A JPEG without any metadata of the photo.
    """
    file = io.BytesIO()
    shrink(image, side).save(file, "JPEG", quality=88)
    return file.getvalue()


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Make a small copy of a picture.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB; stays as it is.
    side : int
        Longer side at most, in pixels.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, of the same shape, without any metadata of the photo; never larger.
    """
    scale = min(1.0, side / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # Not Image.thumbnail: it works in place, and a copy of a large photo costs 70 MB.
    small = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
    small.info = {}
    return small


@contextlib.contextmanager
def _opened(data: bytes | bytearray | memoryview) -> Iterator[Image.Image]:
    """Open a picture, and translate whatever Pillow and its decoders raise into our errors."""
    try:
        with warnings.catch_warnings():
            # Broken EXIF, odd palettes: Pillow warns and continues; so do we.
            warnings.simplefilter("ignore")
            file = io.BytesIO(checked_bytes(bytes(data)))
            with Image.open(file, formats=tuple(FORMATS)) as image:
                yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise UnsupportedImageError("not a picture of a known kind") from error
    except (MemoryError, Image.DecompressionBombError) as error:
        raise ImageTooLargeError(f"too large to decode: {error}") from error
    except Exception as error:
        if any(each in str(error).lower() for each in _NO_MEMORY):
            raise ImageTooLargeError(f"too large to decode: {error}") from error
        # Decoders fed by strangers raise what they like (struct.error, IndexError, ...); a list
        # of them would never be complete, and a visitor must never see a traceback.
        raise DamagedImageError(f"cannot decode the picture: {error!r}") from error


def _check_size(image: Image.Image, limits: Limits) -> None:
    width, height = image.size
    most = _most_pixels(image, limits)
    if width * height > most:
        raise ImageTooLargeError(
            f"expected at most {most} pixels, got {width} x {height}",
            words=too_many_pixels(most) if most >= 1_000_000 else None,
        )
    if max(width, height) > limits.max_side:
        raise ImageTooLargeError(
            f"expected sides of at most {limits.max_side} pixels, got {width} x {height}"
        )
    if min(width, height) < limits.min_side:
        raise ImageTooSmallError(
            f"expected sides of at least {limits.min_side} pixels, got {width} x {height}"
        )


def _most_pixels(image: Image.Image, limits: Limits) -> int:
    """Return how many pixels of a picture's format fit into the memory for decoding."""
    cost: float = _BYTES_A_PIXEL.get(image.format or "", 0)
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.info.get("progressive"):
        # All coefficients, of two bytes, are kept to the end of the file.
        samples = [across * down for _, across, down, _ in image.layer]
        cost = 2 * sum(samples) / max(samples) + 2
    elif image.format == "HEIF":
        cost = _heif_bytes(image)
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        # Beside the pixels of Pillow, the smaller copy and the rows in conversion.
        value = _BYTES_A_VALUE.get(image.mode, 4)
        copy = 3 if image.mode == "F" else 1.2
        if read_orientation(image) in _TURNS:  # by Pillow, in a copy of the same size
            copy = max(copy, value)
        cost = value + copy + _piece_bytes(image) / (image.width * image.height)
    return min(limits.max_pixels, int(_MEMORY / cost)) if cost else limits.max_pixels


def _heif_bytes(image: Image.Image) -> float:
    """Return the memory that decoding a pixel of a HEIC takes."""
    is_deep = image.info.get("bit_depth", 8) > 8
    cost = _HEIF_BYTES[image.info.get("chroma")][is_deep]
    return cost + _HEIF_ALPHA_BYTES[is_deep] if image.mode.endswith("A") else cost


def _needs_halving_in_rows(image: Image.Image) -> bool:
    """Whether a HEIC would take too much memory as a picture of Pillow's of the same size."""
    if image.format != "HEIF":
        return False
    pixels = image.width * image.height
    return pixels > MAX_WHOLE_PIXELS or pixels * (_heif_bytes(image) + 4) > _MEMORY


def _piece_bytes(image: TiffImagePlugin.TiffImageFile) -> int:
    """Return the size of a strip or tile of a TIFF that has to be read as a whole."""
    tags = image.tag_v2
    # Not image.size, which is that of the turned picture.
    width, height = tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH]
    compression = tags.get(TiffImagePlugin.COMPRESSION, 1)
    if TiffImagePlugin.TILEOFFSETS in tags:
        width, height = tags[TiffImagePlugin.TILEWIDTH], tags[TiffImagePlugin.TILELENGTH]
    elif compression == 1:
        return 0  # Pillow reads it row by row
    else:
        height = min(height, tags.get(TiffImagePlugin.ROWSPERSTRIP, height))
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    in_planes = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2  # a plane for each sample
    size = width * height * (max(bits) if in_planes else sum(bits)) / 8
    return int(size * _JPEG_PIECE if compression in (6, 7) else size)


def _half_decoded(image: Image.Image) -> bool:
    """Set a large JPEG to be decoded to half its size; return whether that was done."""
    if image.format != "JPEG" or image.width * image.height <= MAX_WHOLE_PIXELS:
        return False
    return image.draft(image.mode, (image.width // 2, image.height // 2)) is not None


def _flatten(image: Image.Image, *, halve: bool) -> Image.Image:
    """Convert a decoded picture of any mode to RGB, transparent parts on white, grey to 8 bits.

    Where `halve` is true width and height are halved.
    """
    convert = _converter(image)
    if not halve:
        return convert(image)
    return _halve(image.size, lambda top, end: image.crop((0, top, image.width, end)), convert)


def _halve(
    size: tuple[int, int],
    rows: Callable[[int, int], Image.Image],
    convert: Callable[[Image.Image], Image.Image],
) -> Image.Image:
    """Halve a picture in strips, so that no second one of its size is in memory.

    `rows` returns those from one row to before another.
    """
    width, height = size
    small = Image.new("RGB", ((width + 1) // 2, (height + 1) // 2))
    step = max(2, min(_ROWS, _STRIP // width // 2 * 2))
    for top in range(0, height, step):
        strip = convert(rows(top, min(top + step, height)))
        small.paste(strip.reduce(2), (0, top // 2))
    return small


def _heif_rows(
    data: bytes | bytearray | memoryview, size: tuple[int, int]
) -> Callable[[int, int], Image.Image]:
    """Decode a HEIC without a picture of Pillow's, which takes four bytes a pixel more."""
    heif = pillow_heif.open_heif(io.BytesIO(data))
    pixels, stride = heif.data, heif.stride
    if heif.size != size:
        raise DamagedImageError(f"expected {size} pixels as its header says, got {heif.size}")

    def rows(top: int, end: int) -> Image.Image:
        part = pixels[top * stride : end * stride]
        shape = (size[0], end - top)
        return Image.frombuffer(heif.mode, shape, part, "raw", heif.mode, stride, 1)

    return rows


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Choose the conversion once for the whole picture, so that all its strips get the same."""
    if image.mode == "F" or image.mode.startswith("I"):
        white, inverted = _white(image), _is_inverted(image)
        return lambda part: _scale(part, white, inverted=inverted)
    if image.has_transparency_data and not _is_blank(image):
        return _on_white
    # Even where there is nothing to convert, Pillow would make a copy.
    return lambda part: part if part.mode == "RGB" else part.convert("RGB")


def _is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF; Pillow inverts those of 8 bits and fewer only."""
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1) == 0)


def _is_blank(image: Image.Image) -> bool:
    """Whether all of a BMP is transparent: its writer left the fourth byte of each pixel unused."""
    return image.format == "BMP" and image.mode == "RGBA" and image.getextrema()[-1] == (0, 0)


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    background = Image.new("RGB", layer.size, "white")
    background.paste(layer, mask=layer)
    return background


def _white(image: Image.Image) -> float:
    """Return the value that is white in a grey picture with more than 8 bits.

    Mode I;16 is plain. Mode I comes from 32-bit TIFFs that often hold 16 bits, and F has no range
    of its own: the file does not say what white is, so the brightest value decides between the
    usual ones.
    """
    if image.mode.startswith("I;16"):
        return 65535.0
    _, high = image.getextrema()
    peak = float(high) if isinstance(high, int | float) and math.isfinite(high) else 65535.0
    usual = (65535.0,) if image.mode == "I" else (1.0, 255.0, 65535.0)
    return next((white for white in usual if peak <= white), peak)


def _scale(image: Image.Image, white: float, *, inverted: bool) -> Image.Image:
    """Scale grey values from 0 to ``white`` down to 8 bits; ``convert("L")`` would clip them."""
    grey = np.empty((image.height, image.width), np.uint8)
    for top in range(0, image.height, _ROWS):
        part = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        values = np.nan_to_num(np.asarray(part, np.float32))  # (rows, W)
        grey[top : top + _ROWS] = np.clip(values * (255.0 / white) + 0.5, 0, 255)
    if inverted:
        grey = 255 - grey
    return Image.fromarray(grey).convert("RGB")  # (H, W) -> L -> RGB


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Undo an EXIF orientation of 1 to 8; any other number turns nothing."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
