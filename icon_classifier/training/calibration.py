"""How honest probabilities are: what a model promises against what it keeps, and the temperature.

Like ``judging.py`` arithmetic on arrays; nothing knows of networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icon_classifier.errors import TrainingError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_TEMPERATURES = (0.05, 20.0)


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
    logits, targets = checked(logits, targets)
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
    probabilities, targets = checked(probabilities, targets)
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


def checked(rows: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Floats, Integers]:
    """Give logits or probabilities and the classes of their photos as arrays that fit each other.

    Parameters
    ----------
    rows : array_like
        Finite, shape (N, C).
    targets : array_like
        Integers of 0 to C - 1, shape (N,).

    Raises
    ------
    TrainingError
        If they do not fit, or there is no photo.
    """
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
