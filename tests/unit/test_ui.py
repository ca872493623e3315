import base64
import io
import logging
from pathlib import Path

import ipywidgets as widgets
import pytest
from PIL import Image

from icon_classifier import ui
from icon_classifier.errors import IconClassifierError, ModelError
from icon_classifier.images import read_image
from tests.models import write_model
from tests.pictures import encode, gradient


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["bear"], "bear"),
        (["black", "teddy"], "black or teddy"),
        (["black", "grizzly", "teddy"], "black, grizzly or teddy"),
        (["Old_English_sheepdog", "beagle"], "Old English sheepdog or beagle"),
        (list("abcdefghi"), "a, b, c, d, e, f or one of 3 more"),
    ],
)
def test_either(labels: list[str], words: str) -> None:
    assert ui.either(labels) == words


def test_classifier_names_the_classes_of_its_model(tmp_path: Path) -> None:
    write_model(tmp_path)
    classifier = ui.Classifier(str(tmp_path))
    assert classifier.title == "Red, green or blue?"
    assert "red, green or blue" in classifier.hint
    assert classifier.predict(Image.new("RGB", (9, 9), "red")).label == "red"


def test_without_a_model_the_page_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classifier = ui.Classifier(str(tmp_path))
    assert "missing" in classifier.hint
    assert str(tmp_path) not in classifier.hint
    assert str(tmp_path) in caplog.text
    with pytest.raises(ModelError):
        classifier.predict(Image.new("RGB", (9, 9)))


def upload_of(data: bytes) -> widgets.FileUpload:
    """A FileUpload with a file, set as the browser sets it: through its state, as a memoryview."""
    upload = widgets.FileUpload()
    file = {"name": "photo", "type": "image/png", "size": len(data), "last_modified": 1}
    upload.set_state({"value": [{**file, "content": memoryview(data)}]})
    return upload


def test_latest_photo() -> None:
    upload = upload_of(encode(gradient()))
    assert isinstance(upload.value[-1].content, memoryview)
    assert ui.latest_photo(upload).size == gradient().size


def test_no_photo_yet() -> None:
    with pytest.raises(IconClassifierError) as caught:
        ui.latest_photo(widgets.FileUpload())
    assert caught.value.words == ui.CHOOSE_FIRST


def test_show_photo_replaces() -> None:
    output = widgets.Output()
    for _ in range(2):
        ui.show_photo(output, gradient("RGB", (400, 200)))
    assert len(output.outputs) == 1
    data = output.outputs[0]["data"]["image/jpeg"]
    shown = read_image(base64.b64decode(data))
    assert shown.size == (128, 64)


class TestResponding:
    button: widgets.Button
    label: widgets.Label

    @pytest.fixture(autouse=True)
    def _widgets(self) -> None:
        self.button = widgets.Button(description="Classify Icon")
        self.label = widgets.Label("before")

    def test_answer(self) -> None:
        seen = {}

        @ui.responding(self.button, self.label)
        def answer() -> str:
            seen.update(
                disabled=self.button.disabled,
                description=self.button.description,
                label=self.label.value,
            )
            return "grizzly"

        self.button.click()
        assert seen == {"disabled": True, "description": ui.WORKING, "label": ""}
        assert self.label.value == "grizzly"
        assert (self.button.description, self.button.disabled) == ("Classify Icon", False)

    def test_an_error_of_ours_is_shown_in_its_words(self) -> None:
        @ui.responding(self.button, self.label)
        def answer() -> str:
            raise IconClassifierError("path /secret", words="Please try another photo.")

        self.button.click()
        assert self.label.value == "Please try another photo."
        assert not self.button.disabled

    def test_any_other_error_is_logged_and_never_a_dead_button(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        @ui.responding(self.button, self.label)
        def answer() -> str:
            raise ZeroDivisionError("secret")

        with caplog.at_level(logging.ERROR):
            self.button.click()
        assert self.label.value == ui.UNEXPECTED
        assert "ZeroDivisionError" in caplog.text
        assert not self.button.disabled


def test_thumbnails_are_jpeg() -> None:
    output = widgets.Output()
    ui.show_photo(output, gradient(), side=32)
    data = base64.b64decode(output.outputs[0]["data"]["image/jpeg"])
    assert Image.open(io.BytesIO(data)).format == "JPEG"
