import numpy as np
import pytest

from icon_classifier.training.calibration import (
    calibration_error,
    fit_temperature,
    reliability,
    softmax,
)


def drawn(temperature: float, count: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times what their targets were drawn by."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (count, 3))
    probabilities = softmax(logits)
    targets = np.array([random.choice(3, p=row) for row in probabilities])
    return logits * temperature, targets


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(temperature: float) -> None:
    logits, targets = drawn(temperature)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(temperature, rel=0.06)
    assert calibration_error(softmax(logits / found), targets) < 0.015


def test_without_errors_the_temperature_stays_sane() -> None:
    logits = np.eye(3)[[0, 1, 2] * 20] * 12.0
    targets = np.array([0, 1, 2] * 20)
    probability = softmax(logits / fit_temperature(logits, targets)).max()
    assert 0.97 < probability < 0.995  # about as if one of 62 were wrong


def test_calibration_error_by_hand() -> None:
    probabilities = [[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]]
    targets = [0, 1, 0, 1]
    # Two photos of 0.95 of which half are right, two of 0.65 that are both right.
    assert calibration_error(probabilities, targets) == pytest.approx((0.45 + 0.35) / 2)
    low, high = reliability(probabilities, targets)
    assert (low.photos, low.right, high.photos, high.right) == (2, 1.0, 2, 0.5)
    assert low.low <= low.probability <= low.high
