"""Plot the loss curves of trainings."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt

from icon_classifier.training.lesson.diagnosis import diagnose


def plot_curves(runs: Mapping[str, Any]) -> Any:
    """Plot the losses of trainings side by side, each with what is found in them.

    Parameters
    ----------
    runs : mapping
        A title to the fastai Recorder of a training.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, row = plt.subplots(
        *(1, len(runs)), figsize=(3.6 * len(runs), 3.4), squeeze=False, layout="constrained"
    )
    for axes, (title, recorder) in zip(row[0], runs.items(), strict=True):
        epochs = range(1, len(recorder.values) + 1)
        axes.plot(epochs, [values[0] for values in recorder.values], "o-", label="training")
        axes.plot(epochs, [values[1] for values in recorder.values], "o-", label="validation")
        axes.set_xticks(epochs)
        axes.set(xlabel="epoch", ylabel="loss")
        kinds = ", ".join(finding.kind for finding in diagnose(recorder))
        axes.set_title(f"{title}\nfound: {kinds}", fontsize=10)
        axes.legend()
    return figure
