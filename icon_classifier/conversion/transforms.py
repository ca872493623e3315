"""Read what the transforms of an exported Learner do to a photo at validation, without fastai."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.fields import class_name, describe, plain, unsupported
from icon_classifier.conversion.unpickler import Global, Object, Storage, shorten
from icon_classifier.model.pipeline import MAX_SIDE, PAD_MODES, CropPad, Pipeline, Resize, Step

ASSUMED_SIDES = {"RGB": 224, "L": 28}
"""Side in pixels, by mode, where no transform resizes: of ImageNet's photos, of MNIST's digits."""

OTHER_SIDES = (28, 32, 48, 64, 96, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 512)
"""Sides that are tried where the network does not take photos of the assumed one."""

_AFFINE = frozenset(
    # Transforms of a batch that do to a validation photo no more than resize it, if they have a
    # size. Their split_idx is that of the batch which they saw last.
    (
        *("AffineCoordTfm", "DeterministicDihedral", "DeterministicFlip", "Dihedral", "Flip"),
        *("Rotate", "Warp", "Zoom"),
    )
)

_TRAINING_ONLY = frozenset(
    # Classes of fastai whose split_idx is 0.
    (
        *("Brightness", "Contrast", "DihedralItem", "FlipItem", "HSVTfm", "Hue", "LightingTfm"),
        *("RandTransform", "RandomErasing", "Saturation", "SpaceTfm"),
    )
)


@dataclass(frozen=True)
class Resample:
    """How a transform of a batch resizes a validation photo: a call of torch's ``grid_sample``.

    Attributes
    ----------
    size : tuple of int
        Width and height of the result, in pixels.
    mode : {'bilinear', 'nearest', 'bicubic'}
        How values between pixels are computed.
    pad_mode : {'zeros', 'border', 'reflection'}
        What is beyond the edges.
    align_corners : bool
        Whether the centres of the pixels in the corners are mapped to each other, or their corners.
    """

    size: tuple[int, int]
    mode: str = "bilinear"
    pad_mode: str = "reflection"
    align_corners: bool = True


@dataclass(frozen=True)
class Transforms:
    """What happens to a validation photo before the network sees it.

    Attributes
    ----------
    pipeline : Pipeline
        What happens to the picture.
    mode : {'RGB', 'L'}
        Mode of the pictures.
    mean, std : tuple of float
        Statistics of normalisation for pixels of 0 to 1; one number for each channel of the input.
    resamples : tuple of Resample
        How the input is resized on its way to the network, in order; usually empty.
    left_out : tuple of str
        The transforms that do nothing to a validation photo.
    assumed : tuple of str
        What the Learner does not say, in sentences.
    """

    pipeline: Pipeline
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resamples: tuple[Resample, ...] = ()
    left_out: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def squished(self, size: tuple[int, int]) -> "Transforms":
        """Return them with an assumed size, width and height in pixels, as their first step."""
        width, height = size
        pipeline = Pipeline((Resize(size, "squish"), *self.pipeline.steps[1:]))
        sentences = (
            f"No item transform resizes the photos; they are squished to {width} x {height}. "
            "If the network was trained on another size, add Resize(size) to item_tfms.",
        )
        return replace(self, pipeline=pipeline, assumed=sentences)


def read_transforms(
    item: Sequence[Any],
    batch: Sequence[Any],
    archive: Archive,
    *,
    before_batch: Sequence[Any] = (),
    mode: str = "RGB",
) -> Transforms:
    """Read the transforms of a validation loader.

    Parameters
    ----------
    item, batch, before_batch : sequence
        The members of ``after_item``, ``after_batch`` and ``before_batch``, in their order.
    archive : Archive
        Where the statistics of normalisation are.
    mode : {'RGB', 'L'}, optional
        Mode of the pictures.

    Raises
    ------
    UnsupportedLearnerError
        A transform does something to a validation photo that cannot be reproduced exactly. The
        message names it.
    """
    left_out: list[str] = []

    def acting(transforms: Sequence[Any], kind: str) -> list[Object]:
        """Return the transforms that act on validation photos; list the others as left out."""
        found = []
        for transform in transforms:
            if not isinstance(transform, Object):
                raise unsupported(f"expected a transform of fastai, got {shorten(transform)}")
            if _is_for_training(transform, kind):
                left_out.append(f"{kind} {_name(transform)} (training only)")
            elif _name(transform) != "noop":
                found.append(transform)
        return found

    items, batches = acting(item, "item transform"), acting(batch, "batch transform")
    for transform in acting(before_batch, "transform before the batch"):
        raise _cannot("transform before the batch", transform)
    steps = _item_steps(items)
    is_sized = bool(steps)
    if not is_sized:
        steps = [Resize(_assumed_size(batches, mode), "squish")]
    size = steps[-1].size
    normalisation = _Normalisation()
    resamples: list[Resample] = []
    for transform in batches:
        name = class_name(transform)
        if name in ("IntToFloatTensor", "Normalize"):
            normalisation.add(transform, archive)
            continue
        if name not in (*_AFFINE, "RandomResizedCropGPU"):
            raise _cannot("batch transform", transform)
        if name not in _AFFINE and (crop := _centre(transform, size)) != size:
            if resamples:
                raise unsupported(f"its batch transform {name} crops what another has resized")
            steps.append(CropPad(crop))
            size = crop
        resample = _resample(transform)
        if resample and resample.size != size:
            resamples.append(resample)
            size = resample.size
        elif name in _AFFINE:
            left_out.append(f"batch transform {name} (training only)")
    mean, std = normalisation.numbers(mode)
    pipeline = Pipeline(tuple(steps))
    transforms = Transforms(pipeline, mode, mean, std, tuple(resamples), tuple(left_out))
    return transforms if is_sized else transforms.squished(steps[0].size)


def _is_for_training(transform: Object, kind: str) -> bool:
    """Return whether a transform acts in training only, whoever's class it is of."""
    if class_name(transform) in _AFFINE:
        return False
    missing = object()
    split_idx = transform.get("split_idx", missing)
    call = transform.call
    while split_idx is missing and isinstance(call, Object) and len(call.args) > 2:
        # A class of the notebook, stored by value; what it inherits is not stored again.
        split_idx = call.get("split_idx", missing)
        call = next(iter(call.args[2]), None)
    if split_idx is not missing:
        return bool(split_idx == 0)
    base = Object(call)
    if class_name(base) == base.cls:
        raise unsupported(
            f"it does not say whether its {kind} {_name(transform)} is for training only; set "
            "self.split_idx = 0 in its __init__ if it is, and export again"
        )
    return class_name(base) in _TRAINING_ONLY


def _name(transform: Object) -> str:
    """Return the name of a transform for people: of its class, or of the function in it."""
    name = transform.get("_name")
    return name if isinstance(name, str) else describe(transform)


def _cannot(kind: str, transform: Object) -> Exception:
    return unsupported(
        f"its {kind} {_name(transform)} acts on validation photos too, and cannot be reproduced "
        "without fastai; give it split_idx = 0 if it is for training only, else leave it out"
    )


def _item_steps(transforms: Sequence[Object]) -> list[Step]:
    steps: list[Step] = []
    for transform in transforms:
        name = class_name(transform)
        if name == "Resize":
            steps.append(_resize(transform))
        elif name == "RandomResizedCrop":
            steps += _random_resized_crop(transform)
        elif name in ("CropPad", "OldRandomCrop", "RandomCrop"):
            pad_mode = "zeros" if name == "RandomCrop" else transform.get("pad_mode", "zeros")
            steps.append(CropPad(_size(transform.get("size")), _pad_mode(pad_mode)))
        elif name == "RatioResize":
            raise unsupported(
                "its item transform RatioResize gives photos of different sizes; use Resize"
            )
        elif name != "ToTensor":
            raise _cannot("item transform", transform)
    return steps


def _resize(transform: Object) -> Resize:
    method = transform.get("method", "crop")
    if method not in ("crop", "pad", "squish"):
        raise unsupported(f"expected a Resize that crops, pads or squishes, got {shorten(method)}")
    return Resize(
        _size(transform.get("size")),
        method,
        _pad_mode(transform.get("pad_mode", "reflection")),
        _filter(transform.get("mode", 2)),
    )


def _random_resized_crop(transform: Object) -> list[Step]:
    """Return its steps on a validation photo: squish to a larger size, then crop the centre."""
    width, height = size = _size(transform.get("size"))
    extra = math.ceil(max(size) * float(plain(transform.get("val_xtra", 0.14))) / 8) * 8
    squish = Resize(
        (width + extra, height + extra), "squish", resample=_filter(transform.get("mode", 2))
    )
    return [squish, CropPad(size)] if extra else [squish]


def _assumed_size(batch: Sequence[Object], mode: str) -> tuple[int, int]:
    """Return width and height for photos that no item transform resizes."""
    for transform in batch:
        if class_name(transform) in (*_AFFINE, "RandomResizedCropGPU"):
            resample = _resample(transform)
            if resample:
                return resample.size
    return ASSUMED_SIDES[mode], ASSUMED_SIDES[mode]


def _centre(transform: Object, size: tuple[int, int]) -> tuple[int, int]:
    """Return the size of what RandomResizedCropGPU crops from the centre of validation photos."""
    width, height = size
    ratios = transform.get("ratio", (3 / 4, 4 / 3))
    low, high = (float(plain(ratio)) for ratio in ratios)
    if width / height < low:
        height = int(width / low)
    elif width / height > high:
        width = int(height * high)
    scale = float(plain(transform.get("valid_scale", 1.0)))
    return _size((int(width * scale), int(height * scale)))


def _resample(transform: Object) -> Resample | None:
    """Return how a batch transform resizes validation photos; None if it has no size."""
    size = transform.get("size")
    if size is None:
        return None
    if isinstance(size, int):
        size = (size, size)
    height, width = _size(size)
    if class_name(transform) == "RandomResizedCropGPU":  # which leaves the others at their defaults
        resample = Resample((width, height), _grid_mode(transform))
    else:
        resample = Resample(
            (width, height),
            _grid_mode(transform),
            _pad_mode(transform.get("pad_mode", "reflection")),
            bool(transform.get("align_corners")),
        )
    if resample.pad_mode == "zeros" and (resample.mode == "bicubic" or not resample.align_corners):
        raise unsupported(
            f"its batch transform {class_name(transform)} pads with zeros; use "
            "pad_mode='reflection', or align_corners=True and mode='bilinear'"
        )
    return resample


def _grid_mode(transform: Object) -> str:
    mode = transform.get("mode", "bilinear")
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise unsupported(f"expected a mode of bilinear, nearest, bicubic, got {shorten(mode)}")
    return str(mode)


def _size(value: Any) -> tuple[int, int]:
    match value.args[-1] if isinstance(value, Object) and value.args else value:
        case (int(first), int(second)) | [int(first), int(second)]:
            if 0 < first <= MAX_SIDE and 0 < second <= MAX_SIDE:
                return first, second
    raise unsupported(
        f"expected a size of two numbers of 1 to {MAX_SIDE} pixels, got {shorten(value)}"
    )


def _pad_mode(value: Any) -> str:
    if not isinstance(value, str) or value not in PAD_MODES:
        raise unsupported(f"expected a pad_mode of {', '.join(PAD_MODES)}, got {shorten(value)}")
    return str(value)


def _filter(value: Any) -> int:
    number = plain(value)
    if not isinstance(number, int) or not 0 <= number <= 5:
        raise unsupported(f"expected a filter of Pillow's, got {shorten(value)}")
    return number


class _Normalisation:
    """What IntToFloatTensor and Normalize do to values of 0 to 255: (value - mean) / std."""

    def __init__(self) -> None:
        self.mean, self.std = [0.0], [1.0]
        self.scaled = False

    def add(self, transform: Object, archive: Archive) -> None:
        """Let a transform follow those so far."""
        if class_name(transform) == "IntToFloatTensor":
            self.scaled = True
            mean, std = [0.0], [float(plain(transform.get("div", 255.0)))]
        else:
            mean, std = (_statistic(transform.get(name), archive) for name in ("mean", "std"))
        channels = max(map(len, (mean, std, self.mean)))
        mean, std, old_mean, old_std = (
            numbers * (channels // len(numbers)) for numbers in (mean, std, self.mean, self.std)
        )
        self.mean = [a + b * c for a, b, c in zip(old_mean, old_std, mean, strict=True)]
        self.std = [a * b for a, b in zip(old_std, std, strict=True)]

    def numbers(self, mode: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and std for pixels of 0 to 1, a number for each channel of the input."""
        if not self.scaled:
            raise unsupported("expected IntToFloatTensor among the batch transforms")
        channels = max(len(self.mean), 3 if mode == "RGB" else 1)
        mean, std = (
            tuple(number / 255 for number in numbers) * (channels // len(numbers))
            for numbers in (self.mean, self.std)
        )
        if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise unsupported(f"expected a Normalize with std above 0, got {mean} and {std}")
        return mean, std


_FORMATS = {"FloatStorage": "<f", "LongStorage": "<q"}


def _statistic(value: Any, archive: Archive) -> list[float]:
    """Return a number, or the numbers of a tensor of one or three channels."""
    match value:
        case int() | float():
            return [float(value)]
        case Object(
            Global(name="_rebuild_from_type" | "_rebuild_from_type_v2"), (call, _, args, *_)
        ):
            return _statistic(Object(call, args), archive)
        case Object(Global(name="_fa_rebuild_tensor"), (_, *args)):  # fastai before 2.4
            return _statistic(
                Object(Global("torch._utils", "_rebuild_tensor_v2"), (*args,)), archive
            )
        case Object(
            Global("torch._utils", "_rebuild_tensor_v2"),
            (Storage(kind=kind, key=key, numel=numel), int(offset), shape, strides, *_),
        ) if kind in _FORMATS and (1, 1, 1, *shape)[-4:] in ((1, 1, 1, 1), (1, 3, 1, 1)):
            form, channels = _FORMATS[kind], math.prod(shape)
            width, step = struct.calcsize(form), strides[-3] if channels == 3 else 0
            with archive.open_storages() as read:
                raw = read(key, numel * width)
            return [
                float(struct.unpack_from(form, raw, (offset + step * channel) * width)[0])
                for channel in range(channels)
            ]
    raise unsupported("expected a Normalize of one or three channels")
