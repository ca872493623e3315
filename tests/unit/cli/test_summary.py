from typing import Any

import pytest

from icon_classifier.cli.summary import history, notes, summary
from tests.support.models import metadata


def test_summary_says_what_the_model_is() -> None:
    learner = {
        "network": "resnet18, 11.2 million weights",
        "loss": "FocalLossFlat",
        "fastai": "2.7",
        "left_out": ["metric error_rate", "callback MixUp"],
    }
    rows = list(summary(metadata(learner=learner, evidence="the network has no feature map")))
    assert ("classes", "red, green, blue") in rows
    assert ("network", "resnet18, 11.2 million weights") in rows
    assert ("photo", "resize to 8 x 8 (squish, bilinear)") in rows
    assert ("normalisation", "mean 0.5 0.5 0.5; std 0.5 0.5 0.5") in rows
    assert ("heat map", "no: the network has no feature map") in rows
    assert rows[-2:] == [("left out", "metric error_rate"), ("left out", "callback MixUp")]


def test_history_shows_single_figures_and_no_tables() -> None:
    figures = {"error": 0.0123456, "confusion": [[1, 0], [0, 1]], "temperature": 0.4}
    rows = dict(history(metadata(figures=figures)))
    assert rows["error"] == "0.01235"
    assert not {"confusion", "temperature"} & rows.keys()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["False", "True"], "write False = … and True = … into export.names.txt"),
        (["0", "1", "2", "3"], "write 0 = … and 1 = … and 2 = … into export.names.txt"),
        (["7", "seven"], None),
        (["cat", "dog"], None),
    ],
)
def test_owner_is_told_of_names_where_labels_are_no_words(
    labels: list[str], told: str | None
) -> None:
    said = list(notes(metadata(labels=labels)))
    assert [told in note for note in said] == [True] if told else said == []


def test_owner_is_told_of_the_classes_that_names_leave_out() -> None:
    (note,) = notes(metadata(vocab=["False", "True"], labels=["dog", "True"]))
    assert "the classes as True." in note
    assert "write True = … into export.names.txt" in note
    assert list(notes(metadata(vocab=["False", "True"], labels=["dog", "cat"]))) == []


@pytest.mark.parametrize(("trained", "told"), [("2026-01-02", False), ("2025", True), (None, True)])
def test_owner_is_told_of_the_card_of_another_model(trained: str | None, told: bool) -> None:
    said = list(notes(metadata(trained=trained), "# Model card\n\nTrained 2026-01-02.\n"))
    assert ["export.md" in note for note in said] == [True] * told
    assert list(notes(metadata(trained=trained), "# My own card\n")) == []


def test_assumptions_are_notes() -> None:
    learner: dict[str, Any] = {"assumed": ["The loss is the notebook's own."]}
    assert list(notes(metadata(learner=learner))) == ["The loss is the notebook's own."]
