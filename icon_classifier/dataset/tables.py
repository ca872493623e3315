"""Read the labels of photos from a table of file names and labels, as data sets come with."""

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

from icon_classifier.files import decode_text

Subset = Literal["train", "valid", "test"]
"""Photos to train on, to validate with, or to judge the finished model with."""

SUBSET_NAMES: dict[str, Subset] = {
    "training": "train",
    "train": "train",
    "validation": "valid",
    "valid": "valid",
    "val": "valid",
    "testing": "test",
    "test": "test",
}
"""What folders and tables call the subsets."""

_LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "class_name", "category", "target"),
    *("breed", "species", "variety", "dx", "diagnosis", "type", "y"),
)
"""Usual headers of the column of labels, the surest first."""

_SUBSET_COLUMNS = ("split", "set", "subset", "data set", "dataset", "is_valid")


class Table(NamedTuple):
    """What a table says: labels of photos, subsets if a column says them, and unknown names."""

    labels: dict[PurePosixPath, str]
    subsets: dict[PurePosixPath, Subset]
    missing: list[str]


def is_table(path: PurePosixPath) -> bool:
    """Whether a file is named like a table; a sample of a submission has made-up labels."""
    name = path.name.casefold()
    return name.endswith((".csv", ".tsv")) and "submission" not in name


def by_table(
    data: bytes, photos: Sequence[PurePosixPath], *, any_columns: bool = False
) -> Table | None:
    """Find the labels of photos in a table.

    Parameters
    ----------
    data : bytes
        The table: cells divided by commas, semicolons or tabs, in any usual encoding. A cell names
        a photo by its path, its name or its name without the suffix.
    photos : sequence of PurePosixPath
        All photos.
    any_columns : bool
        Take the column beside that of the photos for the labels, whatever it is called.

    Returns
    -------
    Table or None
        None if no column names photos, or none holds labels. A photo with two labels has none.
    """
    rows = _rows(data)
    tails = {tail for path in photos for tail in _tails(path)}
    columns = range(max(map(len, rows), default=0))
    for key_of in (_key, _last_key):  # the folders in it may be those of another machine
        # Different ones: the digits 0 to 9, as labels, are names of a few photos as well.
        cells = [{key_of(row[at]) for row in rows if len(row) > at} for at in columns]
        hits = [len(column & tails) for column in cells]
        if any(hits):
            break
    else:
        return None
    at_file = max(columns, key=hits.__getitem__)
    headed = not (len(rows[0]) > at_file and key_of(rows[0][at_file]) in tails)
    headers = [cell.strip().casefold() for cell in rows[0]] if headed else []
    others = [at for at in columns if at != at_file]
    at_subset = next((headers.index(name) for name in _SUBSET_COLUMNS if name in headers), None)
    others = [at for at in others if at != at_subset]
    known = [headers.index(name) for name in _LABEL_COLUMNS if name in headers]
    known = [at for at in known if at in others]
    if not known and len(others) != 1 and not (others and any_columns):
        return None
    at_label = (known or others)[0]

    labels: dict[str, str] = {}
    conflicts = set[str]()
    missing = []
    subsets: dict[str, Subset] = {}
    for row in rows[headed:]:
        if len(row) > max(at_file, at_label) and (label := row[at_label].strip()):
            key = key_of(row[at_file])
            if key and key not in tails:
                missing.append(row[at_file].strip())
            if labels.setdefault(key, label) != label:
                conflicts.add(key)
            if at_subset is not None and len(row) > at_subset:
                given = row[at_subset].strip().casefold()
                subsets[key] = SUBSET_NAMES.get(
                    given, "valid" if given in {"true", "1"} else "train"
                )
    for key in conflicts:
        del labels[key]
    found = {path: next((t for t in _tails(path) if t in labels), None) for path in photos}
    return Table(
        {path: labels[key] for path, key in found.items() if key is not None},
        {path: subsets[key] for path, key in found.items() if key in subsets},
        missing,
    )


def _rows(data: bytes) -> list[list[str]]:
    text = decode_text(data).lstrip()
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:
        return []
    return [row for row in rows if any(map(str.strip, row))]


def _key(cell: str) -> str:
    """Return a cell as it is compared with paths of photos."""
    path = unicodedata.normalize("NFC", cell.strip()).casefold().replace("\\", "/")
    return path.removeprefix("./").lstrip("/")


def _last_key(cell: str) -> str:
    return _key(cell).rpartition("/")[2]


def _tails(path: PurePosixPath) -> Iterator[str]:
    """Yield the path and its ends, the longest first, each with and without the suffix."""
    for at in range(len(path.parts)):
        tail = PurePosixPath(*path.parts[at:])
        yield _key(tail.as_posix())
        yield _key(tail.with_suffix("").as_posix())
