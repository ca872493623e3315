from pathlib import Path

import numpy as np
import pytest

from icon_classifier.training.evaluation import Figures, evaluate
from icon_classifier.training.review.outcome import compare_before, headline, worst_classes
from tests.support.models import LABELS, write_model


def figures(wrong: int) -> Figures:
    """Figures of 100 photos, 80 of which are blue; so many of the others are taken for blue."""
    targets = np.array([2] * 80 + [0] * 10 + [1] * 10)
    answers = targets.copy()
    answers[80 : 80 + wrong] = 2
    return evaluate(np.eye(3)[answers], targets, LABELS)


def test_headline_gives_the_mean_recall_of_classes_of_any_size() -> None:
    assert headline(figures(10)) == (
        "10.0% wrong, 10 of 100 (95 % interval 5.5% to 17.4%); mean recall of the classes 66.7%"
    )


def test_classes_of_the_lowest_recall_come_first() -> None:
    assert worst_classes(figures(5)) == (
        "lowest recall: red: 5 of 10, green: 10 of 10, blue: 80 of 80"
    )


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (0.2, "Better than the previous model ({model}): 10.0% wrong, not 20.0%."),
        (0.11, "Better than the previous model ({model}): 10.0% wrong, not 11.0%, "
               "which may be chance."),
        (0.01, "Worse than the previous model ({model}): 10.0% wrong, not 1.0%. "
               "make release-model refuses one worse than the page's without ARGS=--worse."),
        (0.1, "As good as the previous model ({model}): 10.0% wrong."),
    ],
)  # fmt: skip
def test_model_is_compared_with_the_previous_one(
    tmp_path: Path, before: float, expected: str
) -> None:
    model = write_model(tmp_path, figures={"error": before})

    assert compare_before(figures(10), tmp_path / "none", tmp_path) == expected.format(model=model)


@pytest.mark.parametrize("changes", [{"labels": ["a", "b", "c"]}, {"figures": None}])
def test_model_of_other_classes_or_without_figures_is_not_compared(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    write_model(tmp_path, **changes)

    assert compare_before(figures(1), tmp_path) == (
        "There is no model of these classes to compare with."
    )
