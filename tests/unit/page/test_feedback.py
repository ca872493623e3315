import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import load_recipe
from icon_classifier.dataset.store import photos_and_labels
from icon_classifier.errors import FeedbackError, SettingsError
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Prediction
from icon_classifier.page import texts
from icon_classifier.page.answer import Answer
from icon_classifier.page.feedback import MAX_BYTES, Feedback
from icon_classifier.page.texts import MAX_PHOTOS


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def name_of(photo: bytes) -> str:
    return f"{hashlib.sha256(photo).hexdigest()}.jpg"


def test_photo_lies_under_its_label_by_its_hash(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "deep" / "feedback")
    assert feedback.keep(b"photo", "black_bear")["said"] == "Thank you: kept as black bear."
    assert files(tmp_path) == [f"deep/feedback/black_bear/{name_of(b'photo')}"]
    assert (tmp_path / files(tmp_path)[0]).read_bytes() == b"photo"


def test_same_photo_is_kept_once_and_moves_with_another_answer(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path)
    for label, folder in (("a", "a"), ("a", "a"), ("b", "b"), (None, "_something_else")):
        feedback.keep(b"photo", label)
        assert files(tmp_path) == [f"{folder}/{name_of(b'photo')}"]
    feedback.undo(b"photo")
    assert files(tmp_path) == []
    assert not feedback.undo(b"photo")["said"]  # again


def test_photo_of_another_visitor_stays(tmp_path: Path) -> None:
    Feedback(tmp_path).keep(b"photo", "a")
    other = Feedback(tmp_path)
    other.keep(b"photo", "a")
    other.keep(b"photo", "b")
    assert len(files(tmp_path)) == 2
    other.undo(b"photo")
    assert files(tmp_path) == [f"a/{name_of(b'photo')}"]


@pytest.mark.parametrize(
    "label",
    [
        *("..", ".", "", " ", "../../outside", "/etc", "a/b\\c", ".hidden", "a\0b", "\ud800"),
        *("x" * 999, "дом" * 200, "דוב גריזלי", "🐻‍❄️ ours 🧊"),
    ],
)
def test_any_label_names_one_visible_folder_within(label: str, tmp_path: Path) -> None:
    Feedback(tmp_path / "feedback").keep(b"photo", label)
    (file,) = files(tmp_path)
    top, folder, name = Path(file).parts
    assert (top, name) == ("feedback", name_of(b"photo"))
    assert not folder.startswith(".")


def test_folder_has_no_more_than_its_bytes_those_of_earlier_runs_included(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "photo.jpg").write_bytes(b"x" * 60)
    feedback = Feedback(tmp_path, max_bytes=100)
    feedback.keep(b"1" * 40, "a")
    with pytest.raises(FeedbackError) as refusal:
        Feedback(tmp_path, max_bytes=100).keep(b"2", "a")
    assert refusal.value.words == texts.FEEDBACK_FULL
    feedback.keep(b"1" * 40, "b")  # it moves
    feedback.undo(b"1" * 40)
    feedback.keep(b"2" * 40, "a")


def test_one_page_keeps_no_more_than_one_table_has(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path)
    for number in range(MAX_PHOTOS):
        feedback.keep(b"%d" % number, "a")
    with pytest.raises(FeedbackError) as refusal:
        feedback.keep(b"one more", "a")
    assert refusal.value.words == texts.FEEDBACK_ENOUGH
    assert len(files(tmp_path)) == MAX_PHOTOS
    feedback.keep(b"0", "b")


def test_folder_that_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FeedbackError) as refusal:
        Feedback(tmp_path / "file").keep(b"photo", "a")
    assert refusal.value.words == FeedbackError.words


@pytest.mark.parametrize(
    ("environment", "size"),
    [
        ({}, None),
        ({"FEEDBACK_FOLDER": "", "FEEDBACK_MAX_BYTES": "7"}, None),
        ({"FEEDBACK_FOLDER": "here"}, MAX_BYTES),
        ({"FEEDBACK_FOLDER": "here", "FEEDBACK_MAX_BYTES": "7"}, 7),
    ],
)
def test_environment_names_the_folder_and_its_size(
    environment: dict[str, str], size: int | None
) -> None:
    feedback = Feedback.from_environment(environment)
    assert (feedback and feedback._max_bytes) == size


def test_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(SettingsError, match="FEEDBACK_MAX_BYTES, got '1 MB'"):
        Feedback.from_environment({"FEEDBACK_FOLDER": "a", "FEEDBACK_MAX_BYTES": "1 MB"})


def prediction(*labels: str, known: bool = True) -> Prediction:
    ranking = tuple((label, 2.0 ** -(index + 1)) for index, label in enumerate(labels))
    return Prediction(*ranking[0], ranking, known=known, score=1.0)


class TestOnThePage:
    """The answer widget with a folder, driven as its JavaScript does."""

    folder: Path
    answer: Answer
    photo: Image.Image

    @pytest.fixture(autouse=True)
    def _widget(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "feedback"
        self.answer = Answer(lambda *_: None, lambda _: None, Feedback(self.folder))
        self.photo = Image.linear_gradient("L").resize((900, 600)).convert("RGB")
        self.photo.info["exif"] = b"Exif\0\0 where it was taken"

    def show(self, *labels: str) -> None:
        self.answer.show((self.photo, prediction(*labels)), "line")

    def send(self, kind: str, **content: Any) -> None:
        content = {"photo": self.answer.feedback.get("photo"), **content}
        self.answer._handle_custom_msg({"kind": kind, **content}, [])

    def test_nothing_is_kept_before_the_click(self) -> None:
        self.show("b_c", "a")
        assert not self.folder.exists()
        assert self.answer.feedback["said"] == ""

    def test_what_is_kept_is_the_preview_without_metadata(self) -> None:
        self.show("b_c", "a")
        self.send("keep", index=0)
        (file,) = files(self.folder)
        assert Path(file).parent == Path("b_c")
        assert (self.folder / file).read_bytes() == self.answer.preview
        kept = read_image_file(self.folder / file)
        assert kept.size == (640, 427)
        assert b"Exif" not in self.answer.preview

    @pytest.mark.parametrize(("index", "folder"), [(1, "a/b"), (2, "x"), (3, "_something_else")])
    def test_other_answers_name_their_folder_and_can_be_undone(
        self, index: int, folder: str
    ) -> None:
        self.show("b_c", "a/b", "x")
        self.send("keep", index=index)
        assert [Path(file).parent.name for file in files(self.folder)] == [folder.replace("/", "_")]
        assert self.answer.feedback["can_undo"]
        self.send("undo")
        assert files(self.folder) == []
        assert self.answer.feedback["said"] == ""

    @pytest.mark.parametrize("index", [-1, 4, 10**9, "0", None, 0.0, [0]])
    def test_index_out_of_range_is_refused(
        self, index: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.show("b_c", "a/b", "x")
        with caplog.at_level(logging.WARNING):
            self.send("keep", index=index)
        assert "refused" in caplog.text
        assert not self.folder.exists()

    def test_click_on_a_photo_that_is_gone_is_refused(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was on its way while the next photo was answered: the label would be of another."""
        self.show("a", "b")
        seen = self.answer.feedback["photo"]
        self.photo = Image.new("RGB", (90, 60), "red")
        self.show("b", "a")
        with caplog.at_level(logging.WARNING):
            self.send("keep", photo=seen, index=0)
            self.answer.clear()
            self.send("keep", photo=seen, index=0)
            self.send("keep", index=0)
        assert caplog.text.count("refused") == 3
        assert not self.folder.exists()

    def test_row_of_the_table_remembers_what_was_said(self) -> None:
        for number, colour in enumerate(("red", "blue")):
            result = Image.new("RGB", (90, 60), colour), prediction("a", "b")
            self.answer.add_row(f"{number}.jpg", "line", result, 2)
        self.send("open", index=1)
        self.send("keep", index=1)
        self.send("open", index=0)
        assert self.answer.feedback["said"] == ""
        self.send("open", index=1)
        assert self.answer.feedback["said"] == "Thank you: kept as b."
        assert [Path(file).parent.name for file in files(self.folder)] == ["b"]

    def test_error_is_said_and_the_page_goes_on(self, caplog: pytest.LogCaptureFixture) -> None:
        self.folder.write_bytes(b"in the way")
        self.show("a", "b")
        self.send("keep", index=0)
        assert self.answer.feedback["said"] == FeedbackError.words
        assert not self.answer.feedback["can_undo"]
        assert "cannot keep a photo" in caplog.text
        self.folder.unlink()
        self.show("a", "b")
        self.send("keep", index=0)
        assert self.answer.feedback["said"] == "Thank you: kept as a."

    def test_photo_that_cannot_be_removed_can_still_be_undone(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.show("a", "b")
        self.send("keep", index=0)
        file = self.folder / files(self.folder)[0]
        photo = file.read_bytes()
        file.unlink()
        file.mkdir()  # which unlink() refuses, root's too
        for kind, content in (("undo", {}), ("keep", {"index": 1})):
            self.send(kind, **content)
            assert self.answer.feedback["said"] == texts.FEEDBACK_NOT_REMOVED
            assert self.answer.feedback["can_undo"]
        assert "cannot remove a photo" in caplog.text
        file.rmdir()
        file.write_bytes(photo)
        self.send("undo")
        assert files(self.folder) == []
        assert self.answer.feedback["said"] == ""

    def test_photo_that_was_given_is_trained_on(self, tmp_path: Path) -> None:
        for label, index in (("circle", 0), ("square", 2)):
            self.photo = Image.new("RGB", (90, 60), "red" if index else "blue")
            self.show(label, "triangle")
            self.send("keep", index=index)
        recipe = load_recipe("shapes")
        photos = gather(recipe, tmp_path / "shapes", further=self.folder)
        labels = photos_and_labels(photos)[1]
        each = labels.count("triangle")
        assert each > 1
        assert {label: labels.count(label) for label in set(labels)} == {
            "circle": each + 1,
            "square": each,
            "triangle": each,
        }


def test_page_does_not_ask_without_a_folder(caplog: pytest.LogCaptureFixture) -> None:
    answer = Answer(lambda *_: None, lambda _: None)
    answer.show((Image.new("RGB", (90, 60)), prediction("a", "b")), "line")
    assert answer.feedback == {}
    name = hashlib.sha256(answer.preview).hexdigest()
    with caplog.at_level(logging.WARNING):
        answer._handle_custom_msg({"kind": "keep", "photo": name, "index": 0}, [])
    assert "refused" in caplog.text


def test_two_pages_keep_the_same_photo_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see that it is not there; the file is whole whichever is written last."""
    exists: Callable[[Path], bool] = lambda _: False  # noqa: E731
    monkeypatch.setattr(Path, "exists", exists)
    for _ in range(2):
        Feedback(tmp_path).keep(b"photo", "a")
    assert files(tmp_path) == [f"a/{name_of(b'photo')}"]
