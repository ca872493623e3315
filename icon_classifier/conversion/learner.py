"""Read what an exported Learner does to a photo from its parsed pickle, without fastai.

``Learner.predict`` applies the item transforms of the validation loader, its batch transforms, the
model and the activation of the loss. A Learner with a part that cannot be reproduced exactly is
refused with the reason.
"""

import json
import math
import struct
import sys
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.fields import (
    class_name,
    describe,
    get_attribute,
    get_items,
    is_own,
    plain,
    unsupported,
)
from icon_classifier.conversion.other_files import check_root
from icon_classifier.conversion.transforms import Transforms, read_transforms
from icon_classifier.conversion.unpickler import Global, Object, shorten
from icon_classifier.errors import UnsupportedLearnerError

SOFTMAX_LOSSES = (
    *("CrossEntropyLossFlat", "FocalLossFlat"),
    *("LabelSmoothingCrossEntropy", "LabelSmoothingCrossEntropyFlat"),
)
"""Losses of fastai whose activation is the softmax."""

SIGMOID_LOSSES = ("BCELossFlat", "BCEWithLogitsLossFlat")
"""Losses of fastai whose activation is the sigmoid; with one label a photo the softmax is meant."""

PHOTOS = {"PILImage": "RGB", "PILImageBW": "L"}
"""Mode of a photo by its class."""

OTHER_KINDS = {
    **dict.fromkeys(("TensorMultiCategory", "MultiCategory"), "several labels a photo"),
    **dict.fromkeys(("PILMask", "TensorMask"), "masks (segmentation)"),
    **dict.fromkeys(("PILImage", "PILImageBW"), "photos"),
    **dict.fromkeys(("TensorText", "LMTensorText", "TitledStr"), "text"),
    **dict.fromkeys(("torch.Tensor", "TensorBase", "TitledFloat"), "numbers (regression)"),
    "TensorImage": "tensors of pixels",
    **{"TensorPoint": "points", "TensorBBox": "boxes", "TensorCategory": "labels"},
    **dict.fromkeys(("Tabular", "TabularCollab", "TabularPandas"), "a table"),
}
"""What a Learner takes or gives, by the class of it."""

_STRUCTURE_ERRORS = (
    *(TypeError, ValueError, LookupError, AttributeError),
    *(RecursionError, MemoryError, OverflowError, struct.error),
)

_ONE_LABEL = "this project is for one label a photo (ImageBlock and CategoryBlock)"

LEFT_OUT_SILENTLY = ("TrainEvalCallback", "Recorder", "CastToTensor", "ProgressCallback")
"""Callbacks that every Learner has."""

MAX_NOTES = 1_000_000
"""Most characters of ``learn.icon_classifier`` as JSON."""

NAMELESS = "(no name)"
"""What a class is called whose label is empty."""


@dataclass(frozen=True)
class ExportedLearner:
    """The parts of a Learner that determine a prediction.

    Attributes
    ----------
    labels : tuple of str
        The vocab, in the order of the network's outputs.
    transforms : Transforms
        What happens to a validation photo.
    model : Object
        The network, as a symbol.
    notes : dict
        ``learn.icon_classifier``, which training adds: temperature, threshold, figures; else empty.
    loss : str
        Name of the loss it was trained with.
    fastai_version : str or None
        What the file tells of the version of fastai that wrote it.
    left_out : tuple of str
        What does not take part in a prediction, a few words each.
    assumed : tuple of str
        What the file does not tell, a sentence each, apart from what its transforms do not.
    network : str
        Name of the architecture, or of the class of the network.
    """

    labels: tuple[str, ...]
    transforms: Transforms
    model: Object
    notes: dict[str, Any]
    loss: str
    fastai_version: str | None
    left_out: tuple[str, ...]
    assumed: tuple[str, ...]
    network: str


def read_learner(archive: Archive) -> ExportedLearner:
    """Read the Learner of an export.pkl.

    Raises
    ------
    NotAnExportError
        It is not a Learner. The message says what it is.
    UnsupportedLearnerError
        It is not an image classifier with one label per photo, or does something to a photo that
        cannot be reproduced exactly. The message names it.
    """
    try:
        check_root(archive.root)
        return _read(archive.root, archive)
    except _STRUCTURE_ERRORS as error:
        raise unsupported(
            "its parts are not those of a fastai Learner; make it with fastai's own functions, "
            f"such as vision_learner, and export again ({error})"
        ) from error


def _read(learn: Object, archive: Archive) -> ExportedLearner:
    loaders = get_items(get_attribute(get_attribute(learn, "dls"), "loaders"))
    if len(loaders) < 2:
        raise unsupported(
            "it has no validation loader; make its DataLoaders with a splitter and train again"
        )
    loader = loaders[1]
    blocks = _read_blocks(get_attribute(loader, "dataset"))
    item, before, batch = (
        get_items(get_attribute(get_attribute(loader, stage), "fs"))
        for stage in ("after_item", "before_batch", "after_batch")
    )
    transforms = read_transforms(item, batch, archive, before_batch=before, mode=blocks.mode)
    model = get_attribute(learn, "model")
    if not isinstance(model, Object):
        raise unsupported("it has no network; call learn.export() again")
    callbacks = [
        callback
        for callback in get_items(learn.get("cbs", []))
        if class_name(callback) not in LEFT_OUT_SILENTLY
    ]
    metrics = [
        metric.get("func", metric) if isinstance(metric, Object) else metric
        for metric in get_items(learn.get("_metrics", learn.get("metrics", [])))
    ]
    functions = [
        *(*blocks.finding, *blocks.labelling),
        *(learn.get(name) for name in ("arch", "opt_func", "splitter")),
    ]
    loss = _loss(learn.get("loss_func"))
    notes = _notes(learn)
    return ExportedLearner(
        blocks.labels,
        transforms,
        model,
        notes,
        describe(loss),
        _fastai_version(loader, notes),
        _unique(
            *(f"metric {describe(metric)}" for metric in metrics),
            *(f"callback {describe(callback)}" for callback in callbacks),
            *transforms.left_out,
            *(f"function {describe(function)}" for function in functions if is_own(function)),
        ),
        _unique(
            *_assumed_of_loss(loss),
            *(
                f"The function {describe(function)} (get_x) is assumed to return a photo's path."
                for function in blocks.finding
                if not _is_library(function)
            ),
            *(
                f"The callback {describe(callback)} is not run; if it changes photos or outputs "
                "when predicting, the answers differ from learn.predict."
                for callback in callbacks
                if class_name(callback) == "MCDropoutCallback"
                or not class_name(callback).isidentifier()  # not fastai's
            ),
        ),
        _network_name(learn.get("arch"), model),
    )


def _network_name(arch: Any, model: Object) -> str:
    """Return the name of an architecture; where the Learner does not hold it, of the class."""
    if isinstance(arch, str):
        return arch
    return describe(arch if isinstance(arch, Global) else model)


def _unique(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _fastai_version(loader: Object, notes: dict[str, Any]) -> str | None:
    """Return the version of fastai in the notes, or what the module of the Pipeline tells."""
    versions = notes.get("versions")
    if isinstance(versions, dict) and isinstance(versions.get("fastai"), str):
        return str(versions["fastai"])
    package = get_attribute(loader, "after_item").cls.split(".")[0]
    return {"fasttransform": "2.8 or later", "fastcore": "before 2.8"}.get(package)


def _loss(loss: Any) -> Any:
    """Return a loss, or the one that fastai wraps: MSELossFlat and others are functions."""
    return loss.get("func", loss) if class_name(loss) == "BaseLoss" else loss


def _assumed_of_loss(loss: Any) -> tuple[str, ...]:
    if class_name(loss) in SOFTMAX_LOSSES:
        return ()
    sigmoid = ", where learn.predict shows sigmoids" if class_name(loss) in SIGMOID_LOSSES else ""
    return (
        f"The loss {describe(loss)} is not one of fastai's for one label a photo; the "
        f"probabilities are the softmax of the network's outputs{sigmoid}.",
    )


class _Blocks(NamedTuple):
    """The blocks of a Learner; a function is the symbol of one that no prediction needs."""

    mode: str
    labels: tuple[str, ...]
    finding: list[Any]
    """What the items go through before the photo is opened."""
    labelling: list[Any]


def _read_blocks(dataset: Any) -> _Blocks:
    """Read how photos are opened and labelled.

    Raises
    ------
    UnsupportedLearnerError
        The input is not one photo as fastai opens it, or the output not one label.
    """
    if not isinstance(dataset, Object) or dataset.get("tls") is None:
        data = OTHER_KINDS.get(class_name(dataset), describe(dataset))
        raise unsupported(f"it takes {data}; {_ONE_LABEL}")
    lists = get_items(dataset.get("tls"))
    types = [tl.get("types") or [None] for tl in lists]
    named = [OTHER_KINDS.get(class_name(kinds[-1]), describe(kinds[-1])) for kinds in types]
    steps = [
        [_function(step) for step in get_items(get_attribute(get_attribute(tl, "tfms"), "fs"))]
        for tl in lists
    ]
    opened = next((at for at, step in enumerate(steps[0]) if _opens_photos(step)), None)
    if opened is not None and steps[0][opened + 1 :]:
        raise unsupported(
            f"its transform {describe(steps[0][opened + 1])} changes photos when they are opened; "
            "make it an item transform, with split_idx = 0 if it is for training only"
        )
    mode = PHOTOS.get(class_name(types[0][-1]))
    if len(lists) != 2 or mode is None or named[1] != "labels":
        given = " and ".join(named[1:]) or "nothing"
        raise unsupported(f"it takes {named[0]} and gives {given}; {_ONE_LABEL}")
    if opened is None:
        raise unsupported(
            f"its photos are opened by {describe(steps[0][-1])}, which may change them; let "
            "PILImage.create open them, and make the changes an item transform"
        )
    if class_name(steps[1][-1]) != "Categorize":
        raise unsupported(
            f"expected labels of CategoryBlock, got {describe(steps[1][-1])}; use CategoryBlock "
            "and train again"
        )
    labels = _labels(get_items(get_attribute(steps[1][-1], "vocab"), most=math.inf))
    return _Blocks(mode, labels, steps[0][:opened], steps[1][:-1])


def _opens_photos(function: Any) -> bool:
    """Return whether it is the method ``create`` of fastai's PILImage or PILImageBW."""
    match function:
        case Object(Global("builtins" | "__builtin__", "getattr"), (Global() as cls, "create")):
            return class_name(cls) in PHOTOS
        case Object(Global("builtins", "MethodType"), (create, Global() as cls)):
            return class_name(cls) in PHOTOS and class_name(create) == "create"
    return False


def _is_library(function: Any) -> bool:
    """Return whether a function is fastai's or Python's own."""
    package, dot, _ = class_name(function).partition(".")
    return not dot or package in sys.stdlib_module_names or package == "__builtin__"


def _function(transform: Any) -> Any:
    """Return the function in a Transform of fastai, or the transform if it is of another class."""
    encodes = transform.get("encodes")  # since fastai 2.8; init_enc before
    function = transform.get("init_enc") or (encodes and encodes.get("_f")) or transform
    match function:  # what fastai 2.8 wraps a function in, which has no name
        case Object(
            state=(_, {"__qualname__": str(name), "__closure__": (Object(args=(inner,)),)})
        ):
            function = inner if name.endswith("wrapped_enc") else function
    match function:
        case Object(state=(Global(_, "_using_attr"), (inner, *_), *_)):
            return inner
    return function


def _labels(vocab: list[Any]) -> tuple[str, ...]:
    labels: dict[str, None] = {}
    for label in map(_label, vocab):
        if label in labels:  # so that no two hold the same long text
            raise unsupported(
                f"two of its classes are called {shorten(label)}; rename one and train again"
            )
        labels[label] = None
    return tuple(labels)


def _label(value: Any) -> str:
    try:
        return str(plain(value)) or NAMELESS
    except UnsupportedLearnerError as error:
        raise unsupported(
            f"expected labels that are strings or numbers, got {shorten(value)}; let get_y return "
            "a string, and train again"
        ) from error


def _notes(learn: Object) -> dict[str, Any]:
    notes = learn.get("icon_classifier", {})
    if not isinstance(notes, dict):
        raise unsupported(f"expected learn.icon_classifier to be a dict, got {shorten(notes)}")
    try:
        parts = json.JSONEncoder(allow_nan=False).iterencode(notes)
        size = next((n for n in accumulate(map(len, parts)) if n > MAX_NOTES), 0)
    except (TypeError, ValueError, RecursionError) as error:
        raise unsupported(f"expected learn.icon_classifier to be plain values: {error}") from error
    if size:
        raise unsupported(
            f"expected learn.icon_classifier to have at most {MAX_NOTES:,} characters"
        )
    return notes
