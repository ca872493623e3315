"""Plots for train.ipynb: calibration of a model, and loss curves of trainings."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy.typing as npt

from icon_classifier.model.session import softmax
from icon_classifier.training.diagnosis import Finding
from icon_classifier.training.evaluation import reliability


def plot_reliability(logits: Any, targets: npt.ArrayLike, temperature: float) -> Any:
    """Plot accuracy against the probability that the model gives, without and with temperature.

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
    figure, axes = plt.subplots(figsize=(4, 4))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="perfectly calibrated")
    for divisor, name in ((1.0, "without"), (temperature, "with temperature")):
        bins = reliability(softmax(logits / divisor), targets)
        axes.plot([b.probability for b in bins], [b.accuracy for b in bins], "o-", label=name)
    axes.set(xlabel="probability that the model gives", ylabel="share of correct predictions")
    axes.legend()
    return figure


def plot_curves(runs: Mapping[str, tuple[Any, tuple[Finding, ...]]]) -> Any:
    """Plot the losses of several trainings side by side, each with what was found.

    Parameters
    ----------
    runs : mapping
        A title to a fastai Recorder and what ``diagnose`` found in it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(1, len(runs), figsize=(4 * len(runs), 3.4), squeeze=False)
    for axes, (title, (recorder, findings)) in zip(row[0], runs.items(), strict=True):
        epochs = range(1, len(recorder.values) + 1)
        axes.plot(epochs, [values[0] for values in recorder.values], "o-", label="training")
        axes.plot(epochs, [values[1] for values in recorder.values], "o-", label="validation")
        axes.set(xlabel="epoch", ylabel="loss")
        axes.set_title(f"{title}\nfound: {', '.join(f.kind for f in findings)}", fontsize=10)
        axes.legend()
    figure.tight_layout()
    return figure
