"""A corrected ``ImageClassifierCleaner`` of fastai: mark photos among those with the highest loss.

fastai's own shows each photo in an ``Output`` that only a front end can fill, loses the marks when
another category or split is chosen, and leaves moving to a loop that stops at the first name that
is in use. This one shows plain images, keeps every mark, and moves photos with
:mod:`~icon_classifier.dataset.journal`, so that a run can be tried dry and undone.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from IPython.display import display
from ipywidgets import HTML, Dropdown, HBox, Image, Label, VBox

from icon_classifier.dataset.journal import Move, apply_moves, undo_moves
from icon_classifier.errors import DatasetError
from icon_classifier.images import read_image_file, thumbnail
from icon_classifier.system.torch_setup import import_fastai

import_fastai()
from fastai.vision.widgets import ImageClassifierCleaner, ImagesCleaner  # noqa: E402

_KEEP, _DELETE = "<Keep>", "<Delete>"


class _Photos(ImagesCleaner):  # type: ignore[misc]
    """A row of photos, each with a menu that starts at the photo's mark."""

    def __init__(
        self,
        labels: Iterable[str],
        marks: dict[Path, str],
        on_mark: Callable[[], None],
        **options: int,
    ) -> None:
        super().__init__(tuple(labels), **options)
        self.marks = marks
        self.on_mark = on_mark
        self.notes: dict[Path, str] = {}

    def set_fns(self, fns: Iterable[Path]) -> None:
        """Show photos; called by the cleaner whenever its category or split changes."""
        self.fns = list(fns)[: self.max_n]
        self.widget.children = [self._box(path) for path in self.fns]

    def _box(self, path: Path) -> VBox:
        side = max(self.height, self.width)
        # No tooltip: with one, the front end of ipywidgets 8 shows an error in place of the image.
        picture = Image(
            value=thumbnail(read_image_file(path), side),
            format="jpeg",
            layout={"height": f"{self.height}px", "object_fit": "contain"},
        )
        menu = Dropdown(options=self.opts, value=self.marks.get(path, _KEEP))
        menu.layout.width = "max-content"
        menu.observe(partial(self._mark, path), "value")
        # The menu stays the second child: fastai's values(), delete() and change() look there.
        return VBox([picture, menu, Label(self.notes.get(path, ""))])

    def _mark(self, path: Path, change: dict[str, Any]) -> None:
        if change["new"] == _KEEP:
            self.marks.pop(path, None)
        else:
            self.marks[path] = change["new"]
        self.on_mark()


class PhotoCleaner(ImageClassifierCleaner):  # type: ignore[misc]
    """Mark photos to delete or to relabel, those with the highest loss first.

    The lesson's ``delete()`` and ``change()`` work as usual for the photos shown; ``apply()`` does
    what is marked in every category and split.

    Parameters
    ----------
    learn : fastai.learner.Learner
        Its items must be paths, ``<data folder>/photos/<label>/<name>``.
    max_n : int
        How many photos of a category and split to show.
    height, width : int
        Maximal size of a thumbnail (pixels).

    Attributes
    ----------
    marks : dict of Path to str
        What is marked: ``<Delete>`` or a label.

    Raises
    ------
    DatasetError
        If the learner's items are not paths of photos.
    """

    def __init__(self, learn: Any, *, max_n: int = 30, height: int = 128, width: int = 256) -> None:
        vocab = [str(each) for each in learn.dls.vocab]
        self.marks: dict[Path, str] = {}
        self.status = HTML()
        self.default = self.iw = _Photos(
            vocab, self.marks, self._update_status, max_n=max_n, height=height, width=width
        )
        self.dd_cats = Dropdown(options=vocab, description="Category")
        self.dd_ds = Dropdown(options=("Train", "Valid"), description="Photos of")
        self.iwis = tuple(_losses(learn, index, self.iw.notes) for index in (0, 1))
        self.dd_ds.observe(self.on_change_ds, "value")
        self.dd_cats.observe(self.on_change_ds, "value")
        self.on_change_ds()
        self.widget = VBox([HBox([self.dd_cats, self.dd_ds]), self.iw.widget, self.status])

    def _ipython_display_(self) -> None:
        display(self.widget)  # type: ignore[no-untyped-call]

    def on_change_ds(self, change: dict[str, Any] | None = None) -> None:
        """Show the chosen category of the chosen split; called by both menus."""
        rows = self.iwis[self.dd_ds.index]
        # Photos that were moved are not shown, unless the move was undone.
        shown = [row for row in rows if row[1] == self.dd_cats.value and row[0].is_file()]
        self.iw.set_fns(row[0] for row in sorted(shown, key=lambda row: -row[2]))
        self._update_status()

    def plan(self) -> list[Move]:
        """Return what is marked as moves inside the data folder; to delete is to quarantine."""
        moves = []
        for path, mark in sorted(self.marks.items()):
            label, photos = path.parent.name, path.parent.parent
            source = f"{photos.name}/{label}/{path.name}"
            if mark == _DELETE:
                target = f"quarantine/{label}/{path.name}"
                moves.append(Move(source, target, "deleted in the cleaner"))
            elif mark != label:
                target = f"{photos.name}/{mark}/{path.name}"
                moves.append(Move(source, target, f"was {label}, relabelled in the cleaner"))
        return moves

    def apply(self, *, dry_run: bool = False) -> list[Move]:
        """Move what is marked.

        Parameters
        ----------
        dry_run : bool
            Only return what would be moved.

        Returns
        -------
        list of Move
            The moves with their final names. Train again to see their effect.

        Raises
        ------
        DatasetError
            If a photo does not exist any more; then nothing has been moved.
        """
        moves = self.plan()
        done = apply_moves(self._root(), moves, "cleaner", dry_run=dry_run) if moves else []
        if not dry_run:
            self.marks.clear()
            self.on_change_ds()
        return done

    def undo(self, *, dry_run: bool = False) -> list[Move]:
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
        back = undo_moves(self._root(), "cleaner", dry_run=dry_run)
        if not dry_run:
            self.on_change_ds()
        return back

    def _root(self) -> Path:
        first: Path = next(row[0] for rows in self.iwis for row in rows)
        return first.parent.parent.parent

    def _update_status(self) -> None:
        moves = self.plan()
        deleted = sum(move.target.startswith("quarantine/") for move in moves)
        self.status.value = (
            f"In all categories: {deleted} marked to delete, {len(moves) - deleted} to relabel."
        )


def _losses(learn: Any, index: int, notes: dict[Path, str]) -> list[tuple[Path, str, float]]:
    """Return path, label and loss of each photo of a split, without augmentation."""
    items = list(learn.dls[index].items)
    if not all(isinstance(item, Path) for item in items):
        raise DatasetError("expected a learner whose items are paths of photos")
    dl = learn.dls.test_dl(items, with_labels=True)
    with learn.no_bar():
        _, targets, predicted, losses = learn.get_preds(dl=dl, with_loss=True, with_decoded=True)
    rows = []
    for path, target, guess, loss in zip(items, targets, predicted, losses, strict=True):
        rows.append((path, str(dl.vocab[int(target)]), float(loss)))
        notes[path] = f"predicted {dl.vocab[int(guess)]}, loss {float(loss):.2f}"
    return rows
