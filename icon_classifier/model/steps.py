"""The steps that bring a photo to the size a model takes, with fastai's pixels.

Each makes the very Pillow and numpy calls that fastai makes on a validation photo, so that the same
photo gives the same pixels, bit for bit; :func:`_pad_and_resize` says where and why the order of
calls differs.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from icon_classifier.errors import ImageTooLargeError

METHODS = ("crop", "pad", "squish")
PAD_MODES = {"zeros": "constant", "border": "edge", "reflection": "reflect"}  # numpy's names
MAX_SIDE = 4096
"""Longest side in pixels that a step may ask for."""

MAX_PADDED_PIXELS = 500_000_000
"""Largest padded picture, in pixels, that is worked through (never held in memory at once)."""

STRIP_PIXELS = 4_000_000
"""Padded pixels that are held in memory at once."""

_Size = tuple[int, int]
_Box = tuple[int, int, int, int]
_Padding = tuple[int, int, int, int]  # left, top, right, bottom, each >= 0


class Step(Protocol):
    """One transform: an RGB picture of any size in, an RGB picture of `size` out."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what comes out, in pixels."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Transform a picture; the one given is left as it is."""

    def view(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Tell which part of a picture of width and height `size` is seen.

        Left, top, right and bottom, in its pixels; beyond its edges where it is padded.
        """

    def to_json(self) -> dict[str, Any]:
        """Say the step in builtins."""


@dataclass(frozen=True)
class Resize:
    """Resize to a fixed size: fastai's ``Resize`` as it acts on validation photos.

    Parameters
    ----------
    size : tuple of int
        Width and height of the result, in pixels.
    method : {'crop', 'pad', 'squish'}
        What to do with another aspect ratio: cut the longer side off around the centre, pad the
        shorter side, or give the ratio up.
    pad_mode : {'zeros', 'border', 'reflection'}
        What to pad with.
    resample : int
        Pillow's number of the filter, a `PIL.Image.Resampling`.
    """

    size: _Size
    method: str = "crop"
    pad_mode: str = "reflection"
    resample: int = int(Image.Resampling.BILINEAR)

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize a picture.

        Raises
        ------
        ImageTooLargeError
            The picture is so long and narrow that padding makes it gigantic.
        """
        if self.method == "squish":
            return image.resize(self.size, self.resample)
        left, top, right, bottom = self.view(image.size)
        image, padding = _crop(image, (right - left, bottom - top), (left, top))
        return _pad_and_resize(image, padding, self.pad_mode, self.size, self.resample)

    def view(self, size: _Size) -> _Box:
        """Tell which part of a picture of some size is seen; see `Step.view`."""
        width, height = size
        if self.method == "squish":
            return 0, 0, width, height
        ratios = width / self.size[0], height / self.size[1]
        ratio = max(ratios) if self.method == "pad" else min(ratios)
        # The roundings are fastai's: the cut is truncated, and so is its corner, towards zero.
        cut = int(ratio * self.size[0]), int(ratio * self.size[1])
        left, top = int(0.5 * (width - cut[0])), int(0.5 * (height - cut[1]))
        return left, top, left + cut[0], top + cut[1]

    def to_json(self) -> dict[str, Any]:
        """Say the step in builtins."""
        return {
            "op": "resize",
            "size": list(self.size),
            "method": self.method,
            "pad_mode": self.pad_mode,
            "resample": self.resample,
        }


@dataclass(frozen=True)
class CropPad:
    """Cut or pad around the centre, without resizing: fastai's ``CropPad``.

    Also what ``RandomCrop`` does to validation photos, and ``RandomResizedCrop`` after it squished
    them.

    Parameters
    ----------
    size : tuple of int
        Width and height of the result, in pixels.
    pad_mode : {'zeros', 'border', 'reflection'}
        What to pad with where the picture is too small.
    """

    size: _Size
    pad_mode: str = "zeros"

    def __call__(self, image: Image.Image) -> Image.Image:
        """Cut or pad a picture."""
        left, top, _, _ = self.view(image.size)
        image, padding = _crop(image, self.size, (left, top))
        return _pad(image, padding, self.pad_mode)

    def view(self, size: _Size) -> _Box:
        """Tell which part of a picture of some size is seen; see `Step.view`."""
        left, top = (size[0] - self.size[0]) // 2, (size[1] - self.size[1]) // 2
        return left, top, left + self.size[0], top + self.size[1]

    def to_json(self) -> dict[str, Any]:
        """Say the step in builtins."""
        return {"op": "crop_pad", "size": list(self.size), "pad_mode": self.pad_mode}


def _crop(image: Image.Image, cut: _Size, corner: _Size) -> tuple[Image.Image, _Padding]:
    """Cut a box out of a picture; where it reaches beyond, say how much padding is missing."""
    (width, height), (left, top) = image.size, corner
    right, bottom = left + cut[0], top + cut[1]
    box = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    padding = max(-left, 0), max(-top, 0), max(right - width, 0), max(bottom - height, 0)
    return (image if box == (0, 0, width, height) else image.crop(box)), padding


def _pad(image: Image.Image, padding: _Padding, pad_mode: str) -> Image.Image:
    """Pad a picture as torchvision pads a Pillow picture, which is what fastai calls."""
    if not any(padding):
        return image
    if pad_mode == "zeros":
        return ImageOps.expand(image, border=padding, fill=0)
    left, top, right, bottom = padding
    widths = ((top, bottom), (left, right), (0, 0))
    # (H, W, 3) -> (top + H + bottom, left + W + right, 3)
    return Image.fromarray(np.pad(np.asarray(image), widths, PAD_MODES[pad_mode]))  # type: ignore[call-overload]


def _pad_and_resize(
    image: Image.Image, padding: _Padding, pad_mode: str, size: _Size, resample: int
) -> Image.Image:
    """Pad, then resize, without ever holding the whole padded picture.

    Pillow resizes in two passes with 8 bits in between: first each row to the new width, then each
    column to the new height. Rows do not see each other in the first pass, so it may be done in
    strips, and rows that padding adds may be added after it: the pixels are the same, the memory is
    not. A panorama of 50 megapixels would take gigabytes otherwise.
    """
    if not any(padding):
        return image.resize(size, resample)
    left, top, right, bottom = padding
    width, height = left + image.width + right, top + image.height + bottom
    if width * height > MAX_PADDED_PIXELS:
        raise ImageTooLargeError(
            f"padding makes {image.width} x {image.height} pixels {width} x {height}",
            words="This picture is too long and narrow; please cut a part out of it.",
        )
    narrow = Image.new(image.mode, (size[0], image.height))
    rows = max(1, STRIP_PIXELS // width)
    for y in range(0, image.height, rows):
        strip = image.crop((0, y, image.width, min(y + rows, image.height)))
        strip = _pad(strip, (left, 0, right, 0), pad_mode)
        narrow.paste(strip.resize((size[0], strip.height), resample), (0, y))
    return _pad(narrow, (0, top, 0, bottom), pad_mode).resize(size, resample)
