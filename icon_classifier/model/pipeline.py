"""fastai's validation transforms, without fastai: what happens to a photo before the model sees it.

A :class:`Pipeline` is a sequence of steps. ``conversion/learner.py`` reads it from a Learner and
``conversion/convert.py`` writes it into the metadata of export.onnx as JSON; ``session.py`` builds
it again from there. Each step makes the same Pillow and numpy calls that fastai makes on a
validation photo, so that the same photo gives the same pixels, bit for bit;
:func:`_pad_and_resize` says where and why the order of calls differs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import PIL
from PIL import Image, ImageOps

from icon_classifier.errors import TOO_NARROW, ImageTooLargeError, ModelDamagedError

METHODS = ("crop", "pad", "squish")
PAD_MODES = {"zeros": "constant", "border": "edge", "reflection": "reflect"}  # numpy's names

MAX_SIDE = 4096
"""Longest side in pixels that a step may ask for."""

MAX_PADDED_PIXELS = 500_000_000
"""Largest padded picture, in pixels; it is processed in strips, never held in memory as a whole."""

MAX_STRIP_PIXELS = 1_000_000
"""Padded pixels that are held in memory at the same time."""

_COLUMNS_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""Whether Pillow begins with the columns where the height shrinks by more than twice what the width
does; see its pull request 9549."""

_Size = tuple[int, int]
_Box = tuple[int, int, int, int]
_Padding = tuple[int, int, int, int]  # left, top, right, bottom, each >= 0


class Step(Protocol):
    """One transform: a picture of any size in, one of `size` and of the same mode out."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result, in pixels."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Transform a picture; the input is not changed."""

    def view(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the part of a picture of width and height `size` that is used.

        Left, top, right and bottom, in its pixels; beyond its edges where it is padded.
        """

    def to_json(self) -> dict[str, Any]:
        """Return the step as builtins."""


@dataclass(frozen=True)
class Resize:
    """Resize to a fixed size: fastai's ``Resize`` as it acts on validation photos.

    Parameters
    ----------
    size : tuple of int
        Width and height of the result, in pixels.
    method : {'crop', 'pad', 'squish'}
        How to change the aspect ratio: crop the longer side around the centre, pad the shorter
        side, or distort.
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
            The picture is so long and narrow that the padded one has too many pixels.
        """
        if self.method == "squish":
            return image.resize(self.size, self.resample)
        box, padding = _inside(image.size, self.view(image.size))
        return _pad_and_resize(image, box, padding, self.pad_mode, self.size, self.resample)

    def view(self, size: _Size) -> _Box:
        """Return the part of a picture that is used; see `Step.view`."""
        width, height = size
        if self.method == "squish":
            return 0, 0, width, height
        ratios = width / self.size[0], height / self.size[1]
        ratio = max(ratios) if self.method == "pad" else min(ratios)
        # fastai rounds so: the crop's size is truncated, and its corner too, towards zero.
        crop = int(ratio * self.size[0]), int(ratio * self.size[1])
        left, top = int(0.5 * (width - crop[0])), int(0.5 * (height - crop[1]))
        return left, top, left + crop[0], top + crop[1]

    def to_json(self) -> dict[str, Any]:
        """Return the step as builtins."""
        return {
            "op": "resize",
            "size": list(self.size),
            "method": self.method,
            "pad_mode": self.pad_mode,
            "resample": self.resample,
        }


@dataclass(frozen=True)
class CropPad:
    """Crop or pad around the centre, without resizing: fastai's ``CropPad``.

    Also what ``RandomCrop`` does to validation photos, and ``RandomResizedCrop`` after it has
    resized them.

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
        """Crop or pad a picture."""
        box, padding = _inside(image.size, self.view(image.size))
        return _pad(image.crop(box), padding, self.pad_mode)

    def view(self, size: _Size) -> _Box:
        """Return the part of a picture that is used; see `Step.view`."""
        left, top = (size[0] - self.size[0]) // 2, (size[1] - self.size[1]) // 2
        return left, top, left + self.size[0], top + self.size[1]

    def to_json(self) -> dict[str, Any]:
        """Return the step as builtins."""
        return {"op": "crop_pad", "size": list(self.size), "pad_mode": self.pad_mode}


@dataclass(frozen=True)
class Pipeline:
    """The steps that bring any photo to the size a model takes.

    Parameters
    ----------
    steps : tuple of Step
        At least one.

    Raises
    ------
    ModelDamagedError
        There is no step.

    Examples
    --------
    >>> pipeline = Pipeline((Resize((224, 224)),))
    >>> pipeline(Image.new("RGB", (640, 480))).size
    (224, 224)
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps:
            raise ModelDamagedError("expected at least one transform, got none")

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the result, in pixels."""
        return self.steps[-1].size

    def __call__(self, image: Image.Image) -> Image.Image:
        """Bring a photo to the model's size.

        Parameters
        ----------
        image : PIL.Image.Image
            An upright picture of mode RGB or L, of any size.

        Returns
        -------
        PIL.Image.Image
            Of `size` and of the same mode.

        Raises
        ------
        ImageTooLargeError
            The picture is so long and narrow that the padded one has too many pixels.
        """
        for step in self.steps:
            image = step(image)
        return image

    def view(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return the part of a photo that the model sees.

        Parameters
        ----------
        size : tuple of int
            Width and height of the photo, in pixels.

        Returns
        -------
        tuple of float
            Left, top, right and bottom, in the photo's pixels; beyond its edges where it is padded.
        """
        # A point (x, y) of the picture between two steps is at (left + x * across, top + y * down)
        # in the photo; each step changes these four.
        left, top, across, down = 0.0, 0.0, 1.0, 1.0
        for step in self.steps:
            box = step.view(size)
            left, top = left + across * box[0], top + down * box[1]
            size = step.size
            across *= (box[2] - box[0]) / size[0]
            down *= (box[3] - box[1]) / size[1]
        return left, top, left + across * size[0], top + down * size[1]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the pipeline as builtins, for the metadata of export.onnx."""
        return [step.to_json() for step in self.steps]

    @classmethod
    def from_json(cls, steps: Sequence[object]) -> Pipeline:
        """Build a pipeline from the result of `to_json`.

        Raises
        ------
        ModelDamagedError
            A step is unknown, or an entry of it is missing, unknown or out of range.
        """
        if not isinstance(steps, Sequence) or isinstance(steps, str):
            raise ModelDamagedError(f"expected a list of transforms, got {_shown(steps)}")
        return cls(tuple(_step(entry) for entry in steps))


_ENTRIES = {
    "resize": {"size", "method", "pad_mode", "resample"},
    "crop_pad": {"size", "pad_mode"},
}
"""What `to_json` writes of each step, beside its name ``op``."""


def _step(entry: object) -> Step:
    """Build one step from the result of `Step.to_json`."""
    if not isinstance(entry, dict):
        raise ModelDamagedError(f"expected a transform, got {_shown(entry)}")
    fields = dict(entry)
    op = fields.pop("op", None)
    if not isinstance(op, str) or fields.keys() != _ENTRIES.get(op):
        raise ModelDamagedError(
            f"expected a known transform with all of its entries, got {_shown(entry)}"
        )
    size, pad_mode = _checked_size(fields["size"]), fields["pad_mode"]
    if not isinstance(pad_mode, str) or pad_mode not in PAD_MODES:
        raise ModelDamagedError(f"expected a pad_mode of {list(PAD_MODES)}, got {_shown(pad_mode)}")
    if op == "crop_pad":
        return CropPad(size, pad_mode)
    method, resample = fields["method"], fields["resample"]
    if method not in METHODS:
        raise ModelDamagedError(f"expected a method of {list(METHODS)}, got {_shown(method)}")
    if type(resample) is not int or resample not in list(Image.Resampling):
        raise ModelDamagedError(f"expected the number of a Pillow filter, got {_shown(resample)}")
    return Resize(size, method, pad_mode, resample)


def _checked_size(size: object) -> _Size:
    """Return width and height, each an int from 1 to `MAX_SIDE`."""
    match size:
        case [int(width), int(height)] if 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE:
            return width, height
    raise ModelDamagedError(
        f"expected [width, height] of 1 to {MAX_SIDE} pixels, got {_shown(size)}"
    )


def _shown(value: object) -> str:
    """Format a value for a message, truncated."""
    return json.dumps(value, default=repr)[:200]


def _inside(size: _Size, box: _Box) -> tuple[_Box, _Padding]:
    """Return the part of a box that is in a picture of `size`, and the padding around that."""
    (width, height), (left, top, right, bottom) = size, box
    padding = max(-left, 0), max(-top, 0), max(right - width, 0), max(bottom - height, 0)
    return (max(left, 0), max(top, 0), min(right, width), min(bottom, height)), padding


def _pad(image: Image.Image, padding: _Padding, pad_mode: str) -> Image.Image:
    """Pad a picture as torchvision pads a Pillow picture, which is what fastai calls."""
    if not any(padding):
        return image
    if pad_mode == "zeros":
        return ImageOps.expand(image, border=padding, fill=0)
    left, top, right, bottom = padding
    pixels = np.asarray(image)  # (H, W, 3), or (H, W) if grey
    widths = ((top, bottom), (left, right), (0, 0))[: pixels.ndim]
    # -> (top + H + bottom, left + W + right) and the third
    return Image.fromarray(np.pad(pixels, widths, PAD_MODES[pad_mode]))  # type: ignore[call-overload]


def _pad_and_resize(
    image: Image.Image, box: _Box, padding: _Padding, pad_mode: str, size: _Size, resample: int
) -> Image.Image:
    """Crop a box, pad, then resize, without ever holding the whole padded or cropped picture.

    Pillow resizes in two passes with 8 bits in between: each row to the new width, and each column
    to the new height. In the first pass rows are independent, so it may be done in strips, and rows
    that padding adds may be added after it: the pixels are the same, and a panorama of 50
    megapixels takes megabytes instead of gigabytes.
    """
    (x, y, end_x, end_y), (left, top, right, bottom) = box, padding
    width, height = left + end_x - x + right, top + end_y - y + bottom
    is_whole = box == (0, 0, *image.size)
    if not any(padding) and (is_whole or width * height <= MAX_STRIP_PIXELS):
        return (image if is_whole else image.crop(box)).resize(size, resample)
    if width * height > MAX_PADDED_PIXELS:
        raise ImageTooLargeError(
            f"expected at most {MAX_PADDED_PIXELS} pixels after padding, got {width} x {height} "
            f"from {image.width} x {image.height}",
            words=TOO_NARROW,
        )
    if _COLUMNS_FIRST and height - size[1] > max(0, 2 * (width - size[0])):
        turned = _pad_and_resize(
            image.transpose(Image.Transpose.TRANSPOSE),
            (y, x, end_y, end_x),
            (top, left, bottom, right),
            pad_mode,
            size[::-1],
            resample,
        )
        return turned.transpose(Image.Transpose.TRANSPOSE)
    narrow = Image.new(image.mode, (size[0], end_y - y))
    rows = max(1, MAX_STRIP_PIXELS // width)
    for above in range(y, end_y, rows):
        strip = image.crop((x, above, end_x, min(above + rows, end_y)))
        strip = _pad(strip, (left, 0, right, 0), pad_mode)
        narrow.paste(strip.resize((size[0], strip.height), resample), (0, above - y))
    return _pad(narrow, (0, top, 0, bottom), pad_mode).resize(size, resample)
