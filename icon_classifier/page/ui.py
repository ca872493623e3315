"""The parts of the page that the notebook's few cells put together."""

from __future__ import annotations

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

_prefetched: WeakKeyDictionary[widgets.FileUpload, Image.Image | IconClassifierError] = (
    WeakKeyDictionary()
)
"""The small copy of an uploader's photo that was classified ahead of the click, or the error."""


def heading(text: str) -> widgets.HTML:
    """Return the page's title as a heading. Labels may hold anything: they are escaped."""
    return widgets.HTML(f"<h2>{html.escape(text)}</h2>")


def take_photo(upload: widgets.FileUpload) -> Image.Image:
    """Decode the photo that was chosen last, and drop its file.

    Raises
    ------
    IconClassifierError
        If none was chosen, or it cannot be read.
    """
    if not upload.value:
        raise IconClassifierError("no photo chosen", words=texts.CHOOSE_FIRST)
    try:
        prefetched = _prefetched.get(upload)
        if isinstance(prefetched, IconClassifierError):
            raise prefetched
        return _read(upload) if prefetched is None else prefetched
    finally:
        upload.value = ()  # up to 25 MB; the count on the button goes back to 0 with it


def show_photo(output: widgets.Output, image: Image.Image, side: int = 128) -> None:
    """Show a photo in an Output, replacing its content.

    Parameters
    ----------
    output : ipywidgets.Output
        Its outputs are set, not captured: they then belong to the widget's state and are still
        there when a page reconnects.
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
    """Return a decorator that makes a function the callback of a click.

    While it works the button is disabled and says so. What it returns is shown in the label, and
    so is the message of an error: Voilà swallows exceptions of callbacks, and the button would look
    dead.

    Parameters
    ----------
    button : ipywidgets.Button
        What was clicked.
    label : ipywidgets.Label
        Where the answer is shown.
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
    """Return what surrounds the plain uploader: the drop zone and the detailed answer.

    The plain widgets work without them; these only observe them and use the same label. They also
    classify a chosen photo while the visitor still moves to the button.

    Parameters
    ----------
    classifier : Classifier
        Classifies; the answer is shown through its ``on_answer``.
    upload, output, label
        The plain uploader, its thumbnail and its line; cleared when the visitor starts over.

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
        """Classify ahead. An error here comes again at the click, and is shown then.

        Of the files nothing stays: a page that reconnects asks for the state of all widgets.
        """
        _prefetched.pop(upload, None)
        if change["new"]:
            classifier.discard()  # also where the new file cannot be read
            try:
                with slots.slot():
                    _prefetched[upload] = classifier.prefetch(_read(upload))
            except IconClassifierError as error:
                # Its traceback would keep the photo.
                _prefetched[upload] = type(error)(str(error), words=error.words)
            finally:
                for file in change["new"]:
                    file.content = memoryview(b"")

    def take(photo: Dropped) -> None:
        upload.value, output.outputs = (), ()
        classifier.discard()
        if photo.count == 1:
            _put(label, lambda: _answer_dropped(classifier, photo))
        else:
            _put_row(label, answer, classifier, photo)

    def on_line(change: dict[str, Any]) -> None:
        """Show the detailed answer after the line: drawing it takes longer."""
        if change["new"] == "":
            answer.busy = True
            unshown.clear()
        elif unshown:
            answer.show(*unshown.pop())
        elif answer.busy:  # there is no new answer: the line is an error message
            answer.clear()

    def on_clear() -> None:
        upload.value, output.outputs, label.value = (), (), ""
        classifier.discard()
        answer.busy = False

    upload.observe(on_upload, "value")
    label.observe(on_line, "value")
    answer.on_clear(on_clear)
    return DropZone(take, find_examples(classifier.labels, classifier.folder)), answer


def _read(upload: widgets.FileUpload) -> Image.Image:
    with slots.slot():
        return read_image(upload.value[-1].content)


def _answer_dropped(classifier: Classifier, photo: Dropped) -> str:
    with slots.slot():
        small = classifier.prefetch(photo.read())
    return classifier.answer(small)  # shows it, too: by then the large one is freed


def _put(label: widgets.Label, answer: Callable[[], str]) -> None:
    """Show an answer in a label, or the message of an error."""
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
            with slots.slot():
                image = photo.read()
                answer.add_row(photo.name, (image, classifier.predict(image)), last=last)
        except ImageError as error:
            answer.add_row(photo.name, error.words, last=last)
        answer.busy = False
        return (
            texts.summary(*answer.counts) if last else texts.progress(photo.index + 1, photo.count)
        )

    _put(label, add)
