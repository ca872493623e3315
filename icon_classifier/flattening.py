"""A decoded picture of any mode becomes RGB on white, and upright.

Large pictures are worked through in strips, so that no second one of their size is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image

__all__ = ["flatten", "orientation", "upright"]

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation (CIPA DC-008, tag 0x0112)."""

_ROWS = 512
"""Height of the strips, in pixels, in which large pictures are converted; fewer of wide ones."""

_STRIP = 4_000_000
"""Pixels of a strip at most."""


def flatten(image: Image.Image, *, halve: bool) -> Image.Image:
    """Convert any mode of Pillow to RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        Decoded, of any mode; stays as it is.
    halve : bool
        Whether to halve width and height (pixels), which is then done in strips, for a large
        picture's sake.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, transparent parts on white, grey values of more than 8 bits scaled to 8.
    """
    convert = _converter(image)
    width, height = image.size
    if not halve:
        return convert(image)
    small = Image.new("RGB", ((width + 1) // 2, (height + 1) // 2))
    rows = max(2, min(_ROWS, _STRIP // width // 2 * 2))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        small.paste(convert(strip).reduce(2), (0, top // 2))
    return small


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Choose the conversion once for the whole picture: its strips must be treated alike."""
    if image.mode == "F" or image.mode.startswith("I"):
        white = _white(image)
        return lambda part: _scale(part, white)
    if image.has_transparency_data:
        return _on_white
    return lambda part: part.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    ground = Image.new("RGB", layer.size, "white")
    ground.paste(layer, mask=layer)
    return ground


def _white(image: Image.Image) -> float:
    """Tell which value of a grey picture with more than 8 bits is white.

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


def _scale(image: Image.Image, white: float) -> Image.Image:
    """Scale grey values from 0 to ``white`` down to 8 bits; ``convert("L")`` would clip them."""
    grey = np.empty((image.height, image.width), np.uint8)
    for top in range(0, image.height, _ROWS):
        part = image.crop((0, top, image.width, min(top + _ROWS, image.height)))
        values = np.nan_to_num(np.asarray(part, np.float32))  # (rows, W)
        grey[top : top + _ROWS] = np.clip(values * (255.0 / white) + 0.5, 0, 255)
    return Image.fromarray(grey).convert("RGB")  # (H, W) -> L -> RGB


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture as its EXIF orientation says.

    Parameters
    ----------
    image : PIL.Image.Image
        Stays as it is.
    orientation : int
        1 to 8; any other number turns nothing.

    Returns
    -------
    PIL.Image.Image
        The same picture where there is nothing to turn.
    """
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """Read the EXIF orientation of an opened picture.

    Parameters
    ----------
    image : PIL.Image.Image
        As Pillow opened it, its metadata still with it.

    Returns
    -------
    int
        1 to 8, whatever number else stands there, or 1 where EXIF is missing or broken.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - the photo is fine even where what is said about it is not
        return 1
    return value if isinstance(value, int) else 1
