"""Find the class and the subset of each photo from folders, a table or the names of files."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from icon_classifier.dataset.tables import SUBSET_NAMES, Subset, by_table
from icon_classifier.errors import DatasetError
from icon_classifier.files import NO_CLASS, TEMPORARY_SUFFIX, folder_name
from icon_classifier.formats import SUFFIXES

Labels = dict[PurePosixPath, str]

_THINGS = "images?|imgs?|photos?|pictures?|pics?|data|set|dataset"
_SUBSET = re.compile(
    rf"(?:(?:{_THINGS})[\s_-]*)?({'|'.join(SUBSET_NAMES)})(?:[\s_-]*(?:{_THINGS}|\d+))?"
)
"""A name of a folder that holds one subset, ``train`` or ``test_images`` say."""

_NUMBERED = re.compile(r"(.*[^\W\d_].*?)[\s_.()#-]*\d[\d\s_.()#-]*")
"""A name of a file with a class in front of a number: ``cat_12``, ``cat.0``, ``cat (1)``."""

_OF_CAMERAS = re.compile(
    r"(img|image|photo|picture|pic|foto|bild|dsc[nf]?|dcim|pxl|mvimg|vid|gopr|wp|p|file|frame|scan"
    r"|download|untitled|(whatsapp|signal|screen).*)"
)
"""What cameras and programs write in front of a number."""

_HIDDEN = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}
"""What operating systems leave beside photos; names that begin with a dot are hidden as well."""

_OTHER_KINDS = (TEMPORARY_SUFFIX, ".part", ".csv", ".tsv", ".html", ".json", ".md", ".txt", ".xml")

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")

_MIN_SHARE = 0.9
"""Share of the photos that must have a numbered class in their names to take it for one."""


class Place(NamedTuple):
    """Where a photo belongs."""

    label: str
    subset: Subset


@dataclass(frozen=True)
class _LabelSource:
    """The labels that folders, tables or file names give."""

    labels_from: str
    labels: Labels
    subsets: dict[PurePosixPath, Subset] = field(default_factory=dict)
    tables: Sequence[PurePosixPath] = ()
    missing: dict[PurePosixPath, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """What the names of files say of photos.

    Attributes
    ----------
    places : dict of PurePosixPath to Place
        The photos that have a class.
    left_out : dict of PurePosixPath to str
        All other files but the tables that were used, and why they are left out; photos that a
        table names and that are not there are among them.
    labels_from : str
        What the labels were taken from: "the folders", "the names of files", or a table's name.
    unknown : Counter of str
        Names that were found in place of the classes, and the number of their photos.
    """

    places: dict[PurePosixPath, Place]
    left_out: dict[PurePosixPath, str]
    labels_from: str
    unknown: Counter[str]


def find_layout(
    files: Iterable[PurePosixPath],
    *,
    classes: Mapping[str, str] | None = None,
    tables: Mapping[PurePosixPath, bytes] | None = None,
    table: str | None = None,
    pattern: str | None = None,
) -> Layout:
    """Find the class and the subset of each photo.

    Labels are looked for in the folders first, then in tables, then in the names of the files; the
    first that has all classes counts, or else the one with the most. A folder named ``train``,
    ``valid`` or ``test`` around a photo is its subset. Where none is to train on, those of
    ``valid`` are, and those of ``test`` only where there are no others.

    Parameters
    ----------
    files : iterable of PurePosixPath
        All files, relative to the same folder.
    classes : mapping of str to str, optional
        The label for each name that a class may have; photos of other classes are left out. All
        names that are found are classes if not given.
    tables : mapping of PurePosixPath to bytes, optional
        The contents of the tables among the files.
    table : str, optional
        Name of the one table that holds the labels.
    pattern : str, optional
        A regular expression that is searched for in the path of each photo; its first group is
        the label.

    Raises
    ------
    DatasetError
        If the table is missing or names no photo.
    """
    left_out: dict[PurePosixPath, str] = {}
    photos = []
    for path in files:
        if why := why_no_photo(path):
            left_out[path] = why
        else:
            photos.append(path)
    # Whatever else lies there, a film say, must not count as a folder of a class.
    named = [path for path in photos if path.name.casefold().endswith(SUFFIXES)] or photos
    names = {_words(name): label for name, label in (classes or {}).items()}
    enough = len(set(names.values())) or 2
    best, chosen = (-1, 0), _LabelSource("the folders", {})
    for source in _label_sources(named, photos, names, dict(tables or {}), table, pattern):
        labels = [label for each in source.labels.values() if (label := _label(each, names))]
        count = len(set(labels)), len(labels)
        if count > best:
            best, chosen = count, source
        if len(set(labels)) >= enough:
            break
    raw = chosen.labels
    places: dict[PurePosixPath, Place] = {}
    unknown: Counter[str] = Counter()
    spelt: dict[str, str] = {}  # Cat and cat are one class
    around = set(named[0].parent.parts) if named else set()
    around.intersection_update(*(path.parent.parts for path in named))
    outermost, likely = _by_places(named), set(named)
    for path in photos:
        if (label := _label(raw.get(path), names)) is None:
            unknown[raw.get(path) or outermost(path) or path.parent.name] += path in likely
            left_out[path] = f"no single class is found in {chosen.labels_from}"
        else:
            subset = chosen.subsets.get(path) or _subset(path, around | {raw[path]})
            places[path] = Place(spelt.setdefault(_fold(label), label), subset)
    subsets = {place.subset for place in places.values()}
    to_train = next((name for name in ("train", "valid", "test") if name in subsets), None)
    places |= {
        path: place._replace(subset="train")
        for path, place in places.items()
        if place.subset == to_train
    }
    left_out = {path: why for path, why in left_out.items() if path not in chosen.tables}
    return Layout(places, left_out | chosen.missing, chosen.labels_from, +unknown)


def _fold(name: str) -> str:
    """Return a name as it is compared: composed, without the difference of capital letters."""
    return unicodedata.normalize("NFC", name).casefold()


def _words(name: str) -> str:
    """Return a name as it is compared with those of known classes."""
    return " ".join(_fold(name).replace("_", " ").split())


def why_no_photo(path: PurePosixPath) -> str | None:
    """Say why a file of this name is no photo; None where it may be one."""
    if any(part.startswith(".") or part.casefold() in _HIDDEN for part in path.parts):
        return "hidden"
    if NO_CLASS in path.parts:
        return "it shows none of the classes"
    if path.name.casefold().endswith(_ARCHIVES):
        return "an archive within: unpack it first"
    if path.name.casefold().endswith(_OTHER_KINDS):
        return f"not a photo ({path.suffix.lower()})"
    return None


def _label(name: str | None, names: Mapping[str, str]) -> str | None:
    """Return the label for a name that was found: as it is, or as the known classes have it."""
    if name is None:
        return None
    if names:
        return names.get(_words(name))
    return folder_name(name) or None


def _label_sources(
    named: Sequence[PurePosixPath],
    photos: Sequence[PurePosixPath],
    names: Mapping[str, str],
    tables: dict[PurePosixPath, bytes],
    table: str | None,
    pattern: str | None,
) -> Iterator[_LabelSource]:
    """Yield the labels that each source gives, the surest first."""
    if pattern is not None:
        matches = ((path, re.search(pattern, path.as_posix())) for path in photos)
        yield _LabelSource(
            "the names of files", {path: found[1] for path, found in matches if found}
        )
        return
    if table is None:
        label_of = _by_names(names) if names else _by_places(named)
        labels = ((path, label_of(path)) for path in photos)
        yield _LabelSource(
            "the folders", {path: label for path, label in labels if label is not None}
        )
    else:
        tables = {path: data for path, data in tables.items() if path.name == table}
        if not tables:
            raise DatasetError(f"there is no table {table} among the files")
    yield from _by_tables(named, tables, table)
    if table is None:
        yield _LabelSource("the names of files", _by_numbered_names(named, names))


def _by_tables(
    photos: Sequence[PurePosixPath], tables: Mapping[PurePosixPath, bytes], chosen: str | None
) -> Iterator[_LabelSource]:
    """Merge the tables; where several are named like subsets, they are those of their photos."""
    labels: Labels = {}
    subsets: dict[PurePosixPath, Subset] = {}
    missing: dict[PurePosixPath, str] = {}
    used = []
    named_subsets = len({name for path in tables if (name := subset_of(path.stem))}) > 1
    for table, data in sorted(tables.items()):
        found = by_table(data, photos, any_columns=chosen is not None)
        if found is not None:
            used.append(table)
            subset = subset_of(table.stem) if named_subsets else None
            stated = dict.fromkeys(found.labels, subset) if subset else {}
            labels = found.labels | labels
            subsets = stated | found.subsets | subsets
            why = f"named in {table.name}, but there is no such file"
            missing |= dict.fromkeys(map(PurePosixPath, found.missing), why)
    if used:
        yield _LabelSource(", ".join(path.name for path in used), labels, subsets, used, missing)
    elif chosen is not None:
        raise DatasetError(
            f"{chosen}: expected a column with names of photos and one with labels, "
            "named 'file' and 'label' if there are more columns"
        )


def _by_names(labels: Mapping[str, str]) -> Callable[[PurePosixPath], str | None]:
    """Return a function that finds the innermost folder which is named like a class."""

    def label_of(path: PurePosixPath) -> str | None:
        parts = path.parent.parts
        return next((part for part in reversed(parts) if _words(part) in labels), None)

    return label_of


def _by_places(paths: Iterable[PurePosixPath]) -> Callable[[PurePosixPath], str | None]:
    """Return a function that finds the outermost folder which distinguishes photos.

    Folders around all photos, and then those of subsets, are no classes; folders within a class,
    ``cat/indoor`` say, belong to it.

    Parameters
    ----------
    paths : iterable of PurePosixPath
        All photos, relative to the same folder. One that lies in no folder has no class.
    """
    folders = {path.parent.parts for path in paths if path.parent.parts}
    depth = 0
    while len({parts[depth] for parts in folders}) == 1:
        within = {parts for parts in folders if len(parts) > depth + 1}
        if not within:
            break
        folders, depth = within, depth + 1
    only_subsets = all(subset_of(parts[depth]) for parts in folders)

    def label_of(path: PurePosixPath) -> str | None:
        parts = path.parent.parts[depth:]
        if parts and subset_of(parts[0]) and (only_subsets or len(parts) > 1):
            parts = parts[1:]
        return parts[0] if parts else None

    return label_of


def _by_numbered_names(photos: Sequence[PurePosixPath], names: Mapping[str, str]) -> Labels:
    """Find classes in names like ``cat_12.jpg``, unless too few are, or a camera wrote them."""
    labels: Labels = {}
    for path in photos:
        found = _NUMBERED.fullmatch(path.stem)
        if found and not _OF_CAMERAS.fullmatch(_fold(found[1])):
            labels[path] = found[1]
    if names:
        return labels
    counts = Counter(map(_fold, labels.values()))
    labels = {path: label for path, label in labels.items() if counts[_fold(label)] > 1}
    return labels if len(labels) >= _MIN_SHARE * len(photos) else {}


def subset_of(name: str) -> Subset | None:
    """Return the subset that a folder of this name holds, if it is named like one."""
    found = _SUBSET.fullmatch(_fold(name))
    return SUBSET_NAMES[found[1]] if found else None


def _subset(path: PurePosixPath, others: Set[str]) -> Subset:
    """Return the subset that a folder around a photo names, other than those that name none."""
    subsets = (subset_of(name) for name in path.parent.parts if name not in others)
    return next((subset for subset in subsets if subset), "train")
