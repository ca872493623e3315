"""The model as the page knows it: its question, its answers, and what is said without it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from PIL import Image

from icon_classifier.errors import ModelError
from icon_classifier.images import PREVIEW_SIDE, shrink
from icon_classifier.model.heatmap import HeatMap, overlay, relevance
from icon_classifier.model.opening import open_model
from icon_classifier.model.session import Model, Prediction
from icon_classifier.page import texts
from icon_classifier.system import counter, slots

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
        self._foreseen: tuple[Image.Image, Prediction] | None = None
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
        return "What is it?" if self._model is None else texts.question(self._model.labels)

    @property
    def hint(self) -> str:
        """What to do, or why nothing can be done."""
        if self._model is None:
            return "" if self._error is None else self._error.words
        return texts.hint(self._model.labels)

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
        if self._foreseen is not None and self._foreseen[0] is image:
            return self._foreseen[1]
        model = self._opened()
        with slots.turn():
            prediction = model.predict(image, explain=explain)
        counter.count()
        return prediction

    def foresee(self, image: Image.Image) -> Image.Image:
        """Classify a photo before its answer is asked for.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, upright.

        Returns
        -------
        PIL.Image.Image
            What stands for it from here on: a copy as small as the page shows it, whose prediction
            is that of the photo. Twenty visitors who have not clicked yet must not hold twenty
            photos of a phone, each 50 MB when it is decoded.

        Raises
        ------
        ModelError
            If the model could not be opened.
        """
        self.forget()
        prediction = self.predict(image, explain=True)
        small = shrink(image, PREVIEW_SIDE)
        self._foreseen = small, prediction
        return small

    def forget(self) -> None:
        """Drop what was foreseen: its photo is no longer asked for."""
        self._foreseen = None

    def answer(self, image: Image.Image) -> str:
        """Classify a photo, tell those who listen, and put the answer into one line.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, upright.

        Raises
        ------
        ModelError
            If the model could not be opened.
        """
        prediction = self.predict(image, explain=True)
        self.forget()
        for listener in self._listeners:
            listener(image, prediction)
        return texts.line(prediction, self._opened().labels)

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
            raise ModelError("the prediction has no evidence", words=texts.NO_HEAT_MAP)
        heat = relevance(prediction.evidence, model.labels.index(prediction.label))
        width, height = size
        left, top, right, bottom = model.info.pipeline.view(size)
        box = left / width, top / height, (right - left) / width, (bottom - top) / height
        return HeatMap(overlay(heat), box)

    def _opened(self) -> Model:
        if self._model is None:
            raise self._error or ModelError("no model")
        return self._model
