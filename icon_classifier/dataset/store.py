"""The folder of gathered photos: one folder per label, files named by their contents."""

import hashlib
import re
import threading
import unicodedata
from pathlib import Path, PurePosixPath

from icon_classifier.dataset.journal import JOURNAL, read_lines
from icon_classifier.errors import ImageError
from icon_classifier.files import TEMPORARY_SUFFIX, write_file
from icon_classifier.images import read_format

# Files that operating systems and photo services leave beside photos.
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
_OTHER_KINDS = (TEMPORARY_SUFFIX, ".part", ".csv", ".html", ".json", ".md", ".txt", ".xml")

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}


_ID_LENGTH = 20
_MAX_NAME = 60


class PhotoStore:
    """The photos of one data folder, ``photos/<label>/<hash of the contents>-<name>.<kind>``.

    A photo that was moved away (to quarantine, to another label) is recorded in the journal of
    moves and is not added again when the same source is gathered again. Thread-safe.

    Parameters
    ----------
    root : Path
        The data folder.
    mirror : bool
        Whether the source can be read again as a whole, as the user's own folder can. What an
        earlier run put into quarantine is then added again, because it may have been mended there.

    Attributes
    ----------
    photos : Path
        The folder that holds one folder for each label.
    """

    def __init__(self, root: Path, *, mirror: bool = False) -> None:
        self.photos = root / "photos"
        self._root = root
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], str] = {}
        self._added: set[tuple[str, str]] = set()
        self._origins: dict[PurePosixPath, tuple[str, str]] = {}
        for line in read_lines(root / JOURNAL):
            if "kind" in line:
                source, target = PurePosixPath(line["source"]), PurePosixPath(line["target"])
                origin = self._origins.pop(source, _key(source))
                self._origins[target] = origin
                if mirror and line["kind"] == "quarantine":
                    (root / target).unlink(missing_ok=True)
                    self._known.pop(origin, None)
                elif source.parts[0] == self.photos.name:
                    self._known[origin] = source.name
        for path in photos_and_labels(self.photos)[0]:
            self._known[_key(path)] = path.name

    def add(self, label: str, data: bytes, original: str = "") -> str:
        """Write a photo, unless it was added before.

        Parameters
        ----------
        label : str
            Its label.
        data : bytes
            Its contents, of any kind.
        original : str
            The name of the user's file. It becomes a part of the name, and its suffix is that of
            contents which are not a picture.

        Returns
        -------
        str
            The file's name.
        """
        label = unicodedata.normalize("NFC", label)
        key = label, hashlib.sha256(data).hexdigest()[:_ID_LENGTH]
        given = PurePosixPath(original)
        words = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", given.stem))[:_MAX_NAME]
        name = "-".join(filter(None, (key[1], words)))
        name += suffix_of(data) or given.suffix.lower()
        with self._lock:
            self._added.add(key)
            if key in self._known:
                return self._known[key]
            self._known[key] = name
        folder = self.photos / label
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, data)
        return name

    def remove_others(self) -> int:
        """Remove photos, and their originals, that were not added since this store was opened.

        Returns
        -------
        int
            How many photos were removed.
        """
        removed = 0
        for folder in (self.photos, self._root / "originals"):
            for path in photos_and_labels(folder)[0]:
                place = PurePosixPath(path.relative_to(self._root).as_posix())
                if not {_key(path), self._origins.get(place, _key(path))} & self._added:
                    path.unlink()
                    removed += folder == self.photos
        return removed


def _key(path: Path | PurePosixPath) -> tuple[str, str]:
    """Return the label of a stored photo and the hash that its name starts with."""
    return path.parent.name, path.stem[:_ID_LENGTH]


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
    """Whether a file of this name may be a photo: not hidden, a system's, text or half-written."""
    name = name.casefold()
    return not (name.startswith(".") or name.endswith(_OTHER_KINDS) or name in _SYSTEM_FILES)


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
