"""Find the class of a photo from the folders that it lies in."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath

SPLITS = frozenset({"train", "training", "valid", "val", "validation", "test", "testing"})
"""Names of folders that divide the photos of all classes and are no classes themselves."""

LabelOf = Callable[[PurePosixPath], str | None]


def fold(name: str) -> str:
    """Return a name as it is compared: composed, without the difference of capital letters."""
    return unicodedata.normalize("NFC", name).casefold()


def by_names(labels: Mapping[str, str]) -> LabelOf:
    """Return a function that finds the innermost folder which is named like a class.

    Parameters
    ----------
    labels : mapping of str to str
        The label for each name, which is as :func:`fold` returns it.
    """

    def label_of(path: PurePosixPath) -> str | None:
        names = (labels.get(fold(part)) for part in reversed(path.parent.parts))
        return next((label for label in names if label is not None), None)

    return label_of


def by_places(paths: Iterable[PurePosixPath]) -> LabelOf:
    """Return a function that finds the outermost folder which distinguishes photos.

    Folders around all photos, and then ``train``, ``valid`` and ``test``, are no classes; folders
    within a class, ``cat/indoor`` say, belong to it.

    Parameters
    ----------
    paths : iterable of PurePosixPath
        All photos, relative to the same folder. One that lies in no folder has no class.
    """
    folders = {path.parent.parts for path in paths if path.parent.parts}
    depth = 0
    while (
        all(len(parts) > depth + 1 for parts in folders)
        and len({parts[depth] for parts in folders}) == 1
    ):
        depth += 1

    def label_of(path: PurePosixPath) -> str | None:
        parts = path.parent.parts[depth:]
        if len(parts) > 1 and fold(parts[0]) in SPLITS:
            parts = parts[1:]
        return parts[0] if parts else None

    return label_of
