"""Two models are judged on the same photos."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from icon_classifier.compact.comparison import compare, compare_answers
from icon_classifier.compact.photos import readable_photos
from icon_classifier.errors import ConversionError
from icon_classifier.model.session import Prediction
from tests.support.models import LABELS, model_bytes


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Return a photo of each colour; the green one is in the folder of another class."""
    for folder, colour in (("red", "red"), ("blue", "lime"), ("sea", "blue")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (20, 20), colour).save(tmp_path / folder / "photo.png")
    return readable_photos(tmp_path)


def test_model_compared_with_itself_changes_nothing(photos: list[Path]) -> None:
    model = model_bytes(vocab=["red", "green", "sea"])
    figures = compare(model, model, photos)
    assert (figures.photos, figures.same_label, figures.same_unsure) == (3, 3, 3)
    assert figures.largest_difference == 0
    assert figures.errors == (1, 1)
    assert figures.megabytes == (len(model) / 1e6, len(model) / 1e6)
    assert min(figures.milliseconds) > 0


def test_differences_and_not_sure_are_counted(photos: list[Path]) -> None:
    unsure = {"score": "energy", "threshold": 100.0}
    figures = compare(model_bytes(), model_bytes(temperature=4.0, unsure=unsure), photos)
    assert (figures.same_label, figures.same_unsure) == (3, 0)
    assert 0.1 < figures.largest_difference < 1


def test_any_two_answers_to_a_photo_can_be_compared() -> None:
    def answer(probability: float, *, known: bool) -> Prediction:
        ranking = (("a", probability), ("b", 1 - probability))
        label, largest = max(ranking, key=lambda pair: pair[1])
        return Prediction(label, largest, ranking, known=known, score=0)

    figures = compare_answers(
        lambda photo: answer(photo, known=True),
        lambda photo: answer(photo - 0.25, known=photo > 0.8),
        [(0.7, "a"), (0.9, "a"), (0.3, None)],
    )
    assert (figures.photos, figures.same_label, figures.same_unsure) == (3, 2, 1)
    assert figures.largest_difference == pytest.approx(0.25)
    assert figures.errors == (0, 1)
    assert figures.megabytes is None
    with pytest.raises(ConversionError, match="got none"):
        compare_answers(lambda photo: photo, lambda photo: photo, [])


def test_more_than_one_changed_label_in_two_hundred_is_refused(photos: list[Path]) -> None:
    other = model_bytes(labels=LABELS[::-1])
    with pytest.raises(ConversionError, match=r"labels of 2 of 3 photos, expected at most 0\.5%"):
        compare(model_bytes(), other, photos)
    with pytest.raises(ConversionError, match="got none"):
        compare(model_bytes(), other, [])


def test_photos_are_found_once_and_in_the_same_order(tmp_path: Path) -> None:
    for name, colour in (("b.png", "red"), ("a.png", "red"), (".c.png", "blue"), ("d.png", "lime")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "notes.txt").write_text("no photo")
    found = readable_photos(tmp_path)
    assert sorted(path.name for path in found) == ["a.png", "d.png"]
    assert found == readable_photos(tmp_path)
