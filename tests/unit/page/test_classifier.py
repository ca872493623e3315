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


class TestForesee:
    classifier: Classifier
    passes: list[None]

    @pytest.fixture(autouse=True)
    def _classifier(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_model(tmp_path)
        self.classifier = Classifier(str(tmp_path))
        self.passes = []
        monkeypatch.setattr(counter, "increment", lambda: self.passes.append(None))

    def test_prefetched_answer_is_the_same(self) -> None:
        red = Image.new("RGB", (9, 9), "red")
        expected = self.classifier.answer(red)
        small = self.classifier.prefetch(red)
        seen = len(self.passes)
        assert self.classifier.predict(small).label == "red"
        assert self.classifier.answer(small) == expected
        assert len(self.passes) == seen

    def test_prefetched_answer_is_used_once(self) -> None:
        small = self.classifier.prefetch(Image.new("RGB", (9, 9), "red"))
        self.classifier.answer(small)
        self.classifier.answer(small)
        assert len(self.passes) == 2

    def test_another_photo_is_classified_anew(self) -> None:
        self.classifier.prefetch(Image.new("RGB", (9, 9), "red"))
        assert "blue" in self.classifier.answer(Image.new("RGB", (9, 9), "blue"))

    def test_discarded_answer_is_computed_anew(self) -> None:
        small = self.classifier.prefetch(Image.new("RGB", (9, 9), "red"))
        self.classifier.discard()
        self.classifier.answer(small)
        assert len(self.passes) == 2

    def test_prefetch_returns_a_small_copy(self) -> None:
        assert self.classifier.prefetch(Image.new("RGB", (4000, 3000), "red")).size == (640, 480)

    def test_listeners_are_called_at_the_answer(self) -> None:
        heard: list[str] = []
        self.classifier.on_answer(lambda _, prediction: heard.append(prediction.label))
        red = Image.new("RGB", (9, 9), "red")
        small = self.classifier.prefetch(red)
        assert heard == []
        self.classifier.answer(small)
        assert heard == ["red"]


def test_without_a_model_nothing_is_prefetched(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        Classifier(str(tmp_path)).prefetch(Image.new("RGB", (9, 9)))
