"""Judge on photos what a smaller model changes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icon_classifier.compact.photos import arrays
from icon_classifier.errors import ConversionError
from icon_classifier.model.session import Model

MAX_CHANGED_LABELS = 0.005
"""Largest share of photos that may get another label."""


@dataclass(frozen=True)
class Comparison:
    """What a smaller model changes.

    Attributes
    ----------
    photos : int
        How many both have classified.
    same_label, same_unsure : int
        How many get the same label, and are "not sure" or not as before.
    largest_difference : float
        Largest difference of a probability, 0 to 1.
    errors : tuple of int or None
        Wrong labels of the exact model and of this one; None where folders name no class.
    milliseconds : tuple of float
        Processor time of a prediction of both, median.
    megabytes : tuple of float
        Sizes of both, in millions of bytes.
    """

    photos: int
    same_label: int
    same_unsure: int
    largest_difference: float
    errors: tuple[int, int] | None
    milliseconds: tuple[float, float]
    megabytes: tuple[float, float]


def compare(exact: bytes, smaller: bytes, photos: Sequence[Path]) -> Comparison:
    """Compare the answers of two models photo by photo.

    Parameters
    ----------
    exact, smaller : bytes
        Two export.onnx.
    photos : sequence of pathlib.Path
        As :func:`icon_classifier.compact.photos.find_photos` returns them. One whose folder is
        named like a class is of that class.

    Raises
    ------
    ConversionError
        There are no photos, or more than `MAX_CHANGED_LABELS` of them get another label.
    """
    if not photos:
        raise ConversionError("expected photos to compare two models on, got none")
    models = Model(exact), Model(smaller)
    labels_of = {label: label for label in models[0].labels}
    labels_of |= zip(models[0].info.raw.get("vocab", ()), models[0].labels, strict=False)
    labels = unsure = 0
    wrong, seconds, differences = [], [], []
    for path, photo in zip(photos, arrays(models[0], photos), strict=True):
        answers, taken = [], []
        for model in models:
            start = time.thread_time()
            answers += model.predict_arrays(photo)
            taken.append(time.thread_time() - start)
        seconds.append(taken)
        before, after = answers
        labels += before.label == after.label
        unsure += before.known == after.known
        now = dict(after.ranking)
        differences += [abs(now[label] - p) for label, p in before.ranking]
        if expected := labels_of.get(path.parent.name):
            wrong.append([each.label != expected for each in answers])
    changed = len(photos) - labels
    if changed > MAX_CHANGED_LABELS * len(photos):
        raise ConversionError(
            f"the smaller model changes the labels of {changed} of {len(photos)} photos, expected "
            f"at most {MAX_CHANGED_LABELS:.1%}; nothing was written"
        )
    errors = np.sum(wrong, axis=0).tolist() if wrong else None
    first, second = (1000 * np.median(seconds, axis=0)).tolist()
    return Comparison(
        photos=len(photos),
        same_label=labels,
        same_unsure=unsure,
        largest_difference=max(differences),
        errors=errors and tuple(errors),
        milliseconds=(first, second),
        megabytes=(len(exact) / 1e6, len(smaller) / 1e6),
    )
