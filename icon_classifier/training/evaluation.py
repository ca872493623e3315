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
from icon_classifier.training.calibration import calibration_error, checked, softmax

_Z = 1.959963984540054
"""Quantile of the normal distribution for intervals of 95 %."""


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
    logits, targets = checked(logits, targets)
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
