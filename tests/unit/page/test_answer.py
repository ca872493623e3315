import logging

import pytest
from PIL import Image

from icon_classifier.errors import ModelError
from icon_classifier.images import read_image
from icon_classifier.model.heatmap import HeatMap
from icon_classifier.model.session import Prediction
from icon_classifier.page.answer import BARS, Answer
from icon_classifier.page.texts import MAX_PHOTOS


def prediction(classes: int = 3) -> Prediction:
    ranking = tuple((f"class_{index}", 2.0 ** -(index + 1)) for index in range(classes))
    return Prediction(*ranking[0], ranking, known=True, score=1.0)


@pytest.fixture
def photo() -> Image.Image:
    return Image.new("RGB", (1600, 1200), "red")


def test_answer_has_at_most_ten_bars(photo: Image.Image) -> None:
    answer = Answer()
    answer.show(photo, prediction(14))
    assert len(answer.answer["bars"]) == BARS == 10
    assert answer.answer["rest"] == 4
    assert answer.answer["bars"][0] == ["class 0", 0.5, "50.0 %"]


def test_preview_is_small(photo: Image.Image) -> None:
    answer = Answer()
    answer.show(photo, prediction())
    assert read_image(answer.preview).size == (640, 480)
    answer.clear()
    assert (answer.answer, answer.preview, answer.heat) == ({}, b"", b"")


def test_new_answer_has_no_heat_map(photo: Image.Image) -> None:
    asked: list[str] = []

    def explain(size: tuple[int, int], answer: Prediction) -> HeatMap:
        asked.append(f"{answer.label} {size}")
        return HeatMap(b"png", (0.0, -0.1, 1.0, 1.2))

    answer = Answer(explain)
    answer._handle_custom_msg({"kind": "heat"}, [])
    assert asked == [], "there is no photo to explain"
    answer.show(photo, prediction())
    answer._handle_custom_msg({"kind": "heat"}, [])
    assert asked == [f"class_0 {photo.size}"]
    assert (answer.heat, answer.heat_box) == (b"png", [0.0, -0.1, 1.0, 1.2])
    answer.show(photo, prediction())
    assert (answer.heat, answer.heat_box) == (b"", [])


def test_failed_heat_map_is_not_offered_again(
    photo: Image.Image, caplog: pytest.LogCaptureFixture
) -> None:
    def explain(_: tuple[int, int], __: Prediction) -> HeatMap:
        raise ModelError("no evidence")

    answer = Answer(explain)
    answer.show(photo, prediction())
    with caplog.at_level(logging.ERROR):
        answer._handle_custom_msg({"kind": "heat"}, [])
    assert "no evidence" in caplog.text
    assert not answer.can_explain


def test_table_is_updated_in_steps_and_at_the_end(photo: Image.Image) -> None:
    answer = Answer()
    told: list[int] = []
    answer.observe(lambda change: told.append(len(change["new"])), "rows")
    answer.start_table()
    for index in range(20):
        answer.add_row(f"{index}.jpg", (photo, prediction()), last=index == 19)
    assert told[-1] == 20
    assert answer.counts == (20, 0)
    answer.show(photo, prediction())
    assert answer.rows == []


def test_table_has_no_more_rows_than_a_page_sends_photos() -> None:
    answer = Answer()
    answer.start_table()
    for index in range(MAX_PHOTOS + 3):
        answer.add_row(f"{index}.jpg", "no picture", last=True)
    assert len(answer.rows) == MAX_PHOTOS
    assert answer.counts == (0, MAX_PHOTOS)


def test_csv_is_quoted_and_has_no_formulas() -> None:
    answer = Answer()
    answer.start_table()
    for name in ('a,"b".jpg', "=1+1.jpg", "@x", "\uff1d1.jpg", "plain.jpg"):
        answer.add_row(name, "It is broken; try again.")
    names = [line.rsplit(",,,,", 1)[0] for line in answer.csv().splitlines()[1:]]
    assert names == ['"a,""b"".jpg"', "'=1+1.jpg", "'@x", "'\uff1d1.jpg", "plain.jpg"]


def test_csv_is_sent_to_the_page() -> None:
    answer = Answer()
    sent: list[dict[str, str]] = []
    answer.send = lambda content, buffers=None: sent.append(content)
    answer.start_table()
    answer.add_row("a.jpg", "It is broken.", last=True)
    answer._handle_custom_msg({"kind": "csv"}, [])
    assert sent == [{"kind": "csv", "text": answer.csv()}]


def test_unknown_message_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Answer()._handle_custom_msg({"kind": "run", "code": "1"}, [])
    assert "refused" in caplog.text
