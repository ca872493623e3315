"""The answer widget: bars for the classes, the photo, its heat map, a table for several photos."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from icon_classifier.errors import IconClassifierError
from icon_classifier.images import PREVIEW_SIDE, thumbnail
from icon_classifier.model.heatmap import HeatMap
from icon_classifier.model.session import Prediction
from icon_classifier.page import texts
from icon_classifier.system.texts import csv_line

BARS = 10
"""How many classes have a bar."""

_THUMBNAIL_SIDE = 72
_REDRAW_SECONDS = 0.4
_HERE = Path(__file__).parent
_log = logging.getLogger(__name__)

Explain = Callable[[tuple[int, int], Prediction], HeatMap]
"""Computes a heat map from a photo's width and height, in pixels, and its prediction."""


class Answer(anywidget.AnyWidget):
    """Shows one answer, or a table of several.

    Of a photo it keeps a preview of at most 640 pixels, until the next photo or until the visitor
    starts over.

    Parameters
    ----------
    explain : callable, optional
        Computes the heat map; without it the page offers none.
    """

    _esm = (_HERE / "answer.js").read_text(encoding="utf-8")
    _css = (_HERE / "answer.css").read_text(encoding="utf-8")

    texts = traitlets.Dict(texts.ANSWER_TEXTS).tag(sync=True)
    can_explain = traitlets.Bool(False).tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    preview = traitlets.Bytes().tag(sync=True)
    heat = traitlets.Bytes().tag(sync=True)
    heat_box: traitlets.List[float] = traitlets.List().tag(sync=True)
    rows: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, explain: Explain | None = None) -> None:
        self._explain = explain
        self._answered: tuple[tuple[int, int], Prediction] | None = None
        self._clear_callbacks: list[Callable[[], None]] = []
        self._pending: list[dict[str, Any]] = []
        self._drawn = 0.0
        super().__init__(can_explain=explain is not None)
        self.on_msg(self._on_message)

    def show(self, image: Image.Image, prediction: Prediction) -> None:
        """Show the answer for one photo, replacing the last one.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB.
        prediction : Prediction
            Its answer.
        """
        top = prediction.ranking[:BARS]
        self._answered = image.size, prediction
        with self.hold_sync():
            self.answer = {
                "headline": texts.verdict(prediction),
                "label": texts.plain(prediction.label),
                "known": prediction.known,
                "bars": [[texts.plain(label), p, texts.percent(p)] for label, p in top],
                "rest": len(prediction.ranking) - len(top),
            }
            self.preview = thumbnail(image, PREVIEW_SIDE)
            self._clear_heat()
            self.rows = []
            self.busy = False

    def start_table(self) -> None:
        """Show an empty table, replacing the last answer."""
        self._pending = []
        with self.hold_sync():
            self._clear_photo()
            self.rows = []

    def add_row(
        self, name: str, result: tuple[Image.Image, Prediction] | str, *, last: bool = False
    ) -> None:
        """Add a photo to the table.

        Parameters
        ----------
        name : str
            Its file name.
        result : (PIL.Image.Image, Prediction) or str
            The photo with its answer, or the sentence that says why there is none.
        last : bool, optional
            Whether it is the last one. Before that the page is updated twice a second at most: the
            whole table is sent every time.
        """
        row: dict[str, Any] = {"name": name}
        if isinstance(result, str):
            row["problem"] = result
        else:
            image, prediction = result
            row |= {
                "label": prediction.label,
                "shown": texts.plain(prediction.label),
                "probability": prediction.probability,
                "percent": texts.percent(prediction.probability),
                "known": prediction.known,
                "thumbnail": thumbnail(image, _THUMBNAIL_SIDE),
            }
        del self._pending[texts.MAX_PHOTOS - 1 :]  # a page of ours sends no more
        self._pending.append(row)
        if last or time.monotonic() - self._drawn > _REDRAW_SECONDS:
            self.rows = list(self._pending)
            self._drawn = time.monotonic()

    def clear(self) -> None:
        """Clear the answer, and keep nothing of it."""
        self._pending = []
        with self.hold_sync():
            self._clear_photo()
            self.rows = []
            self.busy = False

    def on_clear(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the visitor starts over."""
        self._clear_callbacks.append(callback)

    @property
    def counts(self) -> tuple[int, int]:
        """How many photos of the table have an answer, and how many could not be read."""
        unreadable = sum("problem" in row for row in self._pending)
        return len(self._pending) - unreadable, unreadable

    def csv(self) -> str:
        """Write the table as comma-separated values, RFC 4180."""
        rows = [["file", "label", "probability", "known", "problem"]]
        rows += [
            [
                row["name"],
                row.get("label", ""),
                f"{row['probability']:.4f}" if "probability" in row else "",
                {True: "yes", False: "no"}.get(row.get("known"), ""),  # type: ignore[arg-type]
                row.get("problem", ""),
            ]
            for row in self._pending
        ]
        return "".join(csv_line(row) + "\r\n" for row in rows)

    def _clear_heat(self) -> None:
        self.heat, self.heat_box = b"", []

    def _clear_photo(self) -> None:
        self._answered = None
        self.answer, self.preview = {}, b""
        self._clear_heat()

    def _show_heat(self, explain: Explain, answered: tuple[tuple[int, int], Prediction]) -> None:
        try:
            heat_map = explain(*answered)
        except IconClassifierError as error:
            _log.error("there is no heat map: %s", error)
            self.can_explain = False
            return
        with self.hold_sync():
            self.heat, self.heat_box = heat_map.png, list(heat_map.box)

    def _on_message(self, _: object, content: dict[str, Any], __: Sequence[memoryview]) -> None:
        match content:
            case {"kind": "clear"}:
                self.clear()
                for callback in self._clear_callbacks:
                    callback()
            case {"kind": "heat"} if self._explain is not None and self._answered is not None:
                self._show_heat(self._explain, self._answered)
            case {"kind": "csv"}:
                self.send({"kind": "csv", "text": self.csv()})
            case _:
                _log.warning("refused a message of the answer widget: %.200r", content)
