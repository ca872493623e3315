"""What happens to a photo before the model sees it: fastai's validation transforms, without fastai.

A :class:`Pipeline` is a row of steps, which stand in ``steps.py``. ``convert.py`` reads it off a
Learner and writes it into the metadata of export.onnx as JSON; ``model.py`` builds it again from
there.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image

from icon_classifier.errors import ModelDamagedError
from icon_classifier.model.steps import MAX_SIDE, METHODS, PAD_MODES, CropPad, Resize, Step


@dataclass(frozen=True)
class Pipeline:
    """A row of steps that bring any photo to the size a model takes.

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
            raise ModelDamagedError("expected at least one transform, came none")

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of what comes out, in pixels."""
        return self.steps[-1].size

    def __call__(self, image: Image.Image) -> Image.Image:
        """Bring a photo to the model's size.

        Parameters
        ----------
        image : PIL.Image.Image
            An upright picture of mode RGB, of any size.

        Returns
        -------
        PIL.Image.Image
            RGB, of `size`.

        Raises
        ------
        ImageTooLargeError
            The picture is so long and narrow that padding makes it gigantic.
        """
        for step in self.steps:
            image = step(image)
        return image

    def view(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Tell which part of a photo the model sees.

        Parameters
        ----------
        size : tuple of int
            Width and height of the photo, in pixels.

        Returns
        -------
        tuple of float
            Left, top, right and bottom, in the photo's pixels; beyond its edges where it is padded.
        """
        # A point (x, y) of the picture between two steps lies at (left + x * across, ...) in the
        # photo; each step narrows that down.
        left, top, across, down = 0.0, 0.0, 1.0, 1.0
        for step in self.steps:
            box = step.view(size)
            left, top = left + across * box[0], top + down * box[1]
            size = step.size
            across *= (box[2] - box[0]) / size[0]
            down *= (box[3] - box[1]) / size[1]
        return left, top, left + across * size[0], top + down * size[1]

    def to_json(self) -> list[dict[str, Any]]:
        """Say the pipeline in builtins, for the metadata of export.onnx."""
        return [step.to_json() for step in self.steps]

    @classmethod
    def from_json(cls, steps: Sequence[object]) -> "Pipeline":
        """Build the pipeline that `to_json` said.

        Raises
        ------
        ModelDamagedError
            A step is unknown, or an entry of it is missing, unknown or out of range.
        """
        if not isinstance(steps, Sequence) or isinstance(steps, str):
            raise ModelDamagedError(f"expected a list of transforms, came {_shown(steps)}")
        return cls(tuple(_step(entry) for entry in steps))


def _step(entry: object) -> Step:
    """Build one step from what `Step.to_json` said."""
    if not isinstance(entry, dict):
        raise ModelDamagedError(f"expected a transform, came {_shown(entry)}")
    fields = dict(entry)
    op = fields.pop("op", None)
    expected = {
        "resize": {"size", "method", "pad_mode", "resample"},
        "crop_pad": {"size", "pad_mode"},
    }
    if not isinstance(op, str) or fields.keys() != expected.get(op):
        raise ModelDamagedError(
            f"expected a known transform with all of its entries, came {_shown(entry)}"
        )
    size, pad_mode = _checked_size(fields["size"]), fields["pad_mode"]
    if not isinstance(pad_mode, str) or pad_mode not in PAD_MODES:
        raise ModelDamagedError(
            f"expected a pad_mode of {list(PAD_MODES)}, came {_shown(pad_mode)}"
        )
    if op == "crop_pad":
        return CropPad(size, pad_mode)
    method, resample = fields["method"], fields["resample"]
    if method not in METHODS:
        raise ModelDamagedError(f"expected a method of {list(METHODS)}, came {_shown(method)}")
    if type(resample) is not int or resample not in list(Image.Resampling):
        raise ModelDamagedError(f"expected the number of a Pillow filter, came {_shown(resample)}")
    return Resize(size, method, pad_mode, resample)


def _checked_size(size: object) -> tuple[int, int]:
    """Return width and height, each an int from 1 to `MAX_SIDE`."""
    match size:
        case [int(width), int(height)] if 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE:
            return width, height
    raise ModelDamagedError(
        f"expected [width, height] of 1 to {MAX_SIDE} pixels, came {_shown(size)}"
    )


def _shown(value: object) -> str:
    """Show a foreign value in a message, cut short."""
    return json.dumps(value, default=repr)[:200]
