"""Read what an exported Learner does to a photo from its parsed pickle, without fastai.

``Learner.predict`` applies the item transforms of the validation loader, its batch transforms, the
model and the activation of the loss. A Learner with a part that cannot be reproduced exactly is
refused with the reason.
"""

import json
from dataclasses import dataclass
from typing import Any

from icon_classifier.conversion.archive import Archive
from icon_classifier.conversion.fields import (
    class_name,
    get_attribute,
    get_items,
    plain,
    unsupported,
)
from icon_classifier.conversion.transforms import Transforms, read_transforms
from icon_classifier.conversion.unpickler import Object

SOFTMAX_LOSSES = ("CrossEntropyLossFlat", "FocalLossFlat", "LabelSmoothingCrossEntropyFlat")
"""Losses of fastai whose activation is the softmax."""


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
    """

    labels: tuple[str, ...]
    transforms: Transforms
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
        raise unsupported(f"its parts are not those of a fastai Learner ({error})") from error


def _read(archive: Archive) -> ExportedLearner:
    learn = archive.root
    if not isinstance(learn, Object) or learn.cls != "fastai.learner.Learner":
        raise unsupported(f"expected a fastai Learner, got {learn!r:.80}")
    _check_loss(learn.get("loss_func"))
    _check_callbacks(learn.get("cbs"))
    loaders = get_items(get_attribute(get_attribute(learn, "dls"), "loaders"))
    if len(loaders) < 2:
        raise unsupported("it has no validation loader")
    loader = loaders[1]
    mode = _mode(loader)
    labels = _labels(loader)
    item, before, batch = (
        get_items(get_attribute(get_attribute(loader, stage), "fs"))
        for stage in ("after_item", "before_batch", "after_batch")
    )
    transforms = read_transforms(item, batch, archive, before_batch=before, mode=mode)
    model = get_attribute(learn, "model")
    if not isinstance(model, Object):
        raise unsupported("it has no model")
    return ExportedLearner(labels, transforms, model, _notes(learn))


def _check_loss(loss: Any) -> None:
    name = class_name(loss)
    if name not in SOFTMAX_LOSSES:
        raise unsupported(
            "expected the loss of a classifier with one label per photo "
            f"({', '.join(SOFTMAX_LOSSES)}), got {name}"
        )


def _check_callbacks(callbacks: Any) -> None:
    """Refuse callbacks that may change a prediction; fastai's own act only in training."""
    for callback in get_items(callbacks):
        cls = callback.cls if isinstance(callback, Object) else repr(callback)
        if not cls.startswith("fastai."):
            raise unsupported(f"it has a callback that is not fastai's own ({cls:.80})")


def _mode(loader: Any) -> str:
    """Return the mode of the photos: RGB or L, which is grey."""
    lists = get_items(get_attribute(get_attribute(loader, "dataset"), "tls"))
    types = lists[0].get("types") or [None]
    match str(types[-1]):
        case "fastai.vision.core.PILImage":
            return "RGB"
        case "fastai.vision.core.PILImageBW":
            return "L"
    raise unsupported(f"expected photos of PILImage or PILImageBW, got {types[-1]}")


def _labels(loader: Any) -> tuple[str, ...]:
    """Return the vocab, after checking that the input is a photo and the output one category."""
    dataset = get_attribute(loader, "dataset")
    lists = get_items(get_attribute(dataset, "tls"))
    if len(lists) != 2 or dataset.get("n_inp") not in (1, None):
        raise unsupported("it has more than a photo as input or more than one label as output")
    types = loader.get("_types")
    if isinstance(types, dict):
        names = [str(kind) for kinds in types.values() for kind in kinds]
        image, category = "fastai.torch_core.TensorImage", "fastai.torch_core.TensorCategory"
        if names not in ([image, category], [f"{image}BW", category]):
            raise unsupported(f"expected photos and one label each, got {', '.join(names)}")
    categorize = get_items(get_attribute(get_attribute(lists[1], "tfms"), "fs"))[-1]
    if class_name(categorize) != "Categorize":
        raise unsupported(f"expected labels of Categorize, got {class_name(categorize)}")
    vocab = [plain(label) for label in get_items(get_attribute(categorize, "vocab"))]
    return tuple(str(label) for label in vocab)


def _notes(learn: Object) -> dict[str, Any]:
    notes = learn.get("icon_classifier", {})
    try:
        json.dumps(notes, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise unsupported(f"expected learn.icon_classifier to be plain values: {error}") from error
    if not isinstance(notes, dict):
        raise unsupported(f"expected learn.icon_classifier to be a dict, got {notes!r:.80}")
    return notes
