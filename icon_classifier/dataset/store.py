"""The folders of gathered photos: one folder per label, files named by their contents."""

import contextlib
import hashlib
import re
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from icon_classifier.dataset.journal import moves_in_effect
from icon_classifier.dataset.json_lines import read_lines
from icon_classifier.dataset.layout import why_no_photo
from icon_classifier.dataset.tables import Subset
from icon_classifier.errors import ImageError
from icon_classifier.files import write_file
from icon_classifier.images import read_format

TEST = "test"
"""The folder of the test set beside that of the photos."""

GATHERED = "gathered.jsonl"
"""One line for each file of the source: what photo it became, or why it was left out."""

_QUARANTINE = "quarantine"

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "HEIF": ".heic"}

_ID_LENGTH = 20
_ID = re.compile(rf"[0-9a-f]{{{_ID_LENGTH}}}(?![0-9a-f])-?")
_MAX_NAME = 40
"""Most characters of the user's name: with four bytes each, the whole name has less than 255."""

_Key = tuple[str, str, str]
"""``photos`` or ``test``, the label, and the hash of the contents."""


class PhotoStore:
    """The photos of one data folder, ``photos/<label>/<hash of the contents>-<name>.<kind>``.

    Those of a test set are in ``test/`` in place of ``photos/``. A photo that the cleaner moved
    stays where it was moved to when the same source is gathered again. Thread-safe.

    Parameters
    ----------
    root : Path
        The data folder.
    mirror : bool
        Whether the source is read again as a whole, as the user's own folder is. What an earlier
        run put into quarantine is then added again, because it may have been mended there.

    Attributes
    ----------
    photos, test : Path
        The folders that hold one folder for each label.
    """

    def __init__(self, root: Path, *, mirror: bool = False) -> None:
        self.photos = root / "photos"
        self.test = root / TEST
        self._root = root
        self._lock = threading.Lock()
        self._known: dict[_Key, str] = {}
        self._added: set[_Key] = set()
        self._moved: dict[_Key, _Key] = {}
        came_from: dict[_Key, _Key] = {}
        quarantined: dict[PurePosixPath, PurePosixPath] = {}
        for kind, move in moves_in_effect(root):
            source, target = PurePosixPath(move.source), PurePosixPath(move.target)
            if kind == "quarantine":
                quarantined[target] = source
            elif kind == "cleaner":
                quarantined.pop(target, None)  # came back, and was then moved there by hand
                first = came_from.pop(_key(source), _key(source))
                self._moved[first] = _key(target)
                came_from[_key(target)] = first
                if target.parts[0] == _QUARANTINE:
                    self._known[_key(target)] = target.name
        for target, source in quarantined.items():
            if mirror:
                (root / target).unlink(missing_ok=True)
            else:
                self._known[_key(source)] = source.name
        for path in (*photos_and_labels(self.photos)[0], *photos_and_labels(self.test)[0]):
            self._known[_key(path)] = path.name

    def add(self, label: str, data: bytes, original: str = "", subset: Subset = "train") -> str:
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
        subset : {"train", "valid", "test"}
            What it is for.

        Returns
        -------
        str
            The file's name.
        """
        identity = hashlib.sha256(data).hexdigest()[:_ID_LENGTH]
        key = (self.test if subset == "test" else self.photos).name, label, identity
        given = PurePosixPath(original)
        words = re.sub(r"[^\w.-]+", "_", given.stem)[:_MAX_NAME]
        name = "-".join(filter(None, (identity, words)))
        name += suffix_of(data) or given.suffix.lower()
        with self._lock:
            key = self._moved.get(key, key)
            self._added.add(key)
            if key in self._known:
                return self._known[key]
            self._known[key] = name
        folder = self._root / key[0] / key[1]
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, data)
        return name

    def remove(self, label: str, identity: str) -> None:
        """Remove a photo to train on, also if it was moved or rewritten, unless this run added it.

        Parameters
        ----------
        label : str
            The label that it was added with.
        identity : str
            What :func:`photo_id` returns for its name.
        """
        key = (self.photos.name, label, identity)
        moved = self._moved.get(key, key)
        if moved not in self._added:
            for tree in (self.photos.name, "originals", _QUARANTINE):
                for folder in {label, moved[1]}:
                    for path in (self._root / tree / folder).glob(f"{identity}*"):
                        path.unlink()

    def remove_others(self) -> None:
        """Remove photos that were not added since this store was opened, moved ones too."""
        for name in (self.photos.name, TEST, "originals", _QUARANTINE):
            tree = self.photos.name if name == "originals" else name
            for path in photos_and_labels(self._root / name)[0]:
                if _ID.match(path.name) and (tree, *_key(path)[1:]) not in self._added:
                    path.unlink()
            for each in (self._root / name).glob("*/"):
                with contextlib.suppress(OSError):  # there are photos in it
                    each.rmdir()  # an empty folder would be a class without photos


def _key(path: Path | PurePosixPath) -> _Key:
    """Return the folder, the label and the hash of a stored photo."""
    return path.parent.parent.name, path.parent.name, photo_id(path.name)


def photo_id(name: str) -> str:
    """Return the part of a stored photo's name which no move and no rewriting changes."""
    return name[:_ID_LENGTH]


def original_name(path: Path) -> str:
    """Return the name that the user's file had, as far as a stored photo's name keeps it."""
    name = _ID.sub("", path.name, count=1)
    return path.name if not name or name == path.suffix else name


def valid_indices(paths: Sequence[Path]) -> list[int]:
    """Return the indices of the photos that the user's own folder or table keeps for validation.

    Parameters
    ----------
    paths : sequence of Path
        As :func:`photos_and_labels` returns them.
    """
    if not paths:
        return []
    lines = read_lines(paths[0].parents[2] / GATHERED)
    valid = {photo_id(line["photo"]) for line in lines if line.get("subset") == "valid"}
    return [index for index, path in enumerate(paths) if photo_id(path.name) in valid]


def suffix_of(data: bytes) -> str | None:
    """Return the suffix that fits a picture's contents, or None if they are not a picture.

    Only the header is read: the picture may still be damaged.
    """
    try:
        kind = read_format(data)
    except ImageError:
        return None
    return _SUFFIXES.get(kind, f".{kind.lower()}")


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
        each
        for each in Path(photos).glob("*/*")
        if why_no_photo(PurePosixPath(each.name)) is None and each.is_file()
    )
    return paths, [each.parent.name for each in paths]
