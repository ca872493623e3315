import math
from types import SimpleNamespace

import pytest

from icon_classifier.errors import TrainingError
from icon_classifier.training.lesson.diagnosis import diagnose, diagnose_curves

# Recorded: resnet18 without pretrained weights on bears at 96 px, fit_one_cycle, one seed. Training
# and validation loss of each epoch. "too_many" had 60 photos.
CURVES = {
    "too_high": (
        [443.0677, 2575.5054, 2894.9316, 2505.0061],
        [50365956096.0, 376817824.0, 9951.2783, 1300.9249],
    ),
    "too_low": (
        [2.0972, 1.9238, 1.9374, 1.9291],
        [1.4208, 1.3927, 1.2941, 1.4465],
    ),
    "too_few": (
        [1.2016, 1.1513],
        [11.9593, 0.6698],
    ),
    "good": (
        [1.4285, 1.2657, 1.1923, 1.1279, 0.9517, 0.8908, 0.8215, 0.7337, 0.6736, 0.6377],
        [1.6253, 2.2097, 2.9113, 0.5934, 0.6168, 0.4903, 0.4263, 0.3323, 0.3175, 0.3086],
    ),
    "too_many": (
        [
            2.119,
            1.9219,
            1.4645,
            1.3702,
            1.1962,
            1.1326,
            1.0474,
            1.0057,
            0.9219,
            0.8514,
            0.8367,
            0.8214,
            0.7944,
            0.7353,
            0.7099,
            0.6977,
            0.6624,
            0.6452,
            0.6492,
            0.6165,
            0.5881,
            0.5627,
            0.5282,
            0.5074,
            0.4914,
        ],
        [
            1.0944,
            1.0681,
            1.2135,
            1.5098,
            1.5002,
            1.4283,
            1.4947,
            2.986,
            1.6953,
            1.25,
            1.6798,
            1.2245,
            0.7263,
            2.735,
            3.0462,
            1.719,
            0.7082,
            0.8969,
            0.9991,
            1.074,
            1.0644,
            1.0528,
            0.922,
            0.8286,
            0.8095,
        ],
    ),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("too_high", "rate too high"),
        ("too_low", "rate too low"),
        ("too_few", "too few epochs"),
        ("good", "nothing wrong"),
        ("too_many", "too many epochs"),
    ],
)
def test_recorded_curves_are_diagnosed(name: str, kind: str) -> None:
    train, valid = CURVES[name]
    assert diagnose_curves(train, valid, classes=3) == kind


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_infinite_loss_is_a_rate_too_high(loss: float) -> None:
    assert diagnose_curves([1.0, loss], [1.0, 0.9], classes=3) == "rate too high"


@pytest.mark.parametrize(
    ("train", "valid", "classes"), [([], [], 3), ([1.0], [1.0, 2.0], 3), ([1.0], [1.0], 1)]
)
def test_invalid_curves_are_refused(train: list[float], valid: list[float], classes: int) -> None:
    with pytest.raises(TrainingError):
        diagnose_curves(train, valid, classes)


def test_losses_are_read_from_a_recorder() -> None:
    recorder = SimpleNamespace(
        metric_names=["epoch", "train_loss", "valid_loss", "error_rate", "time"],
        values=[[1.0, 0.8, 0.1], [0.7, 0.5, 0.1]],
        learn=SimpleNamespace(dls=SimpleNamespace(vocab=["a", "b", "c"])),
    )
    assert diagnose(recorder) == "too few epochs"
