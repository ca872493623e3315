"""Read what the transforms of an exported Learner do to a photo at validation, without fastai."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
    assumed_training_only : tuple of str
        Why some of these are assumed to act in training only, which the file does not say; in
        sentences.
    is_sized : bool
        Whether a step of the pipeline resizes photos; otherwise its first step is assumed.
    """

    pipeline: Pipeline
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resamples: tuple[Resample, ...] = ()
    left_out: tuple[str, ...] = ()
    assumed_training_only: tuple[str, ...] = ()
    is_sized: bool = True

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the file does not say, in sentences."""
        if self.is_sized:
            return self.assumed_training_only
        width, height = self.pipeline.steps[0].size
        return (
            f"No item transform resizes the photos; they are squished to {width} x {height}. "
            "If the network was trained on another size, add Resize(size) to item_tfms.",
            *self.assumed_training_only,
        )

    def squished(self, size: tuple[int, int]) -> "Transforms":
        """Return them with another assumed size, width and height in pixels."""
        pipeline = Pipeline((Resize(size, "squish"), *self.pipeline.steps[1:]))
        return replace(self, pipeline=pipeline)


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
    assumed_training_only: list[str] = []

    def acting(stage: str, transforms: Sequence[Any]) -> list[_Step]:
        """Return the transforms that act on validation photos; list the others as left out."""
        found = []
        for place, transform in enumerate(transforms):
            if not isinstance(transform, Object):
                raise unsupported(
                    f"expected a transform of fastai, got {shorten(transform)}; leave it out and "
                    "train again"
                )
            step = _Step(stage, place, transform)
            for_training = _is_for_training(transform)
            if for_training is None:
                assumed_training_only.append(_why_training_only(step))
            if for_training is not False:
                left_out.append(f"{step} (training only)")
            elif _name(transform) != "noop":
                found.append(step)
        return found

    items, batches = acting("after_item", item), acting("after_batch", batch)
    for step in acting("before_batch", before_batch):
        raise step.cannot()
    steps = _item_steps(items)
    is_sized = bool(steps)
    if not is_sized:
        steps = [Resize(_assumed_size([step.transform for step in batches], mode), "squish")]
    size = steps[-1].size
    normalisation = _Normalisation()
    resamples: list[Resample] = []
    for step in batches:
        transform = step.transform
        name = class_name(transform)
        if name in ("IntToFloatTensor", "Normalize"):
            normalisation.add(transform, archive)
            continue
        if name not in (*_AFFINE, "RandomResizedCropGPU"):
            raise step.cannot()
        if name not in _AFFINE and (crop := _centre(transform, size)) != size:
            if resamples:
                raise unsupported(
                    f"its batch transform {name} crops what another has resized; give only one of "
                    "them a size, and train again"
                )
            steps.append(CropPad(crop))
            size = crop
        resample = _resample(transform)
        if resample and resample.size != size:
            resamples.append(resample)
            size = resample.size
        elif name in _AFFINE:
            left_out.append(f"batch transform {name} (training only)")
    mean, std = normalisation.numbers(mode)
    return Transforms(
        pipeline=Pipeline(tuple(steps)),
        mode=mode,
        mean=mean,
        std=std,
        resamples=tuple(resamples),
        left_out=tuple(left_out),
        assumed_training_only=tuple(assumed_training_only),
        is_sized=is_sized,
    )


class _Step(NamedTuple):
    """A transform of a Learner, and its place in a stage of the validation loader."""

    stage: str
    place: int
    transform: Object

    def __str__(self) -> str:
        return f"{_STAGES[self.stage]} {_name(self.transform)}"

    def cannot(self, reason: str = "acts on validation photos too") -> Exception:
        """Return the error for a transform that cannot be reproduced."""
        where = f"learn.dls.valid.{self.stage}.fs[{self.place}]"
        return unsupported(
            f"its {self} {reason}, and cannot be reproduced without fastai; if it is for training "
            f"only, run {where}.split_idx = 0 in the notebook and export again, else leave it out "
            "and train again"
        )


_STAGES = {
    "after_item": "item transform",
    "before_batch": "transform before the batch",
    "after_batch": "batch transform",
}
"""What the stages of a loader hold, for people."""


def _is_for_training(transform: Object) -> bool | None:
    """Return whether a transform acts in training only; None where the file does not say.

    It does not where the class is the notebook's, stored by its name alone, as fastai before 2.8
    does.
    """
    if class_name(transform) in _AFFINE:
        return False
    missing = object()
    split_idx = transform.get("split_idx", missing)
    call, seen = transform.call, set[int]()
    while split_idx is missing and isinstance(call, Object) and len(call.args) > 2:
        if id(call) in seen:
            return None  # a crafted class, which inherits from itself
        seen.add(id(call))
        # A class of the notebook, stored by value; what it inherits is not stored again.
        split_idx = call.get("split_idx", _attributes(call).get("split_idx", missing))
        call = next(iter(call.args[2]), None)
    if split_idx is not missing:
        return bool(split_idx == 0)
    base = Object(call)
    if class_name(base) == base.cls:
        return None
    return class_name(base) in _TRAINING_ONLY


def _attributes(made: Object) -> dict[Any, Any]:
    """Return the attributes of a class that dill stored by value, which are its last argument."""
    return made.args[-1] if isinstance(made.args[-1], dict) else {}


def _why_training_only(step: _Step) -> str:
    """Return in a sentence why a transform is assumed to act in training only.

    A prediction is not random, so what is random in all its parts does not take part in one. What
    acts in another way on validation photos keeps another part for them.

    Raises
    ------
    UnsupportedLearnerError
        Nothing in the file tells.
    """
    state = step.transform.state if isinstance(step.transform.state, dict) else {}
    parts = {
        name: part
        for name, part in state.items()
        if isinstance(name, str) and isinstance(part, Global | Object) and not name.startswith("_")
    }
    if (random := _random_name(step.transform)) and all(map(_random_name, parts.values())):
        reason = f"it is random ({random})"
    elif parts and all(name.startswith("train") for name in parts):
        reason = f"it keeps {' and '.join(parts)} only"
    else:
        raise step.cannot("may act on validation photos too")
    return (
        f"The {step} is assumed to act in training only, because {reason}; the file does not say. "
        "If it acts on validation photos too, the answers differ from learn.predict."
    )


def _random_name(value: Global | Object) -> str | None:
    """Return the name of the first transform that acts at random among an object and its parts.

    It has a probability below 1, a range to draw from, or a name that says so: true of
    albumentations and of torchvision.
    """
    seen, left = set(), [value]
    while left:
        part = left.pop()
        if isinstance(part, Object) and id(part) not in seen:
            seen.add(id(part))
            state = part.state if isinstance(part.state, dict) else {}
            package, _, name = class_name(part).rpartition(".")
            if package != "random" and (  # the generator of Python, which draws for others
                name.startswith("Rand") or name in _RANDOM or any(map(_is_random, state.items()))
            ):
                return name
            left += reversed(state.values())
        elif isinstance(part, dict | list | tuple) and id(part) not in seen:
            seen.add(id(part))
            left += reversed(part.values() if isinstance(part, dict) else part)
    return None


_RANDOM = frozenset(
    ("Affine", "AugMix", "AutoAugment", "ColorJitter", "ShiftScaleRotate", "TrivialAugmentWide")
)
"""Classes of albumentations and torchvision that draw numbers whatever their attributes are."""


def _is_random(attribute: tuple[Any, Any]) -> bool:
    match attribute:
        case "p", float(p):
            return 0 < p < 1
        case str(name), ((int() | float()) as low, (int() | float()) as high):
            return name.endswith(("limit", "range")) and low != high
    return False


def _name(transform: Object) -> str:
    """Return the name of a transform for people: of its class, or of the function in it."""
    name = transform.get("_name")
    # A function inside another is called outer.<locals>.inner.
    return name.rpartition(".")[-1] if isinstance(name, str) else describe(transform)


def _item_steps(transforms: Sequence[_Step]) -> list[Step]:
    steps: list[Step] = []
    for step in transforms:
        transform = step.transform
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
            raise step.cannot()
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
        raise unsupported(
            f"expected a filter of Pillow's, got {shorten(value)}; use Resize without resamples, "
            "and train again"
        )
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
            raise unsupported(
                "expected IntToFloatTensor among the batch transforms; use ImageBlock, which adds "
                "it"
            )
        channels = max(len(self.mean), 3 if mode == "RGB" else 1)
        mean, std = (
            tuple(number / 255 for number in numbers) * (channels // len(numbers))
            for numbers in (self.mean, self.std)
        )
        if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise unsupported(
                f"expected a Normalize with std above 0, got {shorten(mean)} and {shorten(std)}; "
                "use Normalize.from_stats(*imagenet_stats)"
            )
        return mean, std


_FORMATS = {
    **{"DoubleStorage": "<d", "FloatStorage": "<f", "HalfStorage": "<e", "LongStorage": "<q"},
}


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
        ) if kind in _FORMATS and (1, 1, 1, 1, *shape)[-4:] in ((1, 1, 1, 1), (1, 3, 1, 1)):
            form, channels = _FORMATS[kind], math.prod(shape)
            width, step = struct.calcsize(form), strides[-3] if channels == 3 else 0
            with archive.open_storages() as read:
                raw = read(key, numel * width)
            return [
                float(struct.unpack_from(form, raw, (offset + step * channel) * width)[0])
                for channel in range(channels)
            ]
    raise unsupported(
        "expected a Normalize of one or three numbers; use Normalize.from_stats(mean, std)"
    )
