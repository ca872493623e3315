"""What an exported Learner does to a photo: read off its records, without fastai.

The rules follow fastai's own way through ``Learner.predict``: the item transforms of the validation
loader, then its batch transforms, then the model, then the activation of the loss. What the page
could not repeat exactly is refused with the reason.
"""

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.unpickler import Global, Object, Storage
from icon_classifier.errors import UnsupportedLearnerError
from icon_classifier.model.pipeline import Pipeline
from icon_classifier.model.steps import PAD_MODES, CropPad, Resize, Step

SOFTMAX_LOSSES = ("CrossEntropyLossFlat", "FocalLossFlat", "LabelSmoothingCrossEntropyFlat")
"""Losses of fastai whose activation is the softmax."""

LEARNERS = ("fastai.learner.Learner",)

_UNCHANGED_AT_VALIDATION = frozenset(
    # Transforms of fastai that leave a validation photo alone as long as they are given no size:
    # those of colour (split_idx 0), and those of space, which then map each pixel on itself.
    (
        *("Brightness", "Contrast", "Hue", "RandomErasing", "Saturation"),
        *("DeterministicDihedral", "DeterministicFlip", "Dihedral", "Flip"),
        *("Rotate", "Warp", "Zoom"),
    )
)


@dataclass(frozen=True)
class ExportedLearner:
    """What of a Learner matters for a prediction.

    Attributes
    ----------
    labels : tuple of str
        The vocab, in the order of the network's outputs.
    pipeline : Pipeline
        The validation-time item transforms.
    mean, std : tuple of float
        Statistics of normalisation for pixels of 0 to 1; three each.
    model : Object
        The record of the network.
    notes : dict
        ``learn.icon_classifier``, what training.py left there; empty if it left nothing.
    """

    labels: tuple[str, ...]
    pipeline: Pipeline
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    model: Object
    notes: dict[str, Any]


def read_learner(archive: Archive) -> ExportedLearner:
    """Read what matters off the records of an export.pkl.

    Raises
    ------
    UnsupportedLearnerError
        It is no image classifier with one label a photo, or does something to a photo that cannot
        be repeated exactly. The message names it.
    """
    try:
        return _read(archive)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise _unsupported(f"its parts are not what fastai writes ({error})") from error


def _read(archive: Archive) -> ExportedLearner:
    learn = archive.root
    if not isinstance(learn, Object) or learn.cls not in LEARNERS:
        raise _unsupported(f"it holds {learn!r:.80}, not a fastai Learner")
    _check_loss(learn.get("loss_func"))
    _check_callbacks(learn.get("cbs"))
    loaders = _items(_get(_get(learn, "dls"), "loaders"))
    if len(loaders) < 2:
        raise _unsupported("it has no validation loader")
    loader = loaders[1]
    labels = _labels(loader)
    pipeline = _item_transforms(_items(_get(_get(loader, "after_item"), "fs")))
    if _items(_get(_get(loader, "before_batch"), "fs")):
        raise _unsupported("it changes photos before they are put in batches (before_batch)")
    batch = _items(_get(_get(loader, "after_batch"), "fs"))
    mean, std = _batch_transforms(batch, archive)
    model = _get(learn, "model")
    if not isinstance(model, Object):
        raise _unsupported("it has no model")
    return ExportedLearner(labels, pipeline, mean, std, model, _notes(learn))


def _unsupported(reason: str) -> UnsupportedLearnerError:
    return UnsupportedLearnerError(
        f"this Learner cannot be compiled: {reason}",
        words=f"This export.pkl cannot be repeated by the page: {reason}.",
    )


def _get(record: Any, name: str) -> Any:
    if not isinstance(record, Object) or (value := record.get(name)) is None:
        raise _unsupported(f"expected an attribute {name!r}, found none in {record!r:.80}")
    return value


def _items(record: Any) -> list[Any]:
    """Members of a list or of fastcore's L."""
    items = record.get("items") if isinstance(record, Object) else record
    if isinstance(items, Object):  # a CategoryMap keeps its members in an L
        items = items.get("items")
    if not isinstance(items, list):
        raise _unsupported(f"expected a list, found {record!r:.80}")
    return items


def _name(record: Any) -> str:
    """Name of the class of a record if fastai defines it, else what a message should say."""
    return _short(record.cls) if isinstance(record, Object) else f"{record!r:.80}"


def _short(dotted: str) -> str:
    known = ("fastai.", "fasttransform.", "fastcore.", "torch.nn.modules.loss.")
    return dotted.rsplit(".", 1)[-1] if dotted.startswith(known) else dotted


def _check_loss(loss: Any) -> None:
    name = _name(loss)
    if name not in SOFTMAX_LOSSES:
        raise _unsupported(
            f"its loss is {name}, not one of a classifier with one label a photo "
            f"({', '.join(SOFTMAX_LOSSES)})"
        )


def _check_callbacks(callbacks: Any) -> None:
    """Refuse callbacks that may change a prediction; fastai's own act in training only."""
    for callback in _items(callbacks):
        cls = callback.cls if isinstance(callback, Object) else repr(callback)
        if not cls.startswith("fastai."):
            raise _unsupported(f"it has a callback that is not fastai's own ({cls:.80})")


def _labels(loader: Any) -> tuple[str, ...]:
    """Return the vocab, after checking that photos go in and one category comes out."""
    dataset = _get(loader, "dataset")
    lists = _items(_get(dataset, "tls"))
    if len(lists) != 2 or dataset.get("n_inp") not in (1, None):
        raise _unsupported("it has more than a photo as input or more than one label as output")
    types = loader.get("_types")
    if isinstance(types, dict):
        names = [str(kind) for kinds in types.values() for kind in kinds]
        expected = ["fastai.torch_core.TensorImage", "fastai.torch_core.TensorCategory"]
        if names != expected:
            raise _unsupported(f"expected photos and one label each, found {', '.join(names)}")
    photo = lists[0].get("types") or [None]
    if str(photo[-1]) != "fastai.vision.core.PILImage":
        raise _unsupported(f"expected photos of PILImage, found {photo[-1]}")
    categorize = _items(_get(_get(lists[1], "tfms"), "fs"))[-1]
    if _name(categorize) != "Categorize":
        raise _unsupported(f"its labels come from {_name(categorize)}, not from Categorize")
    vocab = [_plain(label) for label in _items(_get(categorize, "vocab"))]
    return tuple(str(label) for label in vocab)


def _item_transforms(transforms: list[Any]) -> Pipeline:
    """Return what the item transforms do to a validation photo."""
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
            raise _unsupported(f"the item transform {name} cannot be repeated on the page")
    if not steps:
        raise _unsupported("no item transform brings photos to one size; use Resize")
    return Pipeline(tuple(steps))


def _resize(transform: Object) -> Resize:
    method = transform.get("method")
    if method not in ("crop", "pad", "squish"):
        raise _unsupported(f"its Resize has the method {method!r:.80}")
    return Resize(
        _size(transform.get("size")),
        method,
        _pad_mode(transform.get("pad_mode")),
        _resample(transform.get("mode")),
    )


def _random_resized_crop(transform: Object) -> list[Step]:
    """On validation photos: squish to somewhat more than the size, then cut the centre out."""
    width, height = size = _size(transform.get("size"))
    extra = math.ceil(max(size) * float(transform.get("val_xtra", 0.14)) / 8) * 8
    larger = width + extra, height + extra
    squish = Resize(larger, "squish", resample=_resample(transform.get("mode")))
    return [squish, CropPad(size)] if extra else [squish]


def _size(value: Any) -> tuple[int, int]:
    match value.args[-1] if isinstance(value, Object) and value.args else value:
        case (int(width), int(height)) if width > 0 and height > 0:
            return width, height
    raise _unsupported(f"expected a width and a height in pixels, found {value!r:.80}")


def _pad_mode(value: Any) -> str:
    if value not in PAD_MODES:
        raise _unsupported(f"expected a pad_mode of {', '.join(PAD_MODES)}, found {value!r:.80}")
    return str(value)


def _resample(value: Any) -> int:
    number = _plain(value)
    if not isinstance(number, int) or not 0 <= number <= 5:
        raise _unsupported(f"expected a filter of Pillow's, found {value!r:.80}")
    return number


_Three = tuple[float, float, float]


def _batch_transforms(transforms: list[Any], archive: Archive) -> tuple[_Three, _Three]:
    """Return mean and std of normalisation, after checking that nothing else acts."""
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
            raise _unsupported(f"the batch transform {name} cannot be repeated on the page")
        elif transform.get("size") is not None:
            raise _unsupported(
                f"the batch transform {name} resizes (size={transform.get('size')!r:.20}); "
                "use aug_transforms without size, and let Resize do it"
            )
    if not scaled:
        raise _unsupported("expected IntToFloatTensor(div=255) among the batch transforms")
    return mean, std


def _three(record: Any, archive: Archive) -> _Three:
    """Return the three numbers of a small tensor of float32."""
    if isinstance(record, Object) and record.cls == "torch._tensor._rebuild_from_type_v2":
        record = Object(record.args[0], record.args[2])
    match record:
        case Object(
            call=Global("torch._utils", "_rebuild_tensor_v2"),
            args=(Storage(kind="FloatStorage", key=key, numel=3), 0, (1, 3, 1, 1), *_),
        ):
            with archive.numbers() as read:
                first, second, third = struct.unpack("<3f", read(key, 12))
            return first, second, third
    raise _unsupported("its Normalize is not one of three channels")


_NUMPY = {"b1": "<?", "u1": "<B", "i4": "<i", "i8": "<q", "f4": "<f", "f8": "<d"}
"""How struct reads numpy's little-endian scalars."""


def _plain(value: Any) -> Any:
    """Return the text or number behind a record of one: an enum's member, a numpy scalar."""
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Object) and value.cls == "PIL.Image.Resampling":
        return value.args[0]
    if isinstance(value, Object) and value.cls.endswith("multiarray.scalar"):
        dtype, raw = value.args
        kind = dtype.args[0] if isinstance(dtype, Object) and dtype.args else None
        if kind in _NUMPY and isinstance(raw, bytes):
            return struct.unpack(_NUMPY[kind], raw)[0]
    raise _unsupported(f"expected a text or a number, found {value!r:.80}")


def _notes(learn: Object) -> dict[str, Any]:
    notes = learn.get("icon_classifier", {})
    try:
        json.dumps(notes, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise _unsupported(
            f"learn.icon_classifier holds more than plain values ({error})"
        ) from error
    if not isinstance(notes, dict):
        raise _unsupported("learn.icon_classifier is no dict")
    return notes
