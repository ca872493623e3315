"""Copy the photos of a folder or an archive to a data folder, and record the outcome of each file.

A later run makes the data folder hold what is in the folder or archive by then, and no more.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from icon_classifier.dataset.json_lines import read_lines, write_lines
from icon_classifier.dataset.layout import Layout, find_layout, why_no_photo
from icon_classifier.dataset.recipes import Recipe
from icon_classifier.dataset.sources.archive import EMPTY_FOLDER, Content, Wanted, read_folder
from icon_classifier.dataset.store import (
    GATHERED,
    PhotoStore,
    photo_id,
    photos_and_labels,
    suffix_of,
)
from icon_classifier.dataset.tables import is_table
from icon_classifier.errors import DatasetError
from icon_classifier.formats import SUFFIXES

_log = logging.getLogger(__name__)

Reader = Callable[[Wanted], Iterator[tuple[PurePosixPath, Content]]]
"""Yields the files of a folder or an archive, with the contents of those that are wanted."""


def list_files(read: Reader, recipe: Recipe) -> Layout:
    """Find the class of each file of a folder or an archive, by the names and the tables alone."""
    tables: dict[PurePosixPath, bytes] = {}
    files = []
    unread = {}
    for path, content in read(is_table):
        if isinstance(content, str):
            unread[path] = why_no_photo(path) or content
        else:
            files.append(path)
        if isinstance(content, bytes):
            tables[path] = content
    layout = find_layout(
        files,
        classes={name: each.name for each in recipe.classes for name in (each.name, *each.folders)},
        tables=tables,
        table=recipe.folder.table,
        pattern=recipe.folder.pattern,
    )
    layout = replace(layout, left_out=unread | layout.left_out)
    labels = [label for label, subset in layout.places.values() if subset != "test"]
    check_classes(labels, recipe, layout.unknown, Counter(layout.left_out.values()))
    return layout


def add_files(
    read: Reader, layout: Layout, recipe: Recipe, root: Path, further: str | Path | None
) -> Path:
    """Make the data folder hold the photos of a folder or an archive, and no others."""
    before = read_lines(root / GATHERED)
    store = PhotoStore(root, mirror=True)
    lines = _copy_photos(read, layout, store)
    first: dict[tuple[str, str], str] = {}
    for line in lines:
        if "photo" in line:
            copied = first.setdefault((line["label"], line["photo"]), line["file"])
            if copied != line["file"]:
                line["left_out"] = f"a copy of {copied}"
    added = [line["label"] for line in lines if "photo" in line and line["subset"] != "test"]
    reasons = Counter(line["left_out"] for line in lines if "photo" not in line)
    check_classes(added, recipe, layout.unknown, reasons)
    add_further(further, added, store, root)
    store.remove_others()
    about = {"labels_from": layout.labels_from, "changes": _changes(before, lines)}
    write_lines(root / GATHERED, [about, *lines])
    return store.photos


def add_further(
    further: str | Path | None, labels: Iterable[str], store: PhotoStore, root: Path
) -> None:
    """Make the data folder hold the photos of a further folder too, and none that left it."""
    record = root / "further.jsonl"
    earlier = _labels_and_ids(read_lines(record))
    if further is None and not earlier:
        return
    there = photos_and_labels(store.photos)[0]
    own = {(path.parent.name, photo_id(path.name)) for path in there} - earlier
    lines = []
    if further is not None:
        read = partial(read_folder, Path(further).expanduser(), skip=root)
        files = [path for path, content in read(lambda _: False) if content != EMPTY_FOLDER]
        layout = find_layout(files, classes={label: label for label in labels})
        outside = Counter(path.parts[0] if path.parts[1:] else "" for path in layout.left_out)
        if outside:
            _log.warning("further files of no class were left out, in: %s", _counts(outside))
        tests = [path for path, place in layout.places.items() if place.subset == "test"]
        left_out = layout.left_out | dict.fromkeys(tests, "of a test set")
        places = {path: place for path, place in layout.places.items() if path not in left_out}
        lines = _copy_photos(read, replace(layout, places=places, left_out=left_out), store)
        for line in lines:
            if _labels_and_ids([line]) & own:
                line["left_out"] = f"a copy of {line.pop('photo')}"
    for label, identity in earlier - _labels_and_ids(lines):
        store.remove(label, identity)
    write_lines(record, lines)


def _labels_and_ids(lines: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(line["label"], photo_id(line["photo"])) for line in lines if "photo" in line}


def _copy_photos(read: Reader, layout: Layout, store: PhotoStore) -> list[dict[str, Any]]:
    """Copy photos to their classes and subsets; return a line for each file: its outcome."""
    lines: list[dict[str, Any]] = [
        {"file": str(path), "left_out": why} for path, why in layout.left_out.items()
    ]
    for path, content in read(layout.places.__contains__):
        if path not in layout.places:
            continue
        label, subset = layout.places[path]
        line = {"file": str(path), "label": label, "subset": subset}
        if isinstance(content, bytes) and not _is_photo(path, content):
            content = f"not a photo ({path.suffix.lower()})" if path.suffix else "not a photo"
        if isinstance(content, bytes):
            line["photo"] = store.add(label, content, path.name, subset)
        else:
            line["left_out"] = str(content)
        lines.append(line)
    return lines


def _changes(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> dict[str, int]:
    """Count the photos that were added, removed or moved since the last run, if there was one."""
    places: list[dict[str, set[tuple[str, str]]]] = []
    for lines in (before, now):
        places.append({})
        for line in lines:
            if "photo" in line:
                subset = line.get("subset", "train")  # records of earlier versions have none
                places[-1].setdefault(photo_id(line["photo"]), set()).add((line["label"], subset))
    old, new = places
    if not old:
        return {}
    return {
        "added": len(new.keys() - old.keys()),
        "removed": len(old.keys() - new.keys()),
        "moved to another class or set": sum(old[each] != new[each] for each in old & new.keys()),
    }


def _is_photo(path: PurePosixPath, content: bytes) -> bool:
    """Whether a file is named like a photo or is one: a damaged photo is none of a film's kind."""
    return path.name.casefold().endswith(SUFFIXES) or suffix_of(content) is not None


def check_classes(
    labels: Iterable[str], recipe: Recipe, unknown: Counter[str], left_out: Counter[str]
) -> None:
    """Raise DatasetError if a class of the recipe has no photos, or fewer than two have any."""
    found = set(labels)
    if empty := [label for label in recipe.labels if label not in found]:
        why = f"; left out: {_counts(left_out)}" if left_out else ""
        if unknown:
            why = (
                f"; found instead: {_counts(unknown)}. Name the folders like the classes, or leave "
                "the recipe out: they then name them"
            )
        raise DatasetError(f"there are no photos of {', '.join(empty)}{why}")
    if len(found) < 2:
        raise DatasetError(
            "expected photos of at least two classes: a folder for each, names like cat_1.jpg, or "
            "a table (CSV) of file names and labels; got "
            + (f"only {next(iter(found))!r}" if found else "none")
            + (f"; left out: {_counts(left_out)}" if left_out else "")
            + (f"; without a class: {_counts(unknown)}" if unknown else "")
        )


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name or '(no folder)'} ({n})" for name, n in counter.most_common(8))
