import json
from typing import Any

import pytest

from icon_classifier.model.info import ModelInfo
from icon_classifier.page.about import about
from tests.support.models import metadata

FIGURES = {"photos": 329, "errors": 1, "error": 0.00304, "interval": [0.0005, 0.017]}


def shown(**changes: Any) -> str:
    return about(ModelInfo.from_json(json.dumps(metadata(**changes))))


def test_about_says_classes_error_date_and_limits() -> None:
    text = shown(figures=FIGURES, trained="2026-11-21T16:27:43+00:00")
    assert text.startswith('<details class="ic-about"><summary>About this model</summary>')
    assert "It tells 3 classes apart: red, green, blue." in text
    assert "Of 329 photos, each judged by a model trained without it, 0.3 % got a wrong" in text
    assert "(95 % confidence interval 0.1 % to 1.7 %)" in text
    assert "Trained on 2026-11-21." in text
    assert "not for telling who somebody is" in text


@pytest.mark.parametrize(
    "figures", [{}, {"photos": 329}, FIGURES | {"interval": [1]}, FIGURES | {"error": "none"}]
)
def test_what_a_model_does_not_say_is_left_out(figures: dict[str, Any]) -> None:
    text = shown(figures=figures, trained=None)
    assert "photos, each" not in text
    assert "Trained" not in text
    assert "A high probability is no proof." in text


def test_labels_are_escaped() -> None:
    text = shown(labels=["<b>", "{x}", "blue_sky"])
    assert "&lt;b&gt;, {x}, blue sky." in text
