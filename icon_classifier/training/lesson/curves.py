"""Plot the loss curves of trainings."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt

from icon_classifier.training.lesson.diagnosis import Finding


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
