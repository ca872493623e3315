"""Evaluate and calibrate a model from its logits on photos that it was not trained on.

Everything here is arithmetic on arrays, without networks. Every error rate comes with the
confidence interval that the number of photos allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from icon_classifier.errors import TrainingError
from icon_classifier.model.session import softmax

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_BINS = 15
"""Of equal width between the probabilities 0 and 1."""

_TEMPERATURES = (0.05, 20.0)
"""Range in which a temperature is looked for."""


@dataclass(frozen=True)
class ClassFigures:
    """How well one class is recognised.

    Attributes
    ----------
    label : str
        Name of the class.
    precision : float or None
        Share of the photos predicted as this class that belong to it; None where none was.
    recall : float
        Share of the photos of this class that are predicted as it.
    photos : int
        Number of photos of this class.
    """

    label: str
    precision: float | None
    recall: float
    photos: int


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
    mean_recall : float
        Mean of the recall of all classes: a rare class counts as much as a common one.
    classes : tuple of ClassFigures
        In the order of the labels.
    confusion : tuple of tuple of int
        Rows are true classes, columns are predictions.
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
    mean_recall: float
    classes: tuple[ClassFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    temperature: float
    calibration_before: float
    calibration_after: float
    accepted: float | None

    def to_json(self) -> dict[str, Any]:
        """Convert to builtins, for a model's metadata."""
        entries = asdict(self)
        entries["interval"] = list(self.interval)
        entries["classes"] = list(entries["classes"])
        entries["confusion"] = [list(row) for row in self.confusion]
        return entries


@dataclass(frozen=True)
class Bin:
    """Photos of about the same probability: one point of a reliability diagram.

    Attributes
    ----------
    low, high : float
        Edges of the bin.
    photos : int
        How many fell into it.
    probability, accuracy : float
        Mean probability of the predicted label, and share of correct predictions.
    """

    low: float
    high: float
    photos: int
    probability: float
    accuracy: float


def evaluate(
    logits: npt.ArrayLike,
    targets: npt.ArrayLike,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
    scores: npt.ArrayLike | None = None,
    threshold: float | None = None,
) -> Figures:
    """Evaluate a model by its logits on validation photos.

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
        raise TrainingError(f"expected {len(labels)} logits per photo, got {logits.shape[1]}")
    predicted = logits.argmax(axis=1)
    confusion = confusion_matrix(targets, predicted, labels=range(len(labels)))
    errors = int((predicted != targets).sum())
    accepted = None
    if scores is not None and threshold is not None:
        accepted = float((np.asarray(scores, float) >= threshold).mean())
    return Figures(
        photos=len(targets),
        errors=errors,
        error=errors / len(targets),
        interval=wilson_interval(errors, len(targets)),
        mean_recall=mean_recall(predicted, targets),
        classes=tuple(_class_figures(i, label, confusion) for i, label in enumerate(labels)),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        temperature=temperature,
        calibration_before=calibration_error(softmax(logits), targets),
        calibration_after=calibration_error(softmax(logits / temperature), targets),
        accepted=accepted,
    )


def _class_figures(index: int, label: str, confusion: npt.NDArray[np.int_]) -> ClassFigures:
    correct, predicted = int(confusion[index, index]), int(confusion[:, index].sum())
    photos = int(confusion[index].sum())
    return ClassFigures(
        label=label,
        precision=correct / predicted if predicted else None,
        recall=correct / photos if photos else 0.0,
        photos=photos,
    )


def mean_recall(predicted: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Return the mean, over the classes that have photos, of the share that is predicted right.

    Parameters
    ----------
    predicted, targets : array_like
        Integers, shape (N,).
    """
    targets = np.asarray(targets)
    right = np.asarray(predicted) == targets
    return float(np.mean([right[targets == each].mean() for each in np.unique(targets)]))


def wilson_interval(errors: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share (Wilson 1927), valid for no errors too.

    Raises
    ------
    TrainingError
        If there is no photo, or the errors are not 0 to `count`.
    """
    if not 0 <= errors <= count or count == 0:
        raise TrainingError(f"expected 0 to {count} errors of at least one photo, got {errors}")
    interval = binomtest(errors, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def acceptance_threshold(scores: npt.ArrayLike, accept: float = 0.98) -> float:
    """Return the score below which a photo is "not sure"; at least the share `accept` reaches it.

    Parameters
    ----------
    scores : array_like
        Of photos of the right kind, shape (N,); higher is more familiar.
    accept : float, optional
        Share of them to accept.

    Raises
    ------
    TrainingError
        If there is no score, or one that is not finite.
    """
    scores = np.asarray(scores, np.float64)
    if not (scores.size and np.isfinite(scores).all()):
        raise TrainingError("expected finite scores")
    return float(np.quantile(scores, 1 - accept, method="lower"))


def fit_temperature(logits: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Find the temperature that calibrates probabilities.

    The negative log-likelihood of validation photos is lowest there (Guo et al. 2017, "On
    Calibration of Modern Neural Networks"). Where no photo is wrong that would be a temperature of
    0 and a probability of 1 for everything; the targets are therefore smoothed as if there were one
    more photo, with a wrong label (Platt 1999).

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

    Raises
    ------
    TrainingError
        If the arrays do not match, hold no photo or a value that is not finite.
    """
    logits, targets = _checked(logits, targets)
    count, classes = logits.shape
    wrong = 1 / (count + 2)
    smoothed = np.full((count, classes), wrong / max(classes - 1, 1))
    smoothed[np.arange(count), targets] = 1 - wrong

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / math.exp(log_temperature), axis=1)
        return float(-(smoothed * log_probabilities).sum(axis=1).mean())

    # As a function of the logarithm of the temperature the loss has a single minimum.
    bounds = [math.log(temperature) for temperature in _TEMPERATURES]
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x)


def reliability(probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Bin, ...]:
    """Compare the probabilities that the model gives with how often it is right.

    Parameters
    ----------
    probabilities : array_like
        Shape (N, C).
    targets : array_like
        Integers, shape (N,).

    Returns
    -------
    tuple of Bin
        Those of equal width between 0 and 1 that hold photos, from low to high.

    Raises
    ------
    TrainingError
        If the arrays do not match, hold no photo or a value that is not finite.
    """
    probabilities, targets = _checked(probabilities, targets)
    top = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    index = np.minimum((top * _BINS).astype(int), _BINS - 1)
    found = []
    for i in np.unique(index):
        chosen = index == i
        mean, accuracy = float(top[chosen].mean()), float(correct[chosen].mean())
        found.append(Bin(i / _BINS, (i + 1) / _BINS, int(chosen.sum()), mean, accuracy))
    return tuple(found)


def calibration_error(probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Return by how much probabilities are off on average: expected calibration error, 0 to 1.

    Naeini et al. 2015, over the probability of the predicted label, in bins of equal width.
    Raises what :func:`reliability` does.
    """
    found = reliability(probabilities, targets)
    photos = sum(b.photos for b in found)
    return sum(b.photos * abs(b.probability - b.accuracy) for b in found) / photos


def _checked(rows: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Floats, Integers]:
    """Convert logits or probabilities and the classes of their photos to arrays that match.

    Parameters
    ----------
    rows : array_like
        Finite, shape (N, C).
    targets : array_like
        Integers of 0 to C - 1, shape (N,).

    Raises
    ------
    TrainingError
        If they do not match, or there is no photo.
    """
    rows, targets = np.asarray(rows, np.float64), np.asarray(targets, np.int64)
    if rows.ndim != 2 or targets.shape != rows.shape[:1] or not rows.size:
        raise TrainingError(
            f"expected rows (N, C) and targets (N,), got {rows.shape} and {targets.shape}"
        )
    if targets.min() < 0 or targets.max() >= rows.shape[1]:
        raise TrainingError(
            f"expected targets of 0 to {rows.shape[1] - 1}, got {targets.min()} to {targets.max()}"
        )
    if not np.isfinite(rows).all():
        raise TrainingError("expected finite values, got NaN or infinity")
    return rows, targets
