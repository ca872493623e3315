"""Diagnose what went wrong in a training from its loss curves.

The rules are those that fast.ai's lessons teach by eye: a loss that diverges, one that hardly
moves, one that was still falling, and a validation loss that rose while the training loss kept
falling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def diagnose_curves(train: Sequence[float], valid: Sequence[float], classes: int) -> Kind:
    """Diagnose a training from its losses.

    Parameters
    ----------
    train, valid : sequence of float
        Training and validation loss (cross-entropy, in nats) after each epoch, of equal length.
    classes : int
        Number of classes; the loss of guessing is ``log(classes)``.

    Returns
    -------
    str
        What the curves show; "nothing wrong" if nothing stands out.

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
        return "rate too high"
    best = min(range(len(valid)), key=valid.__getitem__)
    fell = 1 - train[-1] / train[0]
    if len(train) > 1 and fell < _STALLED and valid[-1] > 0.8 * guessing:
        return "rate too low"
    if (
        best < len(valid) - 1
        and valid[-1] > (1 + _OVERFIT) * valid[best]
        and train[-1] < train[best]
    ):
        return "too many epochs"
    if len(valid) == 1 or valid[-1] < (1 - _FALLING) * valid[-2]:
        return "too few epochs"
    return "nothing wrong"


def diagnose(recorder: Any) -> Kind:
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
