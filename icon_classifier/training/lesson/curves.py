"""Plot the loss curves of trainings."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt

from icon_classifier.training.lesson.diagnosis import diagnose

_COLUMNS = 3


def plot_curves(runs: Mapping[str, Any]) -> Any:
    """Plot the losses of trainings, each with what is found in them.

    Parameters
    ----------
    runs : mapping
        A title to the fastai Recorder of a training.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = min(len(runs), _COLUMNS)
    rows = -(-len(runs) // columns)
    figure, grid = plt.subplots(
        *(rows, columns), figsize=(3.4 * columns, 3.2 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(runs) :]:
        axes.remove()
    for axes, (title, recorder) in zip(grid.flat, runs.items(), strict=False):
        epochs = range(1, len(recorder.values) + 1)
        axes.plot(epochs, [values[0] for values in recorder.values], "o-", label="training")
        axes.plot(epochs, [values[1] for values in recorder.values], "o-", label="validation")
        axes.set_xticks(epochs)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.set_title(f"{title}\nfound: {diagnose(recorder)}", fontsize=10)
        axes.legend()
    return figure
