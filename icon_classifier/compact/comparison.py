"""Compare two models, or two ways to run one, photo by photo."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from icon_classifier.compact.photos import arrays
from icon_classifier.errors import ConversionError
from icon_classifier.model.session import Model, Prediction

MAX_CHANGED_LABELS = 0.005
"""Largest share of photos that may get another label."""

Photo = TypeVar("Photo")


@dataclass(frozen=True)
class Comparison:
    """How other answers differ from the exact ones.

    Attributes
    ----------
    photos : int
        How many both have classified.
    same_label, same_unsure : int
        How many get the same label, and are "not sure" or not as before.
    largest_difference : float
        Largest difference of a probability, 0 to 1.
    errors : tuple of int or None
        Wrong labels of both; None where it is not known what any photo shows.
    milliseconds : tuple of float
        Processor time of a prediction of both, median.
    megabytes : tuple of float or None
        Sizes of two models, in millions of bytes.
    """

    photos: int
    same_label: int
    same_unsure: int
    largest_difference: float
    errors: tuple[int, int] | None
    milliseconds: tuple[float, float]
    megabytes: tuple[float, float] | None = None


def compare_answers(
    exact: Callable[[Photo], Prediction],
    other: Callable[[Photo], Prediction],
    photos: Iterable[tuple[Photo, str | None]],
) -> Comparison:
    """Compare two answers to each photo.

    Parameters
    ----------
    exact, other : callable
        Take a photo of whatever form and return its answer.
    photos : iterable of (photo, str or None)
        With the label that is right, where that is known.

    Raises
    ------
    ConversionError
        There are no photos.
    """
    labels = unsure = 0
    wrong, seconds, differences = [], [], []
    for photo, expected in photos:
        answers, moments = [], [time.process_time()]
        for classify in (exact, other):
            answers.append(classify(photo))
            moments.append(time.process_time())
        seconds.append(np.diff(moments))
        before, after = answers
        labels += before.label == after.label
        unsure += before.known == after.known
        now = dict(after.ranking)
        differences.append(max(abs(now[label] - p) for label, p in before.ranking))
        if expected is not None:
            wrong.append([each.label != expected for each in answers])
    if not seconds:
        raise ConversionError("expected photos to compare two models on, got none")
    first, second = (1000 * np.median(seconds, axis=0)).tolist()
    errors = np.sum(wrong, axis=0).tolist() if wrong else None
    return Comparison(
        photos=len(seconds),
        same_label=labels,
        same_unsure=unsure,
        largest_difference=max(differences),
        errors=errors and tuple(errors),
        milliseconds=(first, second),
    )


def compare(exact: bytes, smaller: bytes, photos: Sequence[Path]) -> Comparison:
    """Compare a smaller model with the exact one.

    Parameters
    ----------
    exact, smaller : bytes
        Two export.onnx.
    photos : sequence of pathlib.Path
        As :func:`icon_classifier.compact.photos.readable_photos` returns them. One whose folder is
        named like a class is of that class.

    Raises
    ------
    ConversionError
        There are no photos, or more than `MAX_CHANGED_LABELS` of them get another label.
    """
    model, small = Model(exact), Model(smaller)
    labels_of = {label: label for label in model.labels}
    labels_of |= zip(model.info.raw.get("vocab", ()), model.labels, strict=False)
    expected = (labels_of.get(path.parent.name) for path in photos)
    found = compare_answers(
        lambda photo: model.predict_arrays(photo)[0],
        lambda photo: small.predict_arrays(photo)[0],
        zip(arrays(model, photos), expected, strict=True),
    )
    changed = found.photos - found.same_label
    if changed > MAX_CHANGED_LABELS * found.photos:
        raise ConversionError(
            f"the smaller model changes the labels of {changed} of {found.photos} photos, expected "
            f"at most {MAX_CHANGED_LABELS:.1%}; nothing was written"
        )
    return replace(found, megabytes=(len(exact) / 1e6, len(smaller) / 1e6))
