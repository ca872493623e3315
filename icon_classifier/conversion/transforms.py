"""Read what the transforms of an exported Learner do to a photo at validation, without fastai."""

import math
import struct
from typing import Any

from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.fields import class_name, plain, unsupported
from icon_classifier.conversion.unpickler import Global, Object, Storage
from icon_classifier.model.pipeline import PAD_MODES, CropPad, Pipeline, Resize, Step

_UNCHANGED_AT_VALIDATION = frozenset(
    # Transforms of fastai that do not change a validation photo as long as they have no size: those
    # of colour (split_idx 0), and those of space, which then map each pixel to itself.
    (
        *("Brightness", "Contrast", "Hue", "RandomErasing", "Saturation"),
        *("DeterministicDihedral", "DeterministicFlip", "Dihedral", "Flip"),
        *("Rotate", "Warp", "Zoom"),
    )
)


def read_item_transforms(transforms: list[Any]) -> Pipeline:
    """Return the pipeline of the item transforms for a validation photo."""
    steps: list[Step] = []
    for transform in transforms:
        name = class_name(transform)
        if name == "ToTensor":
            continue
        if name in ("FlipItem", "DihedralItem") and transform.get("split_idx") == 0:
            continue
        if name == "Resize":
            steps.append(_resize(transform))
        elif name == "RandomResizedCrop":
            steps += _random_resized_crop(transform)
        elif name in ("CropPad", "RandomCrop"):
            pad_mode = transform.get("pad_mode", "zeros") if name == "CropPad" else "zeros"
            steps.append(CropPad(_size(transform.get("size")), _pad_mode(pad_mode)))
        else:
            raise unsupported(f"its item transform {name} cannot be reproduced without fastai")
    if not steps:
        raise unsupported("its item transforms do not resize photos to one size; use Resize")
    return Pipeline(tuple(steps))


def _resize(transform: Object) -> Resize:
    method = transform.get("method")
    if method not in ("crop", "pad", "squish"):
        raise unsupported(f"expected a Resize that crops, pads or squishes, got {method!r:.80}")
    return Resize(
        _size(transform.get("size")),
        method,
        _pad_mode(transform.get("pad_mode")),
        _resample(transform.get("mode")),
    )


def _random_resized_crop(transform: Object) -> list[Step]:
    """Return its steps on a validation photo: squish to a larger size, then crop the centre."""
    width, height = size = _size(transform.get("size"))
    extra = math.ceil(max(size) * float(transform.get("val_xtra", 0.14)) / 8) * 8
    larger = width + extra, height + extra
    squish = Resize(larger, "squish", resample=_resample(transform.get("mode")))
    return [squish, CropPad(size)] if extra else [squish]


def _size(value: Any) -> tuple[int, int]:
    match value.args[-1] if isinstance(value, Object) and value.args else value:
        case (int(width), int(height)) if width > 0 and height > 0:
            return width, height
    raise unsupported(f"expected a width and a height in pixels, got {value!r:.80}")


def _pad_mode(value: Any) -> str:
    if value not in PAD_MODES:
        raise unsupported(f"expected a pad_mode of {', '.join(PAD_MODES)}, got {value!r:.80}")
    return str(value)


def _resample(value: Any) -> int:
    number = plain(value)
    if not isinstance(number, int) or not 0 <= number <= 5:
        raise unsupported(f"expected a filter of Pillow's, got {value!r:.80}")
    return number


_Three = tuple[float, float, float]


def read_batch_transforms(transforms: list[Any], archive: Archive) -> tuple[_Three, _Three]:
    """Return mean and std of Normalize, after checking that no other transform has an effect."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    scaled = False
    for transform in transforms:
        name = class_name(transform)
        if name == "IntToFloatTensor" and transform.get("div") == 255:
            scaled = True
        elif name == "Normalize":
            mean = _three(transform.get("mean"), archive)
            std = _three(transform.get("std"), archive)
        elif name not in _UNCHANGED_AT_VALIDATION:
            raise unsupported(f"its batch transform {name} cannot be reproduced without fastai")
        elif transform.get("size") is not None:
            raise unsupported(
                f"its batch transform {name} resizes (size={transform.get('size')!r:.20}); "
                "use aug_transforms without size, and the item transform Resize"
            )
    if not scaled:
        raise unsupported("expected IntToFloatTensor(div=255) among the batch transforms")
    return mean, std


def _three(tensor: Any, archive: Archive) -> _Three:
    """Return the numbers of a tensor, float32, shape (1, 3, 1, 1)."""
    if isinstance(tensor, Object) and tensor.cls == "torch._tensor._rebuild_from_type_v2":
        tensor = Object(tensor.args[0], tensor.args[2])
    match tensor:
        case Object(
            call=Global("torch._utils", "_rebuild_tensor_v2"),
            args=(Storage(kind="FloatStorage", key=key, numel=3), 0, (1, 3, 1, 1), *_),
        ):
            with archive.open_storages() as read:
                first, second, third = struct.unpack("<3f", read(key, 12))
            return first, second, third
    raise unsupported("expected a Normalize of three channels")
