import base64
import io
import logging
from pathlib import Path

import ipywidgets as widgets
import pytest
from PIL import Image

from icon_classifier.errors import IconClassifierError, ImageError
from icon_classifier.images import read_image
from icon_classifier.page import texts, ui
from icon_classifier.system import counter
from tests.support.models import write_model
from tests.support.pictures import encode, gradient


def upload_of(data: bytes) -> widgets.FileUpload:
    """A FileUpload with a file, set as the browser sets it: through its state, as a memoryview."""
    upload = widgets.FileUpload()
    file = {"name": "photo", "type": "image/png", "size": len(data), "last_modified": 1}
    upload.set_state({"value": [{**file, "content": memoryview(data)}]})
    return upload


def test_take_photo_drops_the_file() -> None:
    upload = upload_of(encode(gradient()))
    assert isinstance(upload.value[-1].content, memoryview)
    assert ui.take_photo(upload).size == gradient().size
    assert upload.value == ()


def test_take_photo_drops_a_file_that_cannot_be_read() -> None:
    upload = upload_of(b"no picture")
    with pytest.raises(ImageError):
        ui.take_photo(upload)
    assert upload.value == ()


def test_no_photo_yet() -> None:
    with pytest.raises(IconClassifierError) as caught:
        ui.take_photo(widgets.FileUpload())
    assert caught.value.words == texts.CHOOSE_FIRST


def test_show_photo_replaces_the_last_one() -> None:
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

    def test_responding_disables_the_button_while_it_works(self) -> None:
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
        assert seen == {"disabled": True, "description": texts.WORKING, "label": ""}
        assert self.label.value == "grizzly"
        assert (self.button.description, self.button.disabled) == ("Classify Icon", False)

    def test_responding_shows_the_words_of_our_error(self) -> None:
        @ui.responding(self.button, self.label)
        def answer() -> str:
            raise IconClassifierError("path /secret", words="Please try another photo.")

        self.button.click()
        assert self.label.value == "Please try another photo."
        assert not self.button.disabled

    def test_responding_logs_any_other_error(self, caplog: pytest.LogCaptureFixture) -> None:
        @ui.responding(self.button, self.label)
        def answer() -> str:
            raise ZeroDivisionError("secret")

        with caplog.at_level(logging.ERROR):
            self.button.click()
        assert self.label.value == texts.UNEXPECTED
        assert "ZeroDivisionError" in caplog.text
        assert not self.button.disabled


def test_thumbnails_are_jpeg() -> None:
    output = widgets.Output()
    ui.show_photo(output, gradient(), side=32)
    data = base64.b64decode(output.outputs[0]["data"]["image/jpeg"])
    assert Image.open(io.BytesIO(data)).format == "JPEG"


def test_heading_escapes_markup() -> None:
    assert ui.heading("<img src=x onerror=alert()>").value == (
        "<h2>&lt;img src=x onerror=alert()&gt;</h2>"
    )


class TestComforts:
    """The drop zone, the plain uploader and the answer, driven as their JavaScript does."""

    @pytest.fixture(autouse=True)
    def _page(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        self.classifier = ui.Classifier(str(tmp_path))
        self.upload, self.label = widgets.FileUpload(), widgets.Label()
        self.output, self.button = widgets.Output(), widgets.Button()
        self.drop, self.answer = ui.comforts(self.classifier, self.upload, self.output, self.label)

        @ui.responding(self.button, self.label)
        def classify() -> str:
            photo = ui.take_photo(self.upload)
            ui.show_photo(self.output, photo)
            return self.classifier.answer(photo)

    def send(self, data: bytes, name: str = "a.png", index: int = 0, count: int = 1) -> None:
        content = {"kind": "photo", "name": name, "index": index, "count": count}
        self.drop._handle_custom_msg(content, [memoryview(data)])

    def choose(self, data: bytes) -> None:
        file = {"name": "a.png", "type": "image/png", "size": len(data), "last_modified": 1}
        self.upload.set_state({"value": [{**file, "content": memoryview(data)}]})

    def test_dropped_photo_is_answered(self) -> None:
        self.send(encode(Image.new("RGB", (60, 40), "red")))
        assert self.label.value.startswith("Prediction: red; Probability: 0.9")
        assert self.answer.answer["headline"] == "red"
        assert self.answer.answer["bars"][0][0] == "red"
        assert read_image(self.answer.preview).size == (60, 40)

    def test_button_fills_the_same_answer(self) -> None:
        self.choose(encode(Image.new("RGB", (60, 40), "blue")))
        self.button.click()
        assert self.answer.answer["headline"] == "blue"
        assert len(self.output.outputs) == 1
        self.send(encode(Image.new("RGB", (60, 40), "red")))
        assert self.output.outputs == (), "the thumbnail was that of another photo"

    def test_error_clears_the_old_answer(self) -> None:
        self.send(encode(Image.new("RGB", (60, 40), "red")))
        self.send(b"no picture")
        assert "not a picture" in self.label.value
        assert self.answer.answer == {}
        assert self.answer.preview == b""
        assert not self.answer.busy

    def test_chosen_photo_is_classified_before_the_click(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes: list[None] = []
        monkeypatch.setattr(counter, "increment", lambda: passes.append(None))
        self.choose(encode(Image.new("RGB", (60, 40), "red")))
        assert len(passes) == 1
        assert self.label.value == "", "the visitor has not asked yet"
        assert len(self.upload.value[-1].content) == 0, "the file is forgotten already"
        self.choose(encode(Image.new("RGB", (60, 40), "blue")))
        assert len(passes) == 2
        self.button.click()
        assert len(passes) == 2
        assert "blue" in self.label.value
        assert self.answer.answer["headline"] == "blue"

    def test_of_chosen_files_nothing_is_kept(self) -> None:
        """A page that reconnects asks for the state of all widgets."""
        file = {"name": "a.png", "type": "image/png", "size": 9, "last_modified": 1}
        for number in (1, 3):
            files = [{**file, "content": memoryview(b"no picture")} for _ in range(number)]
            self.upload.set_state({"value": files})
            assert [len(each.content) for each in self.upload.value] == [0] * number
        self.button.click()
        assert "not a picture" in self.label.value

    def test_chosen_file_that_is_no_picture_is_reported_at_the_click(self) -> None:
        self.choose(encode(Image.new("RGB", (60, 40), "red")))
        self.choose(b"no picture")
        assert self.classifier._prefetched is None, "of the photo before nothing is kept"
        assert self.label.value == ""
        self.button.click()
        assert "not a picture" in self.label.value
        self.button.click()
        assert self.label.value == texts.CHOOSE_FIRST

    def test_not_sure_is_written_out(self) -> None:
        self.send(encode(Image.new("RGB", (60, 40), "black")))
        assert self.label.value.startswith(
            "Not sure: this does not look like red, green or blue; closest: "
        )
        assert self.answer.answer["headline"] == "Not sure"
        assert self.answer.answer["known"] is False

    def test_several_photos_become_a_table(self) -> None:
        photos = {
            "red.png": encode(Image.new("RGB", (60, 40), "red")),
            "bad.png": b"no picture",
            "=blue.png": encode(Image.new("RGB", (60, 40), "blue")),
        }
        for index, (name, data) in enumerate(photos.items()):
            self.send(data, name, index, len(photos))
        assert self.label.value == "2 of 3 photos answered; 1 could not be read."
        assert [row["name"] for row in self.answer.rows] == list(photos)
        assert "not a picture" in self.answer.rows[1]["problem"]
        lines = self.answer.csv().splitlines()
        assert lines[0] == "file,label,probability,known,problem"
        assert lines[1].startswith("red.png,red,0.9")
        assert lines[2].startswith("bad.png,,,,")
        assert lines[3].startswith("'=blue.png,blue,0.9")

    def test_heat_map_is_computed_on_demand(self) -> None:
        picture = Image.new("RGB", (80, 40), "blue")
        picture.paste("red", (0, 0, 50, 40))
        self.send(encode(picture))
        assert self.answer.heat == b""
        self.answer._handle_custom_msg({"kind": "heat"}, [])
        assert self.answer.heat_box == [0.0, 0.0, 1.0, 1.0]
        opacity = Image.open(io.BytesIO(self.answer.heat)).getchannel("A")
        left, right = opacity.getpixel((2, 32)), opacity.getpixel((61, 32))
        assert left > 150
        assert right < 30

    def test_start_over_clears_everything(self) -> None:
        self.choose(encode(gradient()))
        self.send(encode(Image.new("RGB", (60, 40), "red")))
        self.choose(encode(gradient()))
        self.answer._handle_custom_msg({"kind": "clear"}, [])
        assert (self.label.value, self.upload.value, self.output.outputs) == ("", (), ())
        assert (self.answer.answer, self.answer.preview, self.answer.rows) == ({}, b"", [])
        assert not self.answer.busy
        self.button.click()
        assert self.label.value == texts.CHOOSE_FIRST


def test_comforts_without_a_model_say_so(tmp_path: Path) -> None:
    label = widgets.Label()
    classifier = ui.Classifier(str(tmp_path))
    drop, answer = ui.comforts(classifier, widgets.FileUpload(), widgets.Output(), label)
    assert not answer.can_explain
    content = {"kind": "photo", "name": "a.png", "index": 0, "count": 1}
    drop._handle_custom_msg(content, [memoryview(encode(gradient()))])
    assert "missing" in label.value
