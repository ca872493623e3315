"""Read what an exported Learner does to a photo from its parsed pickle, without fastai.

``Learner.predict`` applies the item transforms of the validation loader, its batch transforms, the
model and the activation of the loss. A Learner with a part that cannot be reproduced exactly is
refused with the reason.
"""

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.unpickler import Global, Object, Storage
from icon_classifier.errors import UnsupportedLearnerError
from icon_classifier.model.pipeline import PAD_MODES, CropPad, Pipeline, Resize, Step

SOFTMAX_LOSSES = ("CrossEntropyLossFlat", "FocalLossFlat", "LabelSmoothingCrossEntropyFlat")
"""Losses of fastai whose activation is the softmax."""

_UNCHANGED_AT_VALIDATION = frozenset(
    # Transforms of fastai that do not change a validation photo as long as they have no size: those
    # of colour (split_idx 0), and those of space, which then map each pixel to itself.
    (
        *("Brightness", "Contrast", "Hue", "RandomErasing", "Saturation"),
        *("DeterministicDihedral", "DeterministicFlip", "Dihedral", "Flip"),
        *("Rotate", "Warp", "Zoom"),
    )
)


@dataclass(frozen=True)
class ExportedLearner:
    """The parts of a Learner that determine a prediction.

    Attributes
    ----------
    labels : tuple of str
        The vocab, in the order of the network's outputs.
    pipeline : Pipeline
        The validation-time item transforms.
    mean, std : tuple of float
        Statistics of normalisation for pixels of 0 to 1; three each.
    model : Object
        The network, as a symbol.
    notes : dict
        ``learn.icon_classifier``, which training adds: temperature, threshold, figures; else empty.
    """

    labels: tuple[str, ...]
    pipeline: Pipeline
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    model: Object
    notes: dict[str, Any]


def read_learner(archive: Archive) -> ExportedLearner:
    """Read the Learner of an export.pkl.

    Raises
    ------
    UnsupportedLearnerError
        It is not an image classifier with one label per photo, or does something to a photo that
        cannot be reproduced exactly. The message names it.
    """
    try:
        return _read(archive)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise _unsupported(f"its parts are not those of a fastai Learner ({error})") from error


def _read(archive: Archive) -> ExportedLearner:
    learn = archive.root
    if not isinstance(learn, Object) or learn.cls != "fastai.learner.Learner":
        raise _unsupported(f"expected a fastai Learner, got {learn!r:.80}")
    _check_loss(learn.get("loss_func"))
    _check_callbacks(learn.get("cbs"))
    loaders = _items(_get(_get(learn, "dls"), "loaders"))
    if len(loaders) < 2:
        raise _unsupported("it has no validation loader")
    loader = loaders[1]
    labels = _labels(loader)
    pipeline = _item_transforms(_items(_get(_get(loader, "after_item"), "fs")))
    if _items(_get(_get(loader, "before_batch"), "fs")):
        raise _unsupported("it has transforms before the batch (before_batch)")
    batch = _items(_get(_get(loader, "after_batch"), "fs"))
    mean, std = _batch_transforms(batch, archive)
    model = _get(learn, "model")
    if not isinstance(model, Object):
        raise _unsupported("it has no model")
    return ExportedLearner(labels, pipeline, mean, std, model, _notes(learn))


def _unsupported(reason: str) -> UnsupportedLearnerError:
    return UnsupportedLearnerError(f"this Learner cannot be compiled: {reason}")


def _get(value: Any, name: str) -> Any:
    if not isinstance(value, Object) or (attribute := value.get(name)) is None:
        raise _unsupported(f"expected an attribute {name!r}, got {value!r:.80}")
    return attribute


def _items(value: Any) -> list[Any]:
    """Return the members of a list or of fastcore's L."""
    items = value.get("items") if isinstance(value, Object) else value
    if isinstance(items, Object):  # a CategoryMap keeps its members in an L
        items = items.get("items")
    if not isinstance(items, list):
        raise _unsupported(f"expected a list, got {value!r:.80}")
    return items


def _name(value: Any) -> str:
    """Return the name of an object's class: without its module, if fastai defines it."""
    if not isinstance(value, Object):
        return f"{value!r:.80}"
    known = ("fastai.", "fasttransform.", "fastcore.", "torch.nn.modules.loss.")
    return value.cls.rsplit(".", 1)[-1] if value.cls.startswith(known) else value.cls


def _check_loss(loss: Any) -> None:
    name = _name(loss)
    if name not in SOFTMAX_LOSSES:
        raise _unsupported(
            "expected the loss of a classifier with one label per photo "
            f"({', '.join(SOFTMAX_LOSSES)}), got {name}"
        )


def _check_callbacks(callbacks: Any) -> None:
    """Refuse callbacks that may change a prediction; fastai's own act only in training."""
    for callback in _items(callbacks):
        cls = callback.cls if isinstance(callback, Object) else repr(callback)
        if not cls.startswith("fastai."):
            raise _unsupported(f"it has a callback that is not fastai's own ({cls:.80})")


def _labels(loader: Any) -> tuple[str, ...]:
    """Return the vocab, after checking that the input is a photo and the output one category."""
    dataset = _get(loader, "dataset")
    lists = _items(_get(dataset, "tls"))
    if len(lists) != 2 or dataset.get("n_inp") not in (1, None):
        raise _unsupported("it has more than a photo as input or more than one label as output")
    types = loader.get("_types")
    if isinstance(types, dict):
        names = [str(kind) for kinds in types.values() for kind in kinds]
        expected = ["fastai.torch_core.TensorImage", "fastai.torch_core.TensorCategory"]
        if names != expected:
            raise _unsupported(f"expected photos and one label each, got {', '.join(names)}")
    photo = lists[0].get("types") or [None]
    if str(photo[-1]) != "fastai.vision.core.PILImage":
        raise _unsupported(f"expected photos of PILImage, got {photo[-1]}")
    categorize = _items(_get(_get(lists[1], "tfms"), "fs"))[-1]
    if _name(categorize) != "Categorize":
        raise _unsupported(f"expected labels of Categorize, got {_name(categorize)}")
    vocab = [_plain(label) for label in _items(_get(categorize, "vocab"))]
    return tuple(str(label) for label in vocab)


def _item_transforms(transforms: list[Any]) -> Pipeline:
    """Return the pipeline of the item transforms for a validation photo."""
    steps: list[Step] = []
    for transform in transforms:
        name = _name(transform)
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
            raise _unsupported(f"its item transform {name} cannot be reproduced without fastai")
    if not steps:
        raise _unsupported("its item transforms do not resize photos to one size; use Resize")
    return Pipeline(tuple(steps))


def _resize(transform: Object) -> Resize:
    method = transform.get("method")
    if method not in ("crop", "pad", "squish"):
        raise _unsupported(f"expected a Resize that crops, pads or squishes, got {method!r:.80}")
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
    raise _unsupported(f"expected a width and a height in pixels, got {value!r:.80}")


def _pad_mode(value: Any) -> str:
    if value not in PAD_MODES:
        raise _unsupported(f"expected a pad_mode of {', '.join(PAD_MODES)}, got {value!r:.80}")
    return str(value)


def _resample(value: Any) -> int:
    number = _plain(value)
    if not isinstance(number, int) or not 0 <= number <= 5:
        raise _unsupported(f"expected a filter of Pillow's, got {value!r:.80}")
    return number


_Three = tuple[float, float, float]


def _batch_transforms(transforms: list[Any], archive: Archive) -> tuple[_Three, _Three]:
    """Return mean and std of Normalize, after checking that no other transform has an effect."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    scaled = False
    for transform in transforms:
        name = _name(transform)
        if name == "IntToFloatTensor" and transform.get("div") == 255:
            scaled = True
        elif name == "Normalize":
            mean = _three(transform.get("mean"), archive)
            std = _three(transform.get("std"), archive)
        elif name not in _UNCHANGED_AT_VALIDATION:
            raise _unsupported(f"its batch transform {name} cannot be reproduced without fastai")
        elif transform.get("size") is not None:
            raise _unsupported(
                f"its batch transform {name} resizes (size={transform.get('size')!r:.20}); "
                "use aug_transforms without size, and the item transform Resize"
            )
    if not scaled:
        raise _unsupported("expected IntToFloatTensor(div=255) among the batch transforms")
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
    raise _unsupported("expected a Normalize of three channels")


_NUMPY = {"b1": "<?", "u1": "<B", "i4": "<i", "i8": "<q", "f4": "<f", "f8": "<d"}
"""The formats of struct for numpy's dtypes."""


def _plain(value: Any) -> Any:
    """Return a string or number, also that of an enum member or a numpy scalar."""
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Object) and value.cls == "PIL.Image.Resampling":
        return value.args[0]
    if isinstance(value, Object) and value.cls.endswith("multiarray.scalar"):
        dtype, raw = value.args
        kind = dtype.args[0] if isinstance(dtype, Object) and dtype.args else None
        if kind in _NUMPY and isinstance(raw, bytes):
            return struct.unpack(_NUMPY[kind], raw)[0]
    raise _unsupported(f"expected a string or a number, got {value!r:.80}")


def _notes(learn: Object) -> dict[str, Any]:
    notes = learn.get("icon_classifier", {})
    try:
        json.dumps(notes, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unsupported(f"expected learn.icon_classifier to be plain values: {error}") from error
    if not isinstance(notes, dict):
        raise _unsupported(f"expected learn.icon_classifier to be a dict, got {notes!r:.80}")
    return notes
