"""Judge a model on photos whose classes are known: ``icon-classifier evaluate FOLDER``."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from icon_classifier.cli.predict import Record, classify_files, find_photos
from icon_classifier.dataset.layout import Place, find_layout, subset_of
from icon_classifier.dataset.sources.archive import read_folder
from icon_classifier.dataset.tables import is_table
from icon_classifier.errors import DatasetError
from icon_classifier.model.session import Model
from icon_classifier.system.texts import csv_line, printable
from icon_classifier.training.evaluation import Figures, evaluate
from icon_classifier.training.model_card import class_rows

MAX_LISTED = 20
"""How many photos of a kind, and pairs of classes, are printed; --json has all."""

TEST_ALONE = (
    "Only the test set is judged: the model may have been trained on the others ({} photos)."
)
MAYBE_TRAINED = (
    "If the model was trained on some of these photos, it looks better here than it is: evaluate "
    "it on photos that it has never seen."
)

_MIN_PROBABILITY = 1e-6
"""Records hold six digits; the logarithm of zero is not finite."""


@dataclass(frozen=True)
class Report:
    """What a model answered on photos whose classes are known.

    Attributes
    ----------
    figures : Figures
        Over all photos that could be read; a "not sure" counts by its closest class.
    wrong : list of Record
        The wrong answers, the most certain first, each with its true class as ``expected``.
    unreadable : list of Record
        Photos that could not be read.
    left_out : Counter
        Number of photos in folders that are not named like a class, by folder.
    note : str
        Whether the model may have been trained on these photos; empty for a test set.
    """

    figures: Figures
    wrong: list[Record]
    unreadable: list[Record]
    left_out: Counter[str]
    note: str = ""

    def __str__(self) -> str:
        return "\n".join(report_lines(self))


def evaluate_folder(model: Model, folder: Path, *, threads: int) -> Report:
    """Classify the photos of a folder, and compare the answers with their classes.

    Of a folder that holds a test set and others, only the test set is judged.

    Parameters
    ----------
    model : Model
        Opened with one thread.
    folder : Path
        Photos whose classes are found as in photos to train on: in names of folders, in a table, in
        names of files. Classes may have their names of the training or of the page.
    threads : int
        Photos that are classified at the same time.

    Raises
    ------
    DatasetError
        There is no such folder, no photo has a label of the model, or none could be read.
    """
    names = dict(zip(model.info.raw.get("vocab", ()), model.labels, strict=False))
    photos = dict(_find(folder, names | {label: label for label in model.labels}))
    note = "" if subset_of(folder.resolve().name) == "test" else MAYBE_TRAINED
    others = [path for path, place in photos.items() if place and place.subset != "test"]
    if any(place and place.subset == "test" for place in photos.values()):
        note = TEST_ALONE.format(len(others))
        for path in others:
            del photos[path]
    expected = {path: place.label for path, place in photos.items() if place}
    left_out = Counter(str(Path(path).parent) for path in photos if path not in expected)
    records = [
        record | {"expected": expected[record["path"]]}
        for record in classify_files(model, expected, threads=threads)
    ]
    read = [record for record in records if "label" in record]
    if not read:
        folders = ", ".join(f"{name} ({count})" for name, count in left_out.most_common(8))
        raise DatasetError(
            f"expected photos in folders named like the classes ({', '.join(model.labels)}), "
            f"got {folders or 'none that can be read'}"
        )
    wrong = [record for record in read if record["label"] != record["expected"]]
    return Report(
        _figures(read, model.labels),
        sorted(wrong, key=lambda record: -record["probability"]),
        [record for record in records if "error" in record],
        left_out,
        note,
    )


def _find(folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, Place | None]]:
    """Yield the photos of a folder in order, and where each belongs.

    Parameters
    ----------
    folder : Path
        Their classes are found as in photos to train on.
    names : mapping of str to str
        The label for each name that a class may have there.
    """
    tables = {path: data for path, data in read_folder(folder, is_table) if isinstance(data, bytes)}
    photos = {}
    for path in find_photos([str(folder)]):
        relative = Path(path).relative_to(folder).as_posix()
        photos[PurePosixPath(unicodedata.normalize("NFC", relative))] = path
    layout = find_layout(photos, classes=names, tables=tables)
    for place, path in photos.items():
        yield path, layout.places.get(place)


def _figures(records: Sequence[Record], labels: Sequence[str]) -> Figures:
    position = {label: index for index, label in enumerate(labels)}
    probabilities = np.zeros((len(records), len(labels)))
    for row, record in enumerate(records):
        for entry in record["ranking"]:
            probabilities[row, position[entry["label"]]] = entry["probability"]
    return evaluate(
        np.log(np.maximum(probabilities, _MIN_PROBABILITY)),
        [position[record["expected"]] for record in records],
        labels,
        scores=[float(record["known"]) for record in records],
        threshold=0.5,
    )


def report_lines(report: Report) -> Iterator[str]:
    """Yield the figures as Markdown, for a terminal and for the model card."""
    figures = report.figures
    low, high = figures.interval
    yield (
        f"{figures.photos} photos, {figures.errors} wrong: {figures.error:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}); mean recall {figures.mean_recall:.1%}."
    )
    if report.note:
        yield report.note
    if figures.accepted is not None:
        yield f'{1 - figures.accepted:.1%} are "not sure".'
    yield f"Probabilities are off by {figures.calibration_after:.1%} on average."
    yield ""
    rows = [("class", "recall", "precision")]
    rows += [(_cell(label), recall, precision) for label, recall, precision in class_rows(figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            lines = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            yield f"| {' | '.join(lines)} |"
    yield ""
    confused = Counter(
        {
            f"- {_cell(true.label)} taken for {_cell(guess.label)}": count
            for true, counts in zip(figures.classes, figures.confusion, strict=True)
            for guess, count in zip(figures.classes, counts, strict=True)
            if guess is not true and count
        }
    )
    for pair, count in confused.most_common(MAX_LISTED):
        yield f"{pair}: {count}"
    if len(confused) > MAX_LISTED:
        yield f"- and {len(confused) - MAX_LISTED} more pairs of classes"


def _cell(text: str) -> str:
    return printable(text).replace("|", r"\|")


def remarks(report: Report) -> Iterator[str]:
    """Yield which photos were not judged, and which were answered wrong: the first of each."""
    for folder, count in report.left_out.most_common(MAX_LISTED):
        photos = "1 photo" if count == 1 else f"{count} photos"
        yield f"left out: {photos} in {printable(folder)}, which is not a class of the model"
    for record in report.unreadable[:MAX_LISTED]:
        yield f"{printable(record['path'])}: {record['error']}"
    for record in report.wrong[:MAX_LISTED]:
        sure = "" if record["known"] else ", not sure"
        yield printable(
            f"{record['path']}: {record['expected']} was taken for {record['label']} "
            f"({record['probability']:.3f}{sure})"
        )
    for what, records in (("cannot be read", report.unreadable), ("wrong", report.wrong)):
        if len(records) > MAX_LISTED:
            yield f"and {len(records) - MAX_LISTED} more: {what}"


def to_json(report: Report) -> dict[str, Any]:
    """Convert a report to builtins: the figures, and the photos beside them."""
    return report.figures.to_json() | {
        "wrong": report.wrong,
        "unreadable": report.unreadable,
        "left_out": dict(report.left_out),
        "note": report.note,
    }


def wrong_table(report: Report) -> str:
    """Return the wrong answers as CSV."""
    columns = ("path", "expected", "label", "probability", "known")
    rows = [columns, *([record[name] for name in columns] for record in report.wrong)]
    return "".join(f"{csv_line(row)}\n" for row in rows)
