"""The pieces of the page: what the notebook's few cells are made of."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
from IPython.display import Image as Picture
from PIL import Image

from icon_classifier.errors import IconClassifierError, ModelError
from icon_classifier.images import read_image, thumbnail
from icon_classifier.model import Model, Prediction, open_model

__all__ = ["ACCEPT", "Classifier", "either", "latest_photo", "responding", "show_photo"]

ACCEPT = "image/*,.heic,.heif,.avif"
"""What the file chooser offers. Most systems do not know that HEIC is a picture."""

CHOOSE_FIRST = "Please choose a photo first."
WORKING = "Classifying…"
UNEXPECTED = "Something went wrong here; please try again or choose another photo."

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
        self._model: Model | None = None
        self._error: ModelError | None = None
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
        """The question that this page answers, of the model's own classes; safe as HTML."""
        return (
            "What is it?" if self._model is None else f"{either(self._model.labels)}?".capitalize()
        )

    @property
    def hint(self) -> str:
        """What to do, or why nothing can be done."""
        if self._model is None:
            return "" if self._error is None else self._error.words
        return f"Choose a photo, then press the button: {either(self._model.labels)}?"

    def predict(self, image: Image.Image) -> Prediction:
        """Classify a photo.

        Raises
        ------
        ModelError
            If the model could not be opened.
        """
        if self._model is None:
            raise self._error or ModelError("no model")
        return self._model.predict(image)


def either(labels: Sequence[str], most: int = 6) -> str:
    """Join names of classes: ``black, grizzly or teddy``.

    Parameters
    ----------
    labels : sequence of str
        At least one name; underscores become spaces.
    most : int, optional
        How many to name before the rest is only counted.
    """
    names = [label.replace("_", " ") for label in labels]
    if len(names) > most:
        return f"{', '.join(names[:most])} or one of {len(names) - most} more"
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def latest_photo(upload: widgets.FileUpload) -> Image.Image:
    """Decode the photo that was chosen last.

    Raises
    ------
    IconClassifierError
        If none was chosen, or it cannot be read.
    """
    if not upload.value:
        raise IconClassifierError("no photo chosen", words=CHOOSE_FIRST)
    return read_image(upload.value[-1].content)


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
            caption, button.description, button.disabled = button.description, WORKING, True
            label.value = ""
            try:
                label.value = answer()
            except IconClassifierError as error:
                label.value = error.words
            except Exception:  # noqa: BLE001 - whatever it is, the visitor must get an answer
                _log.exception("the answer to a click failed")
                label.value = UNEXPECTED
            finally:
                button.description, button.disabled = caption, False

        button.on_click(on_click)
        return on_click

    return decorate
