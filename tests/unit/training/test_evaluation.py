import json

import numpy as np
import pytest

from icon_classifier.errors import TrainingError
from icon_classifier.model.session import softmax
from icon_classifier.training.evaluation import (
    acceptance_threshold,
    calibration_error,
    evaluate,
    fit_temperature,
    mean_recall,
    reliability,
    wilson_interval,
)

LABELS = ["black", "grizzly", "teddy"]


def test_figures_are_counted() -> None:
    logits = np.array([[4, 0, 0], [0, 4, 0], [0, 4, 0], [0, 0, 4]], float)
    figures = evaluate(logits, [0, 1, 0, 2], LABELS, scores=[1, 2, 3, 4], threshold=2)
    assert (figures.photos, figures.errors, figures.error) == (4, 1, 0.25)
    assert figures.confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    black, grizzly, teddy = figures.classes
    assert (black.precision, black.recall, black.photos) == (1.0, 0.5, 2)
    assert (grizzly.precision, grizzly.recall) == (0.5, 1.0)
    assert teddy.precision == teddy.recall == 1.0
    assert figures.accepted == 0.75
    assert json.loads(json.dumps(figures.to_json())) == figures.to_json()


def test_class_that_is_never_predicted_has_no_precision() -> None:
    figures = evaluate([[1.0, 0.0], [1.0, 0.0]], [0, 1], ["a", "b"])
    assert figures.classes[1].precision is None
    assert figures.accepted is None


@pytest.mark.parametrize(
    ("errors", "count", "low", "high"),
    # Of R: prop.test(x, n, correct = FALSE)
    [(0, 65, 0.0, 0.0558), (1, 65, 0.0027, 0.0821), (5, 10, 0.2366, 0.7634)],
)
def test_wilson_interval_matches_r(errors: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(errors, count) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize(
    ("logits", "targets"),
    [([], []), ([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [0, 1]), ([[np.nan, 1]], [0]), ([1.0], [0])],
)
def test_arrays_that_do_not_match_are_refused(logits: list[object], targets: list[int]) -> None:
    with pytest.raises(TrainingError):
        evaluate(logits, targets, ["a", "b"])


def test_other_invalid_input_is_refused() -> None:
    with pytest.raises(TrainingError):
        evaluate([[1.0, 2.0]], [0], LABELS)
    with pytest.raises(TrainingError):
        wilson_interval(3, 2)


def test_mean_recall_counts_a_rare_class_as_much_as_a_common_one() -> None:
    targets = [0] * 300 + [1] * 10
    assert mean_recall([0] * 310, targets) == 0.5
    assert mean_recall([0] * 300 + [0] * 9 + [1], targets) == pytest.approx(0.55)


@pytest.mark.parametrize(("count", "rank"), [(4, 0), (50, 0), (51, 1), (329, 6)])
def test_threshold_is_the_expected_order_statistic(count: int, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(count).astype(float)
    assert acceptance_threshold(scores) == rank
    assert (scores >= rank).mean() >= 0.98


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")]])
def test_threshold_of_no_or_infinite_scores_is_refused(scores: list[float]) -> None:
    with pytest.raises(TrainingError, match="finite"):
        acceptance_threshold(scores)


def sample(temperature: float, count: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times what their targets were drawn by."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (count, 3))
    probabilities = softmax(logits)
    targets = np.array([random.choice(3, p=row) for row in probabilities])
    return logits * temperature, targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature: float) -> None:
    logits, targets = sample(temperature)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(temperature, rel=0.06)
    assert calibration_error(softmax(logits / found), targets) < 0.015


def test_temperature_without_errors_is_not_zero() -> None:
    logits = np.eye(3)[[0, 1, 2] * 20] * 12.0
    targets = np.array([0, 1, 2] * 20)
    probability = softmax(logits / fit_temperature(logits, targets)).max()
    assert 0.97 < probability < 0.995  # about as if one of 62 were wrong


def test_calibration_error_matches_a_count_by_hand() -> None:
    probabilities = [[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]]
    targets = [0, 1, 0, 1]
    # Two photos of 0.95 of which half are right, two of 0.65 that are both right.
    assert calibration_error(probabilities, targets) == pytest.approx((0.45 + 0.35) / 2)
    low, high = reliability(probabilities, targets)
    assert (low.photos, low.accuracy, high.photos, high.accuracy) == (2, 1.0, 2, 0.5)
    assert low.low <= low.probability <= low.high
