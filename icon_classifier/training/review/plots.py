"""Plots of how good a model is."""

from typing import Any

import matplotlib.pyplot as plt
import numpy.typing as npt

from icon_classifier.model.session import softmax
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
