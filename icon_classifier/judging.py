"""How good a model is, told from its logits on photos that it was not trained on.

Everything here is arithmetic on arrays; nothing knows of networks. All errors of a model are
counted on validation photos only, and every share comes with the interval that so few photos allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from icon_classifier.errors import TrainingError

__all__ = [
    "Bin",
    "ClassFigures",
    "Figures",
    "auroc",
    "calibration_error",
    "fit_temperature",
    "judge",
    "reliability",
    "softmax",
    "threshold_for",
    "wilson_interval",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_Z = 1.959963984540054
"""Quantile of the normal distribution for intervals of 95 %."""

_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class ClassFigures:
    """How one class fares.

    Attributes
    ----------
    label : str
        Name of the class.
    precision : float or None
        Share of photos called so that are so; None where none was called so.
    recall : float
        Share of photos that are so and were called so.
    photos : int
        How many photos are so.
    """

    label: str
    precision: float | None
    recall: float
    photos: int


@dataclass(frozen=True)
class Bin:
    """Photos of about the same probability: one bar of a reliability diagram.

    Attributes
    ----------
    low, high : float
        Edges of the bin.
    photos : int
        How many fell into it.
    probability, right : float
        Mean probability that the model gave, and share that was right.
    """

    low: float
    high: float
    photos: int
    probability: float
    right: float


@dataclass(frozen=True)
class Figures:
    """What was measured on validation photos.

    Attributes
    ----------
    photos, errors : int
        How many photos, and how many of them got a wrong label.
    error : float
        Their share.
    interval : tuple of float
        95 % confidence interval of that share.
    classes : tuple of ClassFigures
        In the order of the labels.
    confusion : tuple of tuple of int
        Rows are true classes, columns are answers.
    temperature : float
        What the logits are divided by.
    calibration_before, calibration_after : float
        Expected calibration error without and with that temperature.
    accepted : float or None
        Share of photos that are not called "not sure"; None where the model never says so.
    """

    photos: int
    errors: int
    error: float
    interval: tuple[float, float]
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    temperature: float
    calibration_before: float
    calibration_after: float
    accepted: float | None

    def to_json(self) -> dict[str, Any]:
        """Give the same as builtins, for a model's metadata."""
        entries = asdict(self)
        entries["interval"] = list(self.interval)
        entries["classes"] = list(entries["classes"])
        entries["confusion"] = [list(row) for row in self.confusion]
        return entries


def judge(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
    scores: npt.ArrayLike | None = None,
    threshold: float | None = None,
) -> Figures:
    """Judge a model by its logits on validation photos.

    Parameters
    ----------
    logits : array_like
        Shape (N, C).
    targets : array_like
        Integers of 0 to C - 1, shape (N,).
    labels : sequence of str
        Names of the C classes.
    temperature : float, optional
        What the logits are divided by for probabilities.
    scores : array_like, optional
        How familiar each photo looks, shape (N,); higher is more.
    threshold : float, optional
        Below this score a photo is called "not sure".

    Raises
    ------
    TrainingError
        If the shapes do not fit, or there is no photo.
    """
    logits, targets = _checked(logits, targets)
    if logits.shape[1] != len(labels):
        raise TrainingError(f"expected {len(labels)} logits a photo, got {logits.shape[1]}")
    answers = logits.argmax(axis=1)
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (targets, answers), 1)
    errors = int((answers != targets).sum())
    accepted = None
    if scores is not None and threshold is not None:
        accepted = float((np.asarray(scores, float) >= threshold).mean())
    return Figures(
        photos=len(targets),
        errors=errors,
        error=errors / len(targets),
        interval=wilson_interval(errors, len(targets)),
        classes=tuple(_class_figures(i, label, confusion) for i, label in enumerate(labels)),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        temperature=temperature,
        calibration_before=calibration_error(softmax(logits), targets),
        calibration_after=calibration_error(softmax(logits / temperature), targets),
        accepted=accepted,
    )


def softmax(logits: Floats) -> Floats:
    """Turn logits of shape (..., C) into probabilities."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def fit_temperature(logits: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Find the temperature that makes probabilities honest.

    The negative log-likelihood of validation photos is lowest there (Guo et al. 2017, "On
    Calibration of Modern Neural Networks"). Where no photo is wrong that would be a temperature of
    0 and a probability of 1 for everything; the targets are therefore smoothed as if one more photo
    had been looked at and were wrong (Platt 1999).

    Parameters
    ----------
    logits : array_like
        Shape (N, C).
    targets : array_like
        Integers, shape (N,).

    Returns
    -------
    float
        Above 0; 1 leaves the probabilities as they are.
    """
    logits, targets = _checked(logits, targets)
    count, classes = logits.shape
    wrong = 1 / (count + 2)
    wanted = np.full((count, classes), wrong / max(classes - 1, 1))
    wanted[np.arange(count), targets] = 1 - wrong

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        top = scaled.max(axis=1, keepdims=True)
        log_probabilities = scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
        return float(-(wanted * log_probabilities).sum(axis=1).mean())

    # The loss has one valley in the logarithm of the temperature: a golden section finds it.
    low, high = (math.log(t) for t in _TEMPERATURES)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-6:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return math.exp((low + high) / 2)


def reliability(
    probabilities: npt.ArrayLike, targets: npt.ArrayLike, bins: int = 15
) -> tuple[Bin, ...]:
    """Compare what the model promises with what it keeps.

    Parameters
    ----------
    probabilities : array_like
        Shape (N, C).
    targets : array_like
        Integers, shape (N,).
    bins : int, optional
        How many bins of equal width between 0 and 1.

    Returns
    -------
    tuple of Bin
        Only those that hold photos, from low to high.
    """
    probabilities, targets = _checked(probabilities, targets)
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    index = np.minimum((top * bins).astype(int), bins - 1)
    found = []
    for i in range(bins):
        chosen = index == i
        if chosen.any():
            mean, share = float(top[chosen].mean()), float(right[chosen].mean())
            found.append(Bin(i / bins, (i + 1) / bins, int(chosen.sum()), mean, share))
    return tuple(found)


def calibration_error(
    probabilities: npt.ArrayLike, targets: npt.ArrayLike, bins: int = 15
) -> float:
    """Tell by how much probabilities are off, on average: the expected calibration error, 0 to 1.

    Naeini et al. 2015, over the probability of the answer, in bins of equal width.
    """
    found = reliability(probabilities, targets, bins)
    photos = sum(b.photos for b in found)
    return sum(b.photos * abs(b.probability - b.right) for b in found) / photos


def wilson_interval(errors: int, count: int) -> tuple[float, float]:
    """Give the 95 % confidence interval of a share (Wilson 1927), sound for no errors too."""
    if not 0 <= errors <= count or count == 0:
        raise TrainingError(f"expected 0 to {count} errors of at least one photo, got {errors}")
    share = errors / count
    scale = 1 + _Z**2 / count
    centre = (share + _Z**2 / (2 * count)) / scale
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def threshold_for(scores: npt.ArrayLike, accept: float = 0.97) -> float:
    """Choose the score below which a photo is called "not sure".

    Parameters
    ----------
    scores : array_like
        Scores of photos of the right kind that the model was not trained on, shape (N,).
    accept : float, optional
        Share of them that must stay above, between 0 and 1.
    """
    values = np.asarray(scores, float)
    if values.size == 0 or not np.isfinite(values).all() or not 0 < accept < 1:
        raise TrainingError("expected finite scores and a share between 0 and 1")
    return float(np.quantile(values, 1 - accept))


def auroc(known: npt.ArrayLike, unknown: npt.ArrayLike) -> float:
    """Tell how often a photo of the right kind scores above one of another kind; ties count half.

    Parameters
    ----------
    known, unknown : array_like
        Scores, shapes (N,) and (M,).
    """
    above, below = np.asarray(known, float)[:, None], np.asarray(unknown, float)[None, :]
    if above.size == 0 or below.size == 0:
        raise TrainingError("expected scores of both kinds")
    return float((above > below).mean() + 0.5 * (above == below).mean())


def _class_figures(index: int, label: str, confusion: npt.NDArray[np.int_]) -> ClassFigures:
    right, called = int(confusion[index, index]), int(confusion[:, index].sum())
    photos = int(confusion[index].sum())
    return ClassFigures(
        label=label,
        precision=right / called if called else None,
        recall=right / photos if photos else 0.0,
        photos=photos,
    )


def _checked(rows: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Floats, Integers]:
    rows, targets = np.asarray(rows, np.float64), np.asarray(targets, np.int64)
    if rows.ndim != 2 or targets.shape != rows.shape[:1] or not rows.size:
        raise TrainingError(
            f"expected rows (N, C) and targets (N,), got {rows.shape} and {targets.shape}"
        )
    if targets.min() < 0 or targets.max() >= rows.shape[1]:
        raise TrainingError(f"expected targets of 0 to {rows.shape[1] - 1}")
    if not np.isfinite(rows).all():
        raise TrainingError("expected finite values, got NaN or infinity")
    return rows, targets
