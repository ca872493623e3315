"""The pieces of the page: what the notebook's few cells are made of."""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
from IPython.display import Image as Picture
from PIL import Image

from icon_classifier import tally, turns, words
from icon_classifier.answer import Answer
from icon_classifier.dropzone import ACCEPT, Dropped, DropZone
from icon_classifier.errors import IconClassifierError, ImageError, ModelError
from icon_classifier.examples import find_examples
from icon_classifier.heatmap import HeatMap, overlay, relevance
from icon_classifier.images import read_image, thumbnail
from icon_classifier.model import Model, Prediction
from icon_classifier.opening import open_model

__all__ = ["ACCEPT", "Classifier", "comforts", "heading", "responding", "show_photo", "take_photo"]

_log = logging.getLogger(__name__)


class Classifier:
    """The model beside the notebook, and what the page says of it.

    Where the model cannot be opened the page still comes up and says so in plain words; the log has
    the reason.

    Parameters
    ----------
    folder : str, optional
        Where export.pkl and export.onnx lie.
    """

    def __init__(self, folder: str = ".") -> None:
        self.folder = folder
        self._model: Model | None = None
        self._error: ModelError | None = None
        self._listeners: list[Callable[[Image.Image, Prediction], None]] = []
        try:
            self._model = open_model(folder)
        except ModelError as error:
            _log.error("%s", error)
            self._error = error

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; none where the model could not be opened."""
        return () if self._model is None else self._model.labels

    @property
    def title(self) -> str:
        """The question that this page answers, of the model's own classes."""
        return "What is it?" if self._model is None else words.question(self._model.labels)

    @property
    def hint(self) -> str:
        """What to do, or why nothing can be done."""
        if self._model is None:
            return "" if self._error is None else self._error.words
        return words.hint(self._model.labels)

    @property
    def can_explain(self) -> bool:
        """Whether the model can tell where it looked."""
        return self._model is not None and self._model.can_explain

    def predict(self, image: Image.Image, *, explain: bool = False) -> Prediction:
        """Classify a photo.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, upright.
        explain : bool, optional
            Keep what a heat map is made of.

        Raises
        ------
        ModelError
            If the model could not be opened.
        """
        model = self._opened()
        with turns.turn():
            prediction = model.predict(image, explain=explain)
        tally.count()
        return prediction

    def answer(self, image: Image.Image) -> str:
        """Classify a photo, tell those who listen, and put the answer into one line.

        Raises
        ------
        ModelError
            If the model could not be opened.
        """
        prediction = self.predict(image, explain=True)
        for listener in self._listeners:
            listener(image, prediction)
        return words.line(prediction, self._opened().labels)

    def on_answer(self, listener: Callable[[Image.Image, Prediction], None]) -> None:
        """Call something with each photo that is answered, and its prediction."""
        self._listeners.append(listener)

    def heat_map(self, size: tuple[int, int], prediction: Prediction) -> HeatMap:
        """Tell where in a photo the model saw what it answered.

        Parameters
        ----------
        size : tuple of int
            Width and height of the photo, in pixels.
        prediction : Prediction
            Its answer, asked for with ``explain``.

        Raises
        ------
        ModelError
            If the model could not be opened, or has no heat map.
        """
        model = self._opened()
        if prediction.evidence is None:
            raise ModelError("the prediction has no evidence", words=words.NO_HEAT_MAP)
        heat = relevance(prediction.evidence, model.labels.index(prediction.label))
        width, height = size
        left, top, right, bottom = model.info.pipeline.view(size)
        box = left / width, top / height, (right - left) / width, (bottom - top) / height
        return HeatMap(overlay(heat), box)

    def _opened(self) -> Model:
        if self._model is None:
            raise self._error or ModelError("no model")
        return self._model


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
        raise IconClassifierError("no photo chosen", words=words.CHOOSE_FIRST)
    try:
        with turns.turn():
            return read_image(upload.value[-1].content)
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
            caption, button.description, button.disabled = button.description, words.WORKING, True
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

    The plain widgets work without; these only listen to them and use the same label.

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

    def take(photo: Dropped) -> None:
        upload.value, output.outputs = (), ()
        if photo.count == 1:
            _put(label, lambda: classifier.answer(_decoded(photo)))
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
        answer.busy = False

    label.observe(on_line, "value")
    answer.on_clear(on_clear)
    return DropZone(take, find_examples(classifier.folder)), answer


def _decoded(photo: Dropped) -> Image.Image:
    with turns.turn():
        return photo.read()


def _put(label: widgets.Label, answer: Callable[[], str]) -> None:
    """Show an answer in a label, or the words of what went wrong."""
    label.value = ""
    try:
        label.value = answer()
    except IconClassifierError as error:
        label.value = error.words
    except Exception:  # noqa: BLE001 - whatever it is, the visitor must get an answer
        _log.exception("a photo could not be answered")
        label.value = words.UNEXPECTED


def _put_row(label: widgets.Label, answer: Answer, classifier: Classifier, photo: Dropped) -> None:
    """Show one of several photos as a row of the table."""
    last = photo.index == photo.count - 1
    if photo.index == 0:
        answer.start_table()

    def add() -> str:
        try:
            image = _decoded(photo)
            answer.add_row(photo.name, (image, classifier.predict(image)), last=last)
        except ImageError as error:
            answer.add_row(photo.name, error.words, last=last)
        answer.busy = False
        return (
            words.summary(*answer.counts) if last else words.progress(photo.index + 1, photo.count)
        )

    _put(label, add)
