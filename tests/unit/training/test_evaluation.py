import json

import numpy as np
import pytest

from icon_classifier.errors import TrainingError
from icon_classifier.training.evaluation import auroc, judge, threshold_for, wilson_interval

LABELS = ["black", "grizzly", "teddy"]


def test_judge() -> None:
    logits = np.array([[4, 0, 0], [0, 4, 0], [0, 4, 0], [0, 0, 4]], float)
    figures = judge(logits, [0, 1, 0, 2], LABELS, scores=[1, 2, 3, 4], threshold=2)
    assert (figures.photos, figures.errors, figures.error) == (4, 1, 0.25)
    assert figures.confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    black, grizzly, teddy = figures.classes
    assert (black.precision, black.recall, black.photos) == (1.0, 0.5, 2)
    assert (grizzly.precision, grizzly.recall) == (0.5, 1.0)
    assert teddy.precision == teddy.recall == 1.0
    assert figures.accepted == 0.75
    assert json.loads(json.dumps(figures.to_json())) == figures.to_json()


def test_a_class_that_is_never_called() -> None:
    figures = judge([[1.0, 0.0], [1.0, 0.0]], [0, 1], ["a", "b"])
    assert figures.classes[1].precision is None
    assert figures.accepted is None


@pytest.mark.parametrize(
    ("errors", "count", "low", "high"),
    # Of R: prop.test(x, n, correct = FALSE)
    [(0, 65, 0.0, 0.0558), (1, 65, 0.0027, 0.0821), (5, 10, 0.2366, 0.7634)],
)
def test_wilson(errors: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(errors, count) == pytest.approx((low, high), abs=2e-4)


def test_threshold_accepts_what_was_asked() -> None:
    scores = np.random.default_rng(0).normal(size=1000)
    assert (scores >= threshold_for(scores, 0.97)).mean() == pytest.approx(0.97, abs=0.002)


def test_auroc() -> None:
    assert auroc([2, 3], [0, 1]) == 1.0
    assert auroc([0, 1], [2, 3]) == 0.0
    assert auroc([1, 1], [1, 1]) == 0.5
    assert auroc([1, 3], [2]) == 0.5


@pytest.mark.parametrize(
    ("logits", "targets"),
    [([], []), ([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [0, 1]), ([[np.nan, 1]], [0]), ([1.0], [0])],
)
def test_what_makes_no_sense_is_refused(logits: list[object], targets: list[int]) -> None:
    with pytest.raises(TrainingError):
        judge(logits, targets, ["a", "b"])


def test_more_that_makes_no_sense() -> None:
    with pytest.raises(TrainingError):
        judge([[1.0, 2.0]], [0], LABELS)
    with pytest.raises(TrainingError):
        wilson_interval(3, 2)
    with pytest.raises(TrainingError):
        threshold_for([])
    with pytest.raises(TrainingError):
        auroc([], [1])
