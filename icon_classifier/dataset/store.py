"""The folder of gathered photos: one folder per label, files named by their contents."""

import hashlib
import threading
from pathlib import Path, PurePosixPath

from icon_classifier.dataset.journal import read_moves
from icon_classifier.errors import ImageError
from icon_classifier.files import TEMPORARY_SUFFIX, write_file
from icon_classifier.images import read_format

# Files that operating systems leave in folders.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}


class PhotoStore:
    """The photos of one data folder, ``photos/<label>/<hash of the contents>.<kind>``.

    A photo that was moved away (to quarantine, to another label) is recorded in the journal of
    moves and is not added again when the same source is gathered again. Thread-safe.

    Parameters
    ----------
    root : Path
        The data folder.

    Attributes
    ----------
    photos : Path
        The folder that holds one folder for each label.
    """

    def __init__(self, root: Path) -> None:
        self.photos = root / "photos"
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], str] = {}
        for move in read_moves(root):
            moved = PurePosixPath(move.source)
            if moved.parts[0] == self.photos.name:
                self._known[moved.parent.name, moved.stem] = moved.name
        for path in photos_and_labels(self.photos)[0]:
            self._known[path.parent.name, path.stem] = path.name

    def add(self, label: str, data: bytes, fallback: str = "") -> str:
        """Write a photo, unless it was added before.

        Parameters
        ----------
        label : str
            Its label.
        data : bytes
            Its contents, of any kind.
        fallback : str
            Suffix for contents that are not a picture.

        Returns
        -------
        str
            The file's name.
        """
        stem = hashlib.sha256(data).hexdigest()[:20]
        name = stem + (suffix_of(data) or fallback.lower())
        with self._lock:
            if (label, stem) in self._known:
                return self._known[label, stem]
            self._known[label, stem] = name
        folder = self.photos / label
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, data)
        return name


def suffix_of(data: bytes) -> str | None:
    """Return the suffix that fits a picture's contents, or None if they are not a picture.

    Only the header is read: the picture may still be damaged.
    """
    try:
        kind = read_format(data)
    except ImageError:
        return None
    return _SUFFIXES.get(kind, f".{kind.lower()}")


def is_photo_name(name: str) -> bool:
    """Whether a file of this name may be a photo: not hidden, a system's or half-written."""
    name = name.casefold()
    incomplete = name.endswith((TEMPORARY_SUFFIX, ".part"))
    return not (name.startswith(".") or incomplete or name in _SYSTEM_FILES)


def photos_and_labels(photos: Path) -> tuple[list[Path], list[str]]:
    """List gathered photos and their labels.

    Parameters
    ----------
    photos : Path
        What :func:`~icon_classifier.dataset.gather.gather` returned.

    Returns
    -------
    paths : list of Path
        Sorted by label and name: the same order on every machine.
    labels : list of str
        The label of each, which is the name of its folder.
    """
    paths = sorted(
        each for each in Path(photos).glob("*/*") if is_photo_name(each.name) and each.is_file()
    )
    return paths, [each.parent.name for each in paths]
