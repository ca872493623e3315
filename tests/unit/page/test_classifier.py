from pathlib import Path

import pytest
from PIL import Image

from icon_classifier.errors import ImageTooLargeError, ModelError
from icon_classifier.page.classifier import Classifier
from icon_classifier.system import counter
from tests.support.models import write_model


def test_classifier_has_the_labels_of_its_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    classifier = Classifier(str(tmp_path))
    assert classifier.title == "Red, green or blue?"
    assert "red, green or blue" in classifier.hint
    assert classifier.predict(Image.new("RGB", (9, 9), "red")).label == "red"


def test_classifier_without_a_model_has_a_hint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = Classifier(str(tmp_path))
    assert "missing" in classifier.hint
    assert str(tmp_path) not in classifier.hint
    assert str(tmp_path) in caplog.text
    with pytest.raises(ModelError):
        classifier.predict(Image.new("RGB", (9, 9)))


def test_lack_of_memory_is_a_picture_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    classifier = Classifier(str(tmp_path))
    large = Image.new("RGB", (9, 9))
    monkeypatch.setattr(large, "resize", lambda *_, **__: bytes(2**62))  # as under a limit
    with pytest.raises(ImageTooLargeError):
        classifier.predict(large)


def test_listeners_are_called_with_each_answer(tmp_path: Path) -> None:
    write_model(tmp_path)
    classifier, heard = Classifier(str(tmp_path)), []
    classifier.on_answer(lambda image, prediction: heard.append((image.size, prediction.label)))
    assert classifier.answer(Image.new("RGB", (9, 7), "red")).startswith("Prediction: red;")
    assert heard == [((9, 7), "red")]


def test_each_photo_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path)
    passes: list[None] = []
    monkeypatch.setattr(counter, "increment", lambda: passes.append(None))
    Classifier(str(tmp_path)).answer(Image.new("RGB", (9, 9), "red"))
    assert len(passes) == 1


def test_prediction_without_evidence_has_no_heat_map(tmp_path: Path) -> None:
    write_model(tmp_path)
    classifier, photo = Classifier(str(tmp_path)), Image.new("RGB", (9, 9), "red")
    assert classifier.heat_map(photo.size, classifier.predict(photo)) is None
    assert classifier.heat_map(photo.size, classifier.predict(photo, explain=True)) is not None
