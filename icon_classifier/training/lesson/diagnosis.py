"""Diagnose what went wrong in a training from its loss curves.

The rules are those that fast.ai's lessons teach by eye: a loss that diverges, one that hardly
moves, one that was still falling, and a validation loss that rose while the training loss kept
falling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from icon_classifier.errors import TrainingError

Kind = Literal[
    "rate too high", "rate too low", "too few epochs", "too many epochs", "nothing wrong"
]

_DIVERGED = 3.0
"""A final validation loss of more than this many times that of guessing has diverged."""

_ROSE = 1.5
"""So has a training loss that ended at more than this many times its first value."""

_STALLED = 0.1
"""A training loss that fell by less than this share has hardly moved."""

_FALLING = 0.07
"""A validation loss that fell by more than this share in the last epoch was still falling."""

_OVERFIT = 0.1
"""A validation loss that ended by this share above its minimum has turned upwards."""

_MESSAGES: dict[Kind, str] = {
    "rate too high": "The loss rose instead of falling: the learning rate is too high. "
    "Use a tenth of it, or what the learning rate finder suggests.",
    "rate too low": "The loss hardly moved: the learning rate is too low. "
    "Use ten times as much, or what the learning rate finder suggests.",
    "too few epochs": "The validation loss was still falling at the end: too few epochs. "
    "Train longer.",
    "too many epochs": "The validation loss was best at epoch {best} of {epochs} and rose "
    "after that while the training loss kept falling: too many epochs. Train for fewer epochs, or "
    "add photos.",
    "nothing wrong": "The losses fell and levelled off: nothing looks wrong.",
}


@dataclass(frozen=True)
class Finding:
    """One thing that the curves show.

    Attributes
    ----------
    kind : str
        Which of the known problems it is.
    message : str
        What happened and what to do, for a person.
    """

    kind: Kind
    message: str


def diagnose_curves(
    train: Sequence[float], valid: Sequence[float], classes: int
) -> tuple[Finding, ...]:
    """Diagnose a training from its losses.

    Parameters
    ----------
    train, valid : sequence of float
        Training and validation loss (cross-entropy, in nats) after each epoch, of equal length.
    classes : int
        Number of classes; the loss of guessing is ``log(classes)``.

    Returns
    -------
    tuple of Finding
        At least one; a single "nothing wrong" if nothing stands out.

    Raises
    ------
    TrainingError
        If there is no epoch, or the curves differ in length.
    """
    if not train or len(train) != len(valid) or classes < 2:
        raise TrainingError(
            f"expected two curves of equal length, got {len(train)} and {len(valid)} epochs"
        )
    guessing = math.log(classes)
    # NaN compares false with everything; unchecked, it would pass for a good loss.
    finite = all(math.isfinite(loss) for loss in [*train, *valid])
    # Only the last epoch counts: a new head may start with any validation loss and recover.
    if not finite or valid[-1] > _DIVERGED * guessing or train[-1] > _ROSE * train[0]:
        return (_finding("rate too high"),)
    best = min(range(len(valid)), key=valid.__getitem__)
    fell = 1 - train[-1] / train[0]
    if len(train) > 1 and fell < _STALLED and valid[-1] > 0.8 * guessing:
        return (_finding("rate too low"),)
    if (
        best < len(valid) - 1
        and valid[-1] > (1 + _OVERFIT) * valid[best]
        and train[-1] < train[best]
    ):
        return (_finding("too many epochs", best=best + 1, epochs=len(valid)),)
    if len(valid) == 1 or valid[-1] < (1 - _FALLING) * valid[-2]:
        return (_finding("too few epochs"),)
    return (_finding("nothing wrong"),)


def _finding(kind: Kind, **numbers: int) -> Finding:
    return Finding(kind, _MESSAGES[kind].format(**numbers))


def diagnose(recorder: Any) -> tuple[Finding, ...]:
    """Diagnose a training from fastai's record of it.

    Parameters
    ----------
    recorder : fastai.learner.Recorder
        ``learn.recorder`` after a training.

    Raises
    ------
    TrainingError
        If nothing was trained.
    """
    names = list(recorder.metric_names)[1:]  # the first is the epoch
    columns = {name: index for index, name in enumerate(names)}
    train, valid = (
        [float(row[columns[name]]) for row in recorder.values]
        for name in ("train_loss", "valid_loss")
    )
    return diagnose_curves(train, valid, len(recorder.learn.dls.vocab))
