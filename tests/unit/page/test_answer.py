import logging
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icon_classifier.images import read_image
from icon_classifier.model.heatmap import HeatMap
from icon_classifier.model.session import Prediction
from icon_classifier.page.answer import Answer
from icon_classifier.page.texts import MAX_PHOTOS


def prediction(classes: int = 3) -> Prediction:
    ranking = tuple((f"class_{index}", 2.0 ** -(index + 1)) for index in range(classes))
    return Prediction(*ranking[0], ranking, known=True, score=1.0)


def answer_widget(heat: HeatMap | None = None) -> Answer:
    return Answer(lambda *_: heat, say=lambda _: None)


@pytest.fixture
def photo() -> Image.Image:
    return Image.new("RGB", (1600, 1200), "red")


def test_answer_has_all_classes(photo: Image.Image) -> None:
    answer = answer_widget()
    answer.show((photo, prediction(14)), "line")
    assert len(answer.answer["bars"]) == 14
    assert answer.answer["bars"][0] == ("class 0", 0.5, "0.5000")
    assert answer.line == "line"


def test_preview_is_small(photo: Image.Image) -> None:
    answer = answer_widget()
    answer.show((photo, prediction()), "line")
    assert read_image(answer.preview).size == (640, 480)
    answer.clear()
    assert (answer.answer, answer.preview, answer.line) == ({}, b"", "")


def test_heat_map_belongs_to_the_photo(photo: Image.Image) -> None:
    asked: list[str] = []

    def explain(size: tuple[int, int], answer: Prediction) -> HeatMap | None:
        asked.append(f"{answer.label} {size}")
        cells = np.array([[0, 255, 128]], np.uint8)
        return HeatMap(cells, (0.0, -0.1, 1.0, 1.2)) if len(asked) == 1 else None

    answer = Answer(explain, say=lambda _: None)
    answer.show((photo, prediction()), "line")
    assert asked == [f"class_0 {photo.size}"]
    box = (0.0, -0.1, 1.0, 1.2)
    assert answer.heat == {"cells": b"\x00\xff\x80", "width": 3, "height": 1, "box": box}
    answer.show((photo, prediction()), "line")
    assert answer.heat == {}


def test_table_is_updated_in_steps_and_at_the_end(photo: Image.Image) -> None:
    answer = answer_widget()
    told: list[int] = []
    answer.observe(lambda change: told.append(len(change["new"])), "rows")
    lines = [answer.add_row(f"{i}.jpg", "line", (photo, prediction()), 20) for i in range(20)]
    assert told[0] == 1
    assert told[-1] == 20
    assert len(told) < 20
    assert set(lines[:-1]) == {""}
    assert lines[-1] == answer.line == "20 photos answered."
    answer.show((photo, prediction()), "line")
    assert answer.rows == []


def test_table_has_no_more_rows_than_a_page_sends_photos() -> None:
    answer = answer_widget()
    for index in range(MAX_PHOTOS + 3):
        answer.add_row(f"{index}.jpg", "no picture", None, MAX_PHOTOS)
    assert len(answer.rows) == MAX_PHOTOS


def test_csv_is_quoted_and_has_no_formulas() -> None:
    answer = answer_widget()
    for name in ('a,"b".jpg', "=1+1.jpg", "@x", "\uff1d1.jpg", "plain.jpg"):
        answer.add_row(name, "It is broken; try again.", None, 5)
    names = [line.rsplit(",,,,", 1)[0] for line in answer.csv().splitlines()[1:]]
    assert names == ['"a,""b"".jpg"', "'=1+1.jpg", "'@x", "'\uff1d1.jpg", "plain.jpg"]


def test_csv_is_sent_to_the_page() -> None:
    answer = answer_widget()
    sent: list[dict[str, str]] = []
    answer.send = lambda content, buffers=None: sent.append(content)
    answer.add_row("a.jpg", "It is broken.", None, 1)
    answer._handle_custom_msg({"kind": "csv"}, [])
    assert sent == [{"kind": "csv", "text": answer.csv()}]


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], {"kind": "run", "code": "1"}, {"kind": "open", "index": 0}, {"kind": "open"}),
        *({"kind": "keep", "photo": None, "index": 0}, {"kind": "undo", "photo": None}),
    ],
)
def test_malformed_messages_are_refused(content: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answer_widget()._handle_custom_msg(content, [])
    assert "refused" in caplog.text
