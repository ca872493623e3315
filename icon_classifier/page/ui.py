"""The pieces of the page: what the notebook's few cells are made of."""

from __future__ import annotations

import contextlib
import functools
import html
import logging
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import ipywidgets as widgets
from IPython.display import Image as Picture
from PIL import Image

from icon_classifier.errors import IconClassifierError, ImageError
from icon_classifier.images import read_image, thumbnail
from icon_classifier.model.session import Prediction
from icon_classifier.page import texts
from icon_classifier.page.answer import Answer
from icon_classifier.page.classifier import Classifier as Classifier  # for the notebook
from icon_classifier.page.dropzone import ACCEPT as ACCEPT  # for the notebook
from icon_classifier.page.dropzone import Dropped, DropZone
from icon_classifier.page.examples import find_examples
from icon_classifier.system import slots

_log = logging.getLogger(__name__)

_foreseen: WeakKeyDictionary[widgets.FileUpload, Image.Image] = WeakKeyDictionary()
"""What stands for the photo in an uploader, where it was looked at already."""


def heading(text: str) -> widgets.HTML:
    """Make the page's title. Names of classes may hold anything; they are shown, not run."""
    return widgets.HTML(f"<h2>{html.escape(text)}</h2>")


def take_photo(upload: widgets.FileUpload) -> Image.Image:
    """Decode the photo that was chosen last, and forget its file.

    Raises
    ------
    IconClassifierError
        If none was chosen, or it cannot be read.
    """
    if not upload.value:
        raise IconClassifierError("no photo chosen", words=texts.CHOOSE_FIRST)
    try:
        foreseen = _foreseen.get(upload)
        return _read(upload) if foreseen is None else foreseen
    finally:
        upload.value = ()  # up to 25 MB; the counter on the button goes back to 0 with it


def show_photo(output: widgets.Output, image: Image.Image, side: int = 128) -> None:
    """Show a photo in an Output, in place of what was there.

    Parameters
    ----------
    output : ipywidgets.Output
        Its outputs are set, not captured: they then belong to the widget's state and are there
        again when a page comes back.
    image : PIL.Image.Image
        Mode RGB.
    side : int, optional
        Longer side of what is shown, in pixels.
    """
    output.outputs = ()
    picture = Picture(thumbnail(image, side), format="jpeg")  # type: ignore[no-untyped-call]
    output.append_display_data(picture)


def responding(
    button: widgets.Button, label: widgets.Label
) -> Callable[[Callable[[], str]], Callable[..., None]]:
    """Make a function the answer to a click.

    While it works the button is disabled and says so. What it returns is shown in the label, and
    so are the words of an error: Voilà swallows exceptions of callbacks, and the button would look
    dead.

    Parameters
    ----------
    button : ipywidgets.Button
        What was clicked.
    label : ipywidgets.Label
        Where the answer goes.
    """

    def decorate(answer: Callable[[], str]) -> Callable[..., None]:
        @functools.wraps(answer)
        def on_click(*_: Any) -> None:
            caption, button.description, button.disabled = button.description, texts.WORKING, True
            try:
                _put(label, answer)
            finally:
                button.description, button.disabled = caption, False

        button.on_click(on_click)
        return on_click

    return decorate


def comforts(
    classifier: Classifier,
    upload: widgets.FileUpload,
    output: widgets.Output,
    label: widgets.Label,
) -> tuple[DropZone, Answer]:
    """Make what surrounds the plain uploader: more ways in, and a fuller answer.

    The plain widgets work without; these only listen to them and use the same label. They also have
    a chosen photo looked at while the visitor still moves to the button.

    Parameters
    ----------
    classifier : Classifier
        Answers, and is listened to.
    upload, output, label
        The plain uploader, its thumbnail and its line; emptied when the visitor starts over.

    Returns
    -------
    DropZone, Answer
        For the top and the bottom of the page.
    """
    for widget, name in ((upload, "upload"), (output, "photo"), (label, "line")):
        widget.add_class(f"ic-{name}")  # for dropzone.css
    answer = Answer(classifier.heat_map if classifier.can_explain else None)
    unshown: list[tuple[Image.Image, Prediction]] = []
    classifier.on_answer(lambda image, prediction: unshown.append((image, prediction)))

    def on_upload(change: dict[str, Any]) -> None:
        """Work ahead. What goes wrong here will do so again at the click, and is told then."""
        _foreseen.pop(upload, None)
        if change["new"]:
            classifier.forget()  # also where the new file cannot be read
            with contextlib.suppress(IconClassifierError):
                with slots.turn():
                    _foreseen[upload] = classifier.foresee(_read(upload))
                change["new"][-1].content = memoryview(b"")  # up to 25 MB that nobody reads again

    def take(photo: Dropped) -> None:
        upload.value, output.outputs = (), ()
        classifier.forget()
        if photo.count == 1:
            _put(label, lambda: _answer_dropped(classifier, photo))
        else:
            _put_row(label, answer, classifier, photo)

    def on_line(change: dict[str, Any]) -> None:
        """Show the answer behind a line that is there already: drawing it takes longer."""
        if change["new"] == "":
            answer.busy = True
            unshown.clear()
        elif unshown:
            answer.show(*unshown.pop())
        elif answer.busy:  # nothing new was shown: the line tells of an error
            answer.clear()

    def on_clear() -> None:
        upload.value, output.outputs, label.value = (), (), ""
        classifier.forget()
        answer.busy = False

    upload.observe(on_upload, "value")
    label.observe(on_line, "value")
    answer.on_clear(on_clear)
    return DropZone(take, find_examples(classifier.folder)), answer


def _read(upload: widgets.FileUpload) -> Image.Image:
    with slots.turn():
        return read_image(upload.value[-1].content)


def _answer_dropped(classifier: Classifier, photo: Dropped) -> str:
    with slots.turn():
        small = classifier.foresee(photo.read())
    return classifier.answer(small)  # shows it, too: by then the large one is gone


def _put(label: widgets.Label, answer: Callable[[], str]) -> None:
    """Show an answer in a label, or the words of what went wrong."""
    label.value = ""
    try:
        label.value = answer()
    except IconClassifierError as error:
        label.value = error.words
    except Exception:  # noqa: BLE001 - whatever it is, the visitor must get an answer
        _log.exception("a photo could not be answered")
        label.value = texts.UNEXPECTED


def _put_row(label: widgets.Label, answer: Answer, classifier: Classifier, photo: Dropped) -> None:
    """Show one of several photos as a row of the table."""
    last = photo.index == photo.count - 1
    if photo.index == 0:
        answer.start_table()

    def add() -> str:
        try:
            with slots.turn():
                image = photo.read()
                answer.add_row(photo.name, (image, classifier.predict(image)), last=last)
        except ImageError as error:
            answer.add_row(photo.name, error.words, last=last)
        answer.busy = False
        return (
            texts.summary(*answer.counts) if last else texts.progress(photo.index + 1, photo.count)
        )

    _put(label, add)
