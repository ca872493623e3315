"""The answer widget: the photo, its heat map, bars for the classes, a table of several photos."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from icon_classifier.errors import FeedbackError
from icon_classifier.images import PREVIEW_SIDE, thumbnail
from icon_classifier.model.heatmap import HeatMap
from icon_classifier.model.session import Prediction
from icon_classifier.page import texts
from icon_classifier.page.feedback import Feedback
from icon_classifier.system.texts import csv_line

_THUMBNAIL_SIDE = 72
_REDRAW_SECONDS = 0.5
_HERE = Path(__file__).parent
_log = logging.getLogger(__name__)

Result = tuple[Image.Image, Prediction]
"""A photo, mode RGB, and its answer."""

Explain = Callable[[tuple[int, int], Prediction], HeatMap | None]
"""Computes a heat map from a photo's width and height, in pixels, and its prediction."""


@dataclass(frozen=True)
class _Detail:
    """One answer in full; by default none.

    Attributes
    ----------
    line : str
        The answer as one line, or why there is none.
    labels : tuple of str
        All labels, the most probable first.
    preview : bytes
        A JPEG of the photo without its metadata.
    traits : dict
        The other traits that show it.
    """

    line: str = ""
    labels: tuple[str, ...] = ()
    preview: bytes = b""
    traits: dict[str, Any] = field(default_factory=lambda: {"answer": {}, "heat": {}})


class Answer(anywidget.AnyWidget):
    """Shows one answer, or a table of several, each of which can be opened.

    Of each photo it keeps a preview of at most 640 pixels, until the next photo comes.

    Parameters
    ----------
    explain : callable
        Computes the heat map; returns None where there is none.
    say : callable
        Called with the line of a photo of the table that the visitor opens.
    feedback : Feedback, optional
        Where photos are kept whose visitor says what they show; the preview is what is kept. The
        page does not ask if not given.

    Attributes
    ----------
    line : str
        The line above what is shown.
    """

    _esm = (_HERE / "answer.js").read_text(encoding="utf-8")
    _css = (_HERE / "answer.css").read_text(encoding="utf-8")

    texts = traitlets.Dict().tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    preview = traitlets.Bytes().tag(sync=True)
    heat = traitlets.Dict().tag(sync=True)
    rows: traitlets.List[Any] = traitlets.List().tag(sync=True)
    opened = traitlets.Int(-1).tag(sync=True)
    feedback = traitlets.Dict().tag(sync=True)

    def __init__(
        self, explain: Explain, say: Callable[[str], None], feedback: Feedback | None = None
    ) -> None:
        self._explain = explain
        self._say = say
        self._feedback = feedback
        self._rows: list[dict[str, Any]] = []
        self._details: list[_Detail] = []
        self._shown = _Detail()
        self._drawn = 0.0
        self.line = ""
        super().__init__(texts=texts.ANSWER_TEXTS | (texts.FEEDBACK_TEXTS if feedback else {}))
        self.on_msg(self._on_message)

    def show(self, result: Result, line: str) -> None:
        """Show the answer for one photo, replacing what is shown.

        Parameters
        ----------
        result : (PIL.Image.Image, Prediction)
            The photo and its answer.
        line : str
            The answer as one line.
        """
        self._replace(self._detail(*result, line))

    def clear(self) -> None:
        """Clear the answer or the table, and keep nothing of it."""
        self._replace(_Detail())

    def add_row(self, name: str, line: str, result: Result | None, count: int) -> str:
        """Add a photo to the table.

        Parameters
        ----------
        name : str
            Its file name.
        line : str
            The answer as one line, or the sentence that says why there is none.
        result : (PIL.Image.Image, Prediction) or None
            The photo and its answer.
        count : int
            How many photos the table will have. Before the last the page is updated twice a second
            at most: the whole table is sent every time.

        Returns
        -------
        str
            The line above the table; empty before the last photo.
        """
        row: dict[str, Any] = {"name": name}
        detail = _Detail(line)
        if result is None:
            row["problem"] = line
        else:
            image, prediction = result
            detail = self._detail(image, prediction, line)
            row |= {
                "label": prediction.label,
                "shown": texts.plain(prediction.label),
                "probability": prediction.probability,
                "number": texts.probability(prediction.probability),
                "known": prediction.known,
                "thumbnail": thumbnail(image, _THUMBNAIL_SIDE),
            }
        del self._rows[texts.MAX_PHOTOS - 1 :], self._details[texts.MAX_PHOTOS - 1 :]
        self._rows.append(row)
        self._details.append(detail)
        is_last = len(self._rows) >= count
        if is_last or time.monotonic() - self._drawn > _REDRAW_SECONDS:
            self.rows = list(self._rows)
            self._drawn = time.monotonic()
        if is_last:
            self.line = texts.summary(sum("label" in row for row in self._rows), count)
        return self.line

    def csv(self) -> str:
        """Write the table as comma-separated values, RFC 4180."""
        rows = [["file", "label", "probability", "known", "problem"]]
        rows += [
            [
                row["name"],
                row.get("label", ""),
                row.get("number", ""),
                {True: "yes", False: "no"}.get(row.get("known"), ""),  # type: ignore[arg-type]
                row.get("problem", ""),
            ]
            for row in self._rows
        ]
        return "".join(csv_line(row) + "\r\n" for row in rows)

    def _detail(self, image: Image.Image, prediction: Prediction, line: str) -> _Detail:
        heat = self._explain(image.size, prediction)
        ranking = prediction.ranking
        traits = {
            "answer": {
                "label": texts.plain(prediction.label),
                "known": prediction.known,
                "bars": [(texts.plain(label), p, texts.probability(p)) for label, p in ranking],
            },
            "heat": _traits_of(heat) if heat else {},
        }
        labels = tuple(label for label, _ in ranking)
        return _Detail(line, labels, thumbnail(image, PREVIEW_SIDE), traits)

    def _replace(self, detail: _Detail) -> None:
        self._rows, self._details = [], []
        with self.hold_sync():
            self.set_trait("rows", [])
            self._open(detail, -1)

    def _open(self, detail: _Detail, index: int) -> None:
        self._shown, self.line = detail, detail.line
        with self.hold_sync():
            for name, value in detail.traits.items():
                self.set_trait(name, value)
            self.preview = detail.preview
            self.opened = index
            self.feedback = self._feedback.state(detail.preview) if self._feedback else {}

    def _on_message(self, _: object, content: Any, __: object) -> None:
        match content:
            case {"kind": "open", "index": int(index)} if 0 <= index < len(self._details):
                detail = self._details[index]
                self.line = detail.line
                self._say(self.line)
                self._open(detail, index)
            case {"kind": "csv"}:
                self.send({"kind": "csv", "text": self.csv()})
            # By now another photo may be shown than the one that the visitor has seen.
            case {"kind": "keep", "photo": str(photo), "index": int(index)} if (
                self._feedback is not None
                and photo == self.feedback.get("photo")
                and 0 <= index <= len(self._shown.labels)
            ):
                label = (*self._shown.labels, None)[index]
                self._judge(self._feedback, partial(self._feedback.keep, label=label))
            case {"kind": "undo", "photo": str(photo)} if (
                self._feedback is not None and photo == self.feedback.get("photo")
            ):
                self._judge(self._feedback, self._feedback.undo)
            case _:
                _log.warning("refused a message of the answer widget: %.200r", content)

    def _judge(self, feedback: Feedback, act: Callable[[bytes], dict[str, Any]]) -> None:
        """Keep or undo the photo that is shown, and show what became of it."""
        photo = self._shown.preview
        try:
            self.feedback = act(photo)
        except FeedbackError as error:
            _log.warning("%s", error)
            self.feedback = feedback.state(photo) | {"said": error.words}


def _traits_of(heat: HeatMap) -> dict[str, Any]:
    height, width = heat.cells.shape
    return {"cells": heat.cells.tobytes(), "width": width, "height": height, "box": heat.box}
