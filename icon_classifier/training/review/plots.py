"""Plots of how good a model is, and of the photos that it gets wrong."""

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from icon_classifier.images import read_image_file, shrink
from icon_classifier.model.session import softmax
from icon_classifier.training.evaluation import Figures, reliability
from icon_classifier.training.review.advice import Advice
from icon_classifier.training.review.doubts import Doubt

_MAX_CLASSES = 16
"""More rows and columns of a confusion matrix cannot be read."""

_MAX_LETTERS = 22  # of a label
_COLUMNS = 3  # of photos
_SIDE = 320  # pixels of a photo


def plot_reliability(logits: Any, targets: npt.ArrayLike, temperature: float) -> Any:
    """Plot accuracy against the probability that the model gives, and how many photos that was.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (N, C), of photos that the model was not trained on.
    targets : array_like
        Integers, shape (N,).
    temperature : float
        What logits are divided by.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, (axes, counts) = plt.subplots(
        *(2, 1), figsize=(4.5, 5.5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="perfectly calibrated")
    for divisor, name in ((1.0, "without"), (temperature, "with temperature")):
        bins = reliability(softmax(logits / divisor), targets)
        axes.plot([b.probability for b in bins], [b.accuracy for b in bins], "o-", label=name)
    axes.set_ylabel("share of correct predictions")
    axes.legend(loc="lower right")
    bars = counts.bar(
        *([b.low for b in bins], [b.photos for b in bins], bins[0].high - bins[0].low),
        align="edge",
        edgecolor="white",
        color="C1",
    )
    counts.bar_label(bars, fontsize=8)
    counts.margins(y=0.3)  # space for the numbers
    counts.set(xlabel="probability that the model gives", ylabel="photos")
    return figure


def plot_confusion(figures: Figures) -> Any:
    """Plot which class is predicted as which; of many classes, those with the most errors.

    Returns
    -------
    matplotlib.figure.Figure
    """
    matrix = np.array(figures.confusion)  # (C, C)
    labels = [each.label for each in figures.classes]
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal()
    shown = np.sort(np.argsort(-errors, kind="stable")[:_MAX_CLASSES])
    part = matrix[np.ix_(shown, shown)]
    names = [_shortened(labels[i]) for i in shown]
    side = 2.5 + 0.45 * len(shown)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(part / np.maximum(part.sum(axis=1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(part):
        if count:
            dark = count > 0.5 * part[row].sum()
            color = "white" if dark else "black"
            axes.text(column, row, count, ha="center", va="center", color=color, fontsize=9)
    ticks = range(len(shown))
    axes.set_xticks(ticks, names, rotation=45, ha="right")
    axes.set_yticks(ticks, names)
    axes.set(xlabel="answer", ylabel="label")
    if len(shown) < len(labels):
        axes.set_title(f"the {len(shown)} of {len(labels)} classes with the most errors")
    return figure


def _shortened(label: str) -> str:
    """Drop the middle of a long label: the names of many classes start alike."""
    return label if len(label) <= _MAX_LETTERS else f"{label[:12]}…{label[-9:]}"


def plot_doubts(doubts: Sequence[Doubt], count: int = 9) -> Any:
    """Plot the first photos that the model doubts, each with its name, label and answer.

    Returns
    -------
    matplotlib.figure.Figure or None
        None if there is none to show.
    """
    shown = doubts[:count]
    if not shown:
        return None
    rows = -(-len(shown) // _COLUMNS)
    figure, grid = plt.subplots(
        *(rows, _COLUMNS), figsize=(9, 3.3 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat:
        axes.axis("off")
    for axes, doubt in zip(grid.flat, shown, strict=False):
        axes.imshow(shrink(read_image_file(doubt.path), _SIDE))
        lines = (*textwrap.wrap(doubt.name, 36)[:2], *textwrap.wrap(str(doubt), 36))
        axes.set_title("\n".join(lines), fontsize=9, color="C3" if doubt.wrong else "black")
    return figure


def plot_learning_curve(advice: Advice) -> Any:
    """Plot the error against the number of photos that heads were fitted to.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    counts = [point.photos for point in advice.curve]
    errors = [100 * point.error for point in advice.curve]
    spread = [100 * point.uncertainty for point in advice.curve]
    axes.errorbar(counts, errors, spread, marker="o", capsize=3)
    axes.set_xticks(counts)
    axes.set_ylim(0, max(1, axes.get_ylim()[1]))
    axes.set(xlabel="photos", ylabel="wrong (%)", title="Would more photos help?")
    return figure
