import pytest

from icon_classifier.model.session import Prediction
from icon_classifier.page import texts


def prediction(*, known: bool) -> Prediction:
    ranking = (("black_bear", 0.75), ("teddy", 0.25))
    return Prediction("black_bear", 0.75, ranking, known=known, score=1.0)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["bear"], "bear"),
        (["black", "teddy"], "black or teddy"),
        (["black", "grizzly", "teddy"], "black, grizzly or teddy"),
        (["Old_English_sheepdog", "beagle"], "Old English sheepdog or beagle"),
        (list("abcdefg"), "a, b, c, d, e, f or g"),
        (list("abcdefgh"), "a, b, c, d, e, f or one of 2 more"),
        (list("abcdefghi"), "a, b, c, d, e, f or one of 3 more"),
    ],
)
def test_either(labels: list[str], expected: str) -> None:
    assert texts.either(labels) == expected


def test_question_keeps_names_as_they_are() -> None:
    assert texts.question(["beagle", "Shih-Tzu"]) == "Beagle or Shih-Tzu?"


def test_many_or_long_names_are_counted() -> None:
    many = [f"class_{number}" for number in range(120)]
    assert texts.question(many) == "Which of 120 is it?"
    assert texts.question(["a" * 60, "b" * 60]) == "Which of 2 is it?"
    assert texts.hint(many) == "Choose a photo, then press the button: which of 120 is it?"
    assert texts.line(prediction(known=False), many) == (
        "Not sure: this does not look like any of the 120 that this page knows; "
        "closest: black bear (0.7500)."
    )


def test_line_of_a_known_photo_is_that_of_the_prediction() -> None:
    line = texts.line(prediction(known=True), ["black_bear", "teddy"])
    assert line == "Prediction: black_bear; Probability: 0.7500" == str(prediction(known=True))


@pytest.mark.parametrize("label", ["{label}", "{names}", "{0}", "{"])
def test_line_fills_in_no_label_twice(label: str) -> None:
    ranking = ((label, 0.75), ("b", 0.25))
    unsure = Prediction(label, 0.75, ranking, known=False, score=1.0)
    assert texts.line(unsure, [label, "b"]) == (
        f"Not sure: this does not look like {label} or b; closest: {label} (0.7500)."
    )


def test_line_of_an_unknown_photo() -> None:
    assert texts.line(prediction(known=False), ["black_bear", "teddy"]) == (
        "Not sure: this does not look like black bear or teddy; closest: black bear (0.7500)."
    )


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, "0.0 %"), (0.0001, "< 0.1 %"), (0.5, "50.0 %"), (0.99951, "> 99.9 %"), (1.0, "100.0 %")],
)
def test_percent(probability: float, expected: str) -> None:
    assert texts.percent(probability) == expected


def test_summary() -> None:
    assert texts.summary(3, 3) == "3 photos answered."
    assert texts.summary(2, 3) == "2 of 3 photos answered; 1 could not be read."


@pytest.mark.parametrize(
    "texts",
    [
        *(texts.DROP_TEXTS, texts.ANSWER_TEXTS, texts.FEEDBACK_TEXTS),
        *(texts.SITE_TEXTS, texts.SITE_DROP_TEXTS),
    ],
)
def test_texts_are_plain(texts: dict[str, str]) -> None:
    for text in texts.values():
        assert text == text.strip()
        assert "<" not in text
