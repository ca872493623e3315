from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from icon_classifier.training.evaluation import evaluate
from icon_classifier.training.review.advice import Advice, Point
from icon_classifier.training.review.doubts import Doubt
from icon_classifier.training.review.plots import (
    plot_confusion,
    plot_doubts,
    plot_learning_curve,
    plot_reliability,
)


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def predictions(classes: int, per_class: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right more often than not, and targets."""
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(classes), per_class)
    logits = random.normal(0, 1, (len(targets), classes))
    logits[np.arange(len(targets)), targets] += 2
    return logits, targets


def test_reliability_counts_the_photos_of_each_bin() -> None:
    figure = plot_reliability(*predictions(3), temperature=0.8)

    shown = [text.get_text() for text in figure.axes[1].texts]
    assert sum(map(int, shown)) == 60


@pytest.mark.parametrize(("classes", "rows"), [(2, 2), (16, 16), (60, 16)])
def test_confusion_of_many_classes_shows_those_with_most_errors(classes: int, rows: int) -> None:
    labels = [f"a long name of a plant, number {i}" for i in range(classes)]

    figure = plot_confusion(evaluate(*predictions(classes), labels))

    axes = figure.axes[0]
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert len(ticks) == len(set(ticks)) == rows
    assert axes.get_title() == (
        "the 16 of 60 classes with the most errors" if classes > rows else ""
    )
    assert not overlapping(figure, [*axes.get_yticklabels()])


def test_photos_have_their_names_and_titles_do_not_touch(tmp_path: Path) -> None:
    (tmp_path / "grizzly").mkdir()
    doubts = []
    for number in range(7):
        path = tmp_path / "grizzly" / f"a_photograph_with_a_rather_long_name_{number}.png"
        Image.new("RGB", (90 - 10 * number, 40 + 20 * number)).save(path)
        doubts.append(Doubt(path, "grizzly", ("black", "grizzly")[number % 2], 0.1, 0.9))

    figure = plot_doubts(doubts)

    titles = [axes.title for axes in figure.axes if axes.get_title()]
    assert len(titles) == 7
    # The name is longer than a line.
    assert "".join(titles[3].get_text().split("\n")[:2]) == f"grizzly/{doubts[3].path.name}"
    assert titles[0].get_text().endswith("grizzly is taken for black, 90%")
    assert titles[0].get_color() != titles[1].get_color()
    assert not overlapping(figure, titles)


def test_no_doubt_is_no_plot() -> None:
    assert plot_doubts([]) is None


def test_learning_curve_starts_at_zero_errors() -> None:
    points = (Point(25, 0.2, 0.05), Point(50, 0.15, 0.04), Point(100, 0.1, 0.03))

    figure = plot_learning_curve(Advice(points, "", "", ""))

    assert figure.axes[0].get_ylim()[0] == 0
    assert [*figure.axes[0].get_xticks()] == [25, 50, 100]


def overlapping(figure: Any, texts: list[Any]) -> list[tuple[str, str]]:
    """Return the pairs of texts that cover each other."""
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [
        (name, other)
        for index, (name, box) in enumerate(boxes)
        for other, another in boxes[index + 1 :]
        if box.overlaps(another)
    ]
