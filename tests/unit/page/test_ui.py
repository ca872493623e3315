import base64
import io
import logging
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pytest
from PIL import Image

from icon_classifier.errors import IconClassifierError, ImageError, NoPhotoError
from icon_classifier.images import read_image
from icon_classifier.page import texts, ui
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
    with pytest.raises(NoPhotoError):
        ui.take_photo(widgets.FileUpload())


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
            seen.update(disabled=self.button.disabled, description=self.button.description)
            return "grizzly"

        self.button.click()
        assert seen == {"disabled": True, "description": texts.WORKING}
        assert self.label.value == "grizzly"
        assert (self.button.description, self.button.disabled) == ("Classify Icon", False)

    def test_same_answer_is_shown_anew(self) -> None:
        """A screen reader speaks changes only."""
        shown: list[str] = []
        self.label.observe(lambda change: shown.append(change["new"]), "value")
        ui.responding(self.button, self.label)(lambda: "grizzly")
        self.button.click()
        self.button.click()
        assert shown == ["", "grizzly", "", "grizzly"]

    def test_responding_shows_the_words_of_our_error(self) -> None:
        @ui.responding(self.button, self.label)
        def answer() -> str:
            raise IconClassifierError("path /secret", words="Please try another photo.")

        self.button.click()
        assert self.label.value == "Please try another photo."
        assert not self.button.disabled

    def test_click_without_a_new_photo_leaves_the_answer(self) -> None:
        @ui.responding(self.button, self.label)
        def answer() -> str:
            raise NoPhotoError

        self.button.click()
        assert self.label.value == "before"
        self.label.value = ""
        self.button.click()
        assert self.label.value == NoPhotoError.words

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


def coloured(colour: str) -> bytes:
    return encode(Image.new("RGB", (60, 40), colour))


class Comforts:
    """The plain widgets, the drop zone and the answer, driven as their JavaScript does."""

    def __init__(self, folder: Path, feedback: ui.Feedback | None = None) -> None:
        self.classifier = ui.Classifier(str(folder))
        self.upload, self.label = widgets.FileUpload(), widgets.Label()
        self.output, self.button = widgets.Output(), widgets.Button()
        self.zone, self.answer = ui.drop_zone_and_answer(
            self.classifier, self.upload, self.button, self.output, self.label, feedback
        )

    def send(self, data: bytes, name: str = "a.png", index: int = 0, count: int = 1) -> None:
        content = {"kind": "photo", "name": name, "index": index, "count": count}
        self.zone._handle_custom_msg(content, [memoryview(data)])

    def send_all(self, photos: dict[str, bytes]) -> None:
        for index, (name, data) in enumerate(photos.items()):
            self.send(data, name, index, len(photos))

    def open(self, index: int) -> None:
        self.answer._handle_custom_msg({"kind": "open", "index": index}, [])

    def choose(self, data: bytes) -> None:
        file = {"name": "a.png", "type": "image/png", "size": len(data), "last_modified": 1}
        self.upload.set_state({"value": [{**file, "content": memoryview(data)}]})


@pytest.fixture
def page(tmp_path: Path) -> Comforts:
    """The page of the notebook."""
    write_model(tmp_path)
    page = Comforts(tmp_path)

    @ui.responding(page.button, page.label)
    def classify() -> str:
        photo = ui.take_photo(page.upload)
        ui.show_photo(page.output, photo)
        return page.classifier.answer(photo)

    return page


class TestComforts:
    def test_dropped_photo_is_answered(self, page: Comforts) -> None:
        page.send(coloured("red"))
        assert page.label.value.startswith("Prediction: red; Probability: 0.9")
        assert page.answer.line == page.label.value
        assert page.answer.answer["bars"][0][0] == "red"
        assert read_image(page.answer.preview).size == (60, 40)
        assert page.upload.value == (), "the file is dropped"

    def test_same_photo_again_is_answered_again(self, page: Comforts) -> None:
        page.send(coloured("red"))
        page.answer.clear()
        page.send(coloured("red"))
        assert page.answer.answer["label"] == "red"

    def test_button_gives_the_same_answer(self, page: Comforts) -> None:
        page.send(coloured("blue"))
        dropped = page.label.value, page.answer.get_state(["answer", "preview", "heat"])
        page.send(coloured("red"))
        page.choose(coloured("blue"))
        page.button.click()
        assert dropped == (
            page.label.value,
            page.answer.get_state(["answer", "preview", "heat"]),
        )

    def test_button_pressed_after_a_drop_leaves_the_answer(self, page: Comforts) -> None:
        page.send(coloured("red"))
        line, answer = page.label.value, page.answer.answer
        page.button.click()
        assert (page.label.value, page.answer.answer) == (line, answer)

    def test_error_clears_the_old_answer(self, page: Comforts) -> None:
        page.send(coloured("red"))
        page.send(b"no picture")
        assert "not a picture" in page.label.value
        assert (page.answer.answer, page.answer.preview) == ({}, b"")
        assert page.output.outputs == ()
        page.send_all({"a.png": coloured("red"), "b.png": coloured("red")})
        page.send(b"no picture")
        assert (page.answer.rows, page.output.outputs) == ([], ())

    def test_photo_that_was_too_large_to_send_is_refused_in_words(self, page: Comforts) -> None:
        content = {"kind": "photo", "name": "a.heic", "index": 0, "count": 1}
        page.zone._handle_custom_msg(content, [])
        assert page.label.value == "This file is larger than 25 MB; please choose a smaller one."

    def test_not_sure_is_written_out(self, page: Comforts) -> None:
        page.send(coloured("black"))
        assert page.label.value.startswith(
            "Not sure: this does not look like red, green or blue; closest: "
        )
        assert page.answer.answer["known"] is False

    def test_several_photos_become_a_table(self, page: Comforts) -> None:
        lines: list[str] = []
        page.label.observe(lambda change: lines.append(change["new"]), "value")
        photos = {"red.png": coloured("red"), "bad.png": b"no picture", "=b.png": coloured("blue")}
        page.send_all(photos)
        assert set(lines[:-1]) == {""}
        assert lines[-1] == "2 of 3 photos answered; 1 could not be read."
        assert [row["name"] for row in page.answer.rows] == list(photos)
        assert "not a picture" in page.answer.rows[1]["problem"]
        lines = page.answer.csv().splitlines()
        assert lines[0] == "file,label,probability,known,problem"
        assert lines[1].startswith("red.png,red,0.9")
        assert lines[2].startswith("bad.png,,,,")
        assert lines[3].startswith("'=b.png,blue,0.9")

    def test_row_of_the_table_opens_the_answer_that_the_photo_has_alone(
        self, page: Comforts
    ) -> None:
        page.send(coloured("blue"))
        alone = page.label.value, page.answer.get_state(["answer", "preview", "heat"])
        page.send_all({"red.png": coloured("red"), "blue.png": coloured("blue"), "bad": b"bad"})
        assert page.answer.answer == {}
        page.open(1)
        opened = page.answer.get_state(["answer", "preview", "heat"])
        assert (page.label.value, opened) == alone
        assert (page.answer.opened, len(page.answer.rows)) == (1, 3)
        page.open(2)
        assert "not a picture" in page.label.value
        assert page.answer.answer == {}
        page.send(coloured("red"))
        assert (page.answer.rows, page.answer.opened) == ([], -1)
        page.open(0)  # of a table that is gone
        assert page.answer.answer["label"] == "red"

    def test_heat_map_is_where_the_colour_is(self, page: Comforts) -> None:
        picture = Image.new("RGB", (80, 40), "blue")
        picture.paste("red", (0, 0, 50, 40))
        page.send(encode(picture))
        heat = page.answer.heat
        assert heat["box"] == (0.0, 0.0, 1.0, 1.0)
        cells = np.frombuffer(heat["cells"], np.uint8).reshape(heat["height"], heat["width"])
        assert cells[:, 0].min() > 200
        assert cells[:, -1].max() < 50


@pytest.mark.parametrize("way", ["none", "variable", "argument"])
def test_page_asks_and_says_so_only_where_a_folder_is_named(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    monkeypatch.setenv("FEEDBACK_FOLDER", str(tmp_path / "feedback") if way == "variable" else "")
    given = ui.Feedback(tmp_path / "feedback") if way == "argument" else None
    page = Comforts(tmp_path, given)
    asks = way != "none"
    assert page.zone.texts["privacy"] == texts.privacy(asks=asks)
    assert ("consent" in page.answer.texts) == asks
    photo = Image.new("RGB", (60, 40), "red")
    page.answer.show((photo, page.classifier.predict(photo)), "line")
    assert bool(page.answer.feedback) == asks


class TestCallbackOfALesson:
    """What fast.ai's lesson does, with the drop zone beside it."""

    @pytest.fixture
    def page(self, tmp_path: Path) -> Comforts:
        write_model(tmp_path)
        page = Comforts(tmp_path)

        def on_click_classify(_: object) -> None:
            photo = Image.open(io.BytesIO(bytes(page.upload.value[-1].content)))
            ui.show_photo(page.output, photo)
            page.label.value = f"Prediction: {photo.size}"

        page.button.on_click(on_click_classify)
        return page

    def test_chosen_photo_is_there_at_the_click(self, page: Comforts) -> None:
        page.choose(coloured("red"))
        for _ in range(2):
            page.button.click()
            assert page.label.value == "Prediction: (60, 40)"
            assert len(page.output.outputs) == 1

    def test_dropped_photo_is_answered(self, page: Comforts) -> None:
        page.send(coloured("red"))
        assert page.label.value == "Prediction: (60, 40)"
        assert len(page.output.outputs) == 1

    def test_several_photos_are_answered_in_the_table(self, page: Comforts) -> None:
        page.send_all({"red.png": coloured("red"), "blue.png": coloured("blue")})
        assert [row["problem"] for row in page.answer.rows] == ["Prediction: (60, 40)"] * 2


def test_page_without_a_model_says_so(tmp_path: Path) -> None:
    page = Comforts(tmp_path)
    assert "missing" in page.label.value
