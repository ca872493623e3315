"""Pictures of every kind, drawn on the spot."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image

SIZE = (96, 64)
"""Width and height of the drawn pictures, in pixels: not square, so that a turn shows."""


def gradient(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture in which every corner differs: red grows to the right, green downwards."""
    width, height = size
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    rgb = Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))
    if mode in ("RGB", "L", "CMYK", "1"):
        return rgb.convert(mode)
    if mode == "I;16":
        return Image.fromarray((x * 257).astype(np.uint16))
    if mode == "I":
        return Image.fromarray((x * 257).astype(np.int32))
    if mode == "F":
        return Image.fromarray((x / 255).astype(np.float32))
    alpha = Image.fromarray(y.astype(np.uint8))
    if mode == "P":
        palette = rgb.quantize(32)
        palette.info["transparency"] = 3
        return palette
    picture = rgb.convert("L" if mode == "LA" else "RGB")
    picture.putalpha(alpha)
    return picture


def encode(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Write a picture into bytes."""
    if "transparency" in picture.info and kind in ("PNG", "GIF"):
        options.setdefault("transparency", picture.info["transparency"])
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, picture: Image.Image | None = None) -> bytes:
    """A JPEG whose EXIF says that it must be turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return encode(picture or gradient(), "JPEG", quality=95, exif=exif)


def difference(one: Image.Image, other: Image.Image) -> float:
    """By how much values of 0 to 255 differ, on average."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())
