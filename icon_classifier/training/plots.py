"""Pictures for train.ipynb: is the model honest, and what do training curves look like."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy.typing as npt

from icon_classifier.training.calibration import reliability, softmax
from icon_classifier.training.diagnosis import Finding


def plot_reliability(logits: Any, targets: npt.ArrayLike, temperature: float) -> Any:
    """Draw what the model promises against what it keeps, before and after its temperature.

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
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="perfectly honest")
    for divisor, name in ((1.0, "before"), (temperature, "after temperature")):
        bins = reliability(softmax(logits / divisor), targets)
        axes.plot([b.probability for b in bins], [b.right for b in bins], "o-", label=name)
    axes.set(xlabel="probability that the model gives", ylabel="share that is right")
    axes.legend()
    return figure


def plot_curves(runs: Mapping[str, tuple[Any, tuple[Finding, ...]]]) -> Any:
    """Draw the losses of several trainings side by side, each under what was found.

    Parameters
    ----------
    runs : mapping
        A title to a fastai Recorder and what ``training.diagnose`` found in it.

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
