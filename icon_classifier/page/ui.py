"""The parts of the page that the notebook's few cells put together."""

from __future__ import annotations

import functools
import html
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from IPython.display import Image as Picture
from PIL import Image

from icon_classifier.errors import (
    IconClassifierError,
    ImageTooLargeError,
    NoPhotoError,
    too_many_bytes,
)
from icon_classifier.images import Limits, read_image, thumbnail
from icon_classifier.page import texts
from icon_classifier.page.answer import Answer, Result
from icon_classifier.page.classifier import Classifier as Classifier  # for the notebook
from icon_classifier.page.dropzone import ACCEPT as ACCEPT  # for the notebook
from icon_classifier.page.dropzone import Dropped, DropZone
from icon_classifier.page.examples import find_examples
from icon_classifier.page.feedback import Feedback as Feedback  # for the notebook
from icon_classifier.system import memory, slots

LIMITS = Limits()
"""Limits on a photo; the same as everywhere else."""

_log = logging.getLogger(__name__)


def heading(text: str) -> widgets.HTML:
    """Return the page's title as a heading, for a page whose template does not write it.

    Labels may hold anything: they are escaped.
    """
    return widgets.HTML(f"<h2>{html.escape(text)}</h2>").add_class("ic-title")


def take_photo(upload: widgets.FileUpload) -> Image.Image:
    """Decode the photo that was chosen last, and drop its file.

    Raises
    ------
    NoPhotoError
        If none was chosen since the last one was taken.
    ImageError
        If it cannot be read.
    """
    if not upload.value:
        raise NoPhotoError
    file = upload.value[-1]
    upload.value = ()  # up to 25 MB; the count on the button goes back to 0 with it
    if file.size > LIMITS.max_bytes:  # the drop zone sends only the size of such a file
        raise ImageTooLargeError(
            f"expected at most {LIMITS.max_bytes} bytes, got {file.size}",
            words=too_many_bytes(LIMITS.max_bytes),
        )
    with memory.limited_growth(memory.MAX_DECODING):
        return read_image(file.content, LIMITS)


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
    dead. A click without a new photo leaves the answer that is there.

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
                # One slot for all: a photo that is decoded must not wait for the network.
                with slots.slot():
                    _put(label, answer)
            finally:
                button.description, button.disabled = caption, False

        button.on_click(on_click)
        return on_click

    return decorate


def drop_zone_and_answer(
    classifier: Classifier,
    upload: widgets.FileUpload,
    button: widgets.Button,
    output: widgets.Output,
    label: widgets.Label,
    feedback: Feedback | None = None,
) -> tuple[DropZone, Answer]:
    """Return the drop zone, which takes the place of the plain widgets, and the detailed answer.

    The drop zone puts each photo into the uploader and presses the button, so there is one way in
    for all photos, and whatever callback the button has answers them. Where the drop zone is drawn,
    its style sheet hides the uploader and the button; elsewhere they work alone.

    Parameters
    ----------
    classifier : Classifier
        Where the callback uses it, its answers are shown in detail.
    upload, button, output, label
        The plain uploader, its button, its thumbnail and its line.
    feedback : Feedback, optional
        Where photos are kept whose visitor says what they show; if not given, the folder that the
        server's `feedback_folder` or the variable FEEDBACK_FOLDER names, or nowhere.

    Returns
    -------
    DropZone, Answer
        For the end of the page: the answer before the zone, which then shrinks.
    """
    for widget, name in (upload, "plain"), (button, "plain"), (output, "photo"), (label, "line"):
        widget.add_class(f"ic-{name}")  # for dropzone.css
    answered: deque[Result] = deque(maxlen=1)
    classifier.on_answer(lambda image, prediction: answered.append((image, prediction)))
    feedback = feedback or Feedback.from_environment()
    answer = Answer(classifier.heat_map, lambda line: setattr(label, "value", line), feedback)

    def take(photo: Dropped) -> None:
        upload.set_state({"value": [photo.file]})  # as the browser does; nothing is sent back
        output.outputs = ()
        if photo.count == 1:
            button.click()
            return
        if photo.index == 0:
            answer.clear()
        # So that the line does not change to the answer of each photo in turn.
        with slots.slot(), label.hold_trait_notifications(), output.hold_trait_notifications():
            button.click()
            result = answered.pop() if answered else None
            label.value = answer.add_row(photo.file["name"], label.value, result, photo.count)

    def on_line(change: dict[str, Any]) -> None:
        """Show what belongs to a line, after the line: drawing it takes longer."""
        if answered and change["new"]:
            answer.show(answered.pop(), change["new"])
        elif change["new"] not in ("", answer.line):  # an error
            answer.clear()

    label.observe(on_line, "value")
    if not classifier.labels:
        label.value = classifier.hint
    examples = find_examples(classifier.labels, classifier.folder)
    return DropZone(take, examples, texts.privacy(asks=feedback is not None)), answer


def _put(label: widgets.Label, answer: Callable[[], str]) -> None:
    """Show an answer in a label, or the message of an error."""
    try:
        line = answer()
    except NoPhotoError as error:
        line = label.value or error.words
    except IconClassifierError as error:
        line = error.words
    except Exception:  # noqa: BLE001 - whatever it is, the visitor must get an answer
        _log.exception("a photo could not be answered")
        line = texts.UNEXPECTED
    label.value = ""  # or the same line again would be no change, and not be read out
    label.value = line
