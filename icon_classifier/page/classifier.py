"""The model of the page, and what the page says when there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable

from PIL import Image

from icon_classifier.errors import ImageTooLargeError, ModelError
from icon_classifier.model.heatmap import HeatMap, relevance
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Model, Prediction
from icon_classifier.page import texts
from icon_classifier.page.about import about
from icon_classifier.page.title import page_title
from icon_classifier.system import counter, slots

_log = logging.getLogger(__name__)


class Classifier:
    """The model in the notebook's folder.

    Where it cannot be opened the page still comes up and says so in plain words; the log has the
    reason.

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
        """The labels of the model; none where it could not be opened."""
        return () if self._model is None else self._model.labels

    @property
    def title(self) -> str:
        """The question that this page answers."""
        if self._model is None:
            return "What is it?"
        return page_title(self._model.labels, self._model.info.recipe, self.folder)

    @property
    def about(self) -> str:
        """What a visitor should know of the model, as HTML; empty where there is none."""
        return "" if self._model is None else about(self._model.info)

    @property
    def hint(self) -> str:
        """What to do, or why nothing can be done."""
        if self._model is None:
            return "" if self._error is None else self._error.words
        return texts.hint(self._model.labels)

    def predict(self, image: Image.Image, *, explain: bool = False) -> Prediction:
        """Classify a photo.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, upright.
        explain : bool, optional
            Keep what a heat map is computed from.

        Raises
        ------
        ModelError
            If the model could not be opened.
        ImageTooLargeError
            If there is not enough memory.
        """
        model = self._opened()
        try:
            with slots.slot():
                prediction = model.predict(image, explain=explain)
        except MemoryError as error:
            raise ImageTooLargeError(f"no memory left to classify it: {error}") from error
        counter.increment()
        return prediction

    def answer(self, image: Image.Image) -> str:
        """Classify a photo, call the listeners, and return the answer as one line.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, upright.

        Raises
        ------
        ModelError
            If the model could not be opened.
        ImageTooLargeError
            If there is not enough memory.
        """
        prediction = self.predict(image, explain=True)
        for listener in self._listeners:
            listener(image, prediction)
        return texts.line(prediction, self._opened().labels)

    def on_answer(self, listener: Callable[[Image.Image, Prediction], None]) -> None:
        """Call ``listener`` with each photo that is answered, and its prediction."""
        self._listeners.append(listener)

    def heat_map(self, size: tuple[int, int], prediction: Prediction) -> HeatMap | None:
        """Compute where in a photo the evidence for its label is.

        Parameters
        ----------
        size : tuple of int
            Width and height of the photo, in pixels.
        prediction : Prediction
            Its answer, asked for with ``explain``.

        Returns
        -------
        HeatMap or None
            None where the prediction has no evidence.

        Raises
        ------
        ModelError
            If the model could not be opened.
        """
        if prediction.evidence is None:
            return None
        model = self._opened()
        cells = relevance(prediction.evidence, model.labels.index(prediction.label))
        width, height = size
        left, top, right, bottom = model.info.pipeline.view(size)
        box = left / width, top / height, (right - left) / width, (bottom - top) / height
        return HeatMap(cells, box)

    def _opened(self) -> Model:
        if self._model is None:
            raise self._error or ModelError("no model")
        return self._model
