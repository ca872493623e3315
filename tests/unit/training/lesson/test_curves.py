from types import SimpleNamespace

import matplotlib.pyplot as plt

from icon_classifier.training.lesson.curves import plot_curves


def test_curves_are_drawn_into_their_own_axes_with_what_was_found() -> None:
    recorder = SimpleNamespace(
        metric_names=["epoch", "train_loss", "valid_loss", "time"],
        values=[[1.0, 0.8], [0.7, 0.5]],
        learn=SimpleNamespace(dls=SimpleNamespace(vocab=["a", "b", "c"])),
    )
    other = plt.figure().gca()  # what lr_find leaves behind

    figure = plot_curves(dict.fromkeys(("bears", "high", "low", "few"), recorder))

    assert other not in figure.axes
    assert not other.lines
    assert [axes.get_title() for axes in figure.axes] == [
        f"{name}\nfound: too few epochs" for name in ("bears", "high", "low", "few")
    ]
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[1.0, 0.7], [0.8, 0.5]]
    plt.close("all")
