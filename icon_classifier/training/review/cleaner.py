"""Widgets to relabel or delete the photos that a model doubts, and to undo that.

Photos are moved with :mod:`~icon_classifier.dataset.journal`: none is lost, and no name is used
twice. fastai's ``ImageClassifierCleaner`` has the menus alone and leaves the moves to a loop.
"""

import html
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Box, Button, Dropdown, HBox, Image, VBox

from icon_classifier.dataset.journal import Move, apply_moves, undo_moves
from icon_classifier.errors import DatasetError
from icon_classifier.images import read_image_file, thumbnail
from icon_classifier.training.review.doubts import Doubt

_KEEP, _DELETE = "<Keep>", "<Delete>"
_ALL = "all classes"
_SIDE = 160  # pixels


class PhotoCleaner(VBox):  # type: ignore[misc]
    """Photos, each with a menu to keep, delete or relabel it; the likely mislabelled first.

    Marks stay while another class is shown, until their photos are moved, by a loop of the user's
    as well. *Apply* moves what is marked in all classes; *Undo* undoes the latest *Apply*, of an
    earlier session as well.

    Parameters
    ----------
    photos : Path
        Holds one folder of photos for each label; the journal lies beside it.
    vocab : sequence of str
        The labels.
    doubts : sequence of Doubt
        What to show, in this order.
    max_photos : int
        How many photos to show at a time.

    Attributes
    ----------
    marks : dict of Path to str
        What is marked: ``<Delete>`` or a label.
    shown : list of Doubt
        What is shown now.
    """

    def __init__(
        self, photos: Path, vocab: Sequence[str], doubts: Sequence[Doubt], *, max_photos: int = 30
    ) -> None:
        self.photos, self.vocab, self.doubts = photos, tuple(vocab), tuple(doubts)
        self.max_photos = max_photos
        self.marks: dict[Path, str] = {}
        self.shown: list[Doubt] = []
        labels = sorted({doubt.label for doubt in doubts})
        self.menu = Dropdown(options=[_ALL, *labels], description="Show")
        self.button_apply = Button(description="Apply", button_style="primary")
        self.button_undo = Button(description="Undo")
        self.row = Box(layout={"flex_flow": "row wrap"})
        self.status = HTML()
        self.menu.observe(lambda change: self.show(), "value")
        self.button_apply.on_click(lambda button: self._answer(self.apply))
        self.button_undo.on_click(lambda button: self._answer(self.undo))
        buttons = HBox([self.menu, self.button_apply, self.button_undo])
        super().__init__([buttons, self.status, self.row])
        self.show()

    def show(self) -> None:
        """Show the photos of the chosen class; those that were moved are left out."""
        chosen = [
            doubt
            for doubt in self.doubts
            if self.menu.value in (_ALL, doubt.label) and doubt.path.is_file()
        ]
        self.shown = chosen[: self.max_photos]
        self.row.children = [self._photo(doubt) for doubt in self.shown]
        self._describe(f"{len(self.shown)} of {len(chosen)} photos are shown.")

    def plan(self) -> list[Move]:
        """Return what is marked as moves inside the data folder; to delete is to quarantine."""
        self.marks = {path: mark for path, mark in self.marks.items() if path.is_file()}
        moves = []
        for path, mark in sorted(self.marks.items()):
            label = path.parent.name
            source = f"{self.photos.name}/{label}/{path.name}"
            if mark == _DELETE:
                target = f"quarantine/{label}/{path.name}"
                moves.append(Move(source, target, "deleted in the cleaner"))
            elif mark != label:
                target = f"{self.photos.name}/{mark}/{path.name}"
                moves.append(Move(source, target, f"was {label}, relabelled in the cleaner"))
        return moves

    def apply(self) -> list[Move]:
        """Move what is marked.

        Returns
        -------
        list of Move
            The moves with their final names. Train again to see their effect.

        Raises
        ------
        DatasetError
            If a photo does not exist any more; then nothing has been moved.
        """
        done = apply_moves(self.photos.parent, self.plan(), "cleaner")
        self.marks.clear()
        self.show()
        return done

    def undo(self) -> list[Move]:
        """Undo the latest ``apply()`` that has not been undone, of an earlier session as well.

        Returns
        -------
        list of Move
            The moves back; empty if there is nothing to undo.

        Raises
        ------
        DatasetError
            If a photo's old name has been used since; then nothing has been moved.
        """
        back = undo_moves(self.photos.parent)
        self.show()
        return back

    def _photo(self, doubt: Doubt) -> VBox:
        # No tooltip: with one, the front end of ipywidgets 8 shows an error in place of the image.
        picture = Image(
            value=thumbnail(read_image_file(doubt.path), _SIDE),
            format="jpeg",
            layout={"height": f"{_SIDE}px", "object_fit": "contain"},
        )
        menu = Dropdown(
            options=(_KEEP, _DELETE, *self.vocab), value=self.marks.get(doubt.path, _KEEP)
        )
        menu.layout.width = "max-content"
        menu.observe(partial(self._mark, doubt.path), "value")
        lines = map(html.escape, (doubt.name, str(doubt)))
        return VBox([picture, HTML("<br>".join(lines)), menu], layout={"margin": "8px"})

    def _mark(self, path: Path, change: dict[str, Any]) -> None:
        if change["new"] == _KEEP:
            self.marks.pop(path, None)
        else:
            self.marks[path] = change["new"]
        moves = self.plan()
        deleted = sum(move.target.startswith("quarantine/") for move in moves)
        self._describe(f"{deleted} marked to delete, {len(moves) - deleted} to relabel.")

    def _answer(self, action: Any) -> None:
        """Do what a button says; an exception in a callback would be swallowed."""
        try:
            moved = len(action())
        except DatasetError as error:
            self._describe(str(error))
        else:
            again = " Run the cells from the gathering on to train again." if moved else ""
            self._describe(f"Photos moved: {moved}.{again}")

    def _describe(self, text: str) -> None:
        self.status.value = html.escape(text)
