"""Judge a model on photos whose classes are known: ``icon-classifier evaluate FOLDER``."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from icon_classifier.cli.predict import Record, classify_files, find_photos
from icon_classifier.dataset.archive import read_folder
from icon_classifier.dataset.layout import find_layout
from icon_classifier.dataset.tables import is_table
from icon_classifier.errors import DatasetError
from icon_classifier.model.session import Model
from icon_classifier.training.evaluation import Figures, evaluate

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
    """

    figures: Figures
    wrong: list[Record]
    unreadable: list[Record]
    left_out: Counter[str]


def labelled_photos(
    folder: Path, labels: Sequence[str], others: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str | None]]:
    """Yield the photos of a folder, each with its class if it has one of the model's.

    Classes are found as in photos to train on: in names of folders, in tables, in names of files.

    Parameters
    ----------
    folder : Path
        Whose photos to yield, in order.
    labels : sequence of str
        The classes.
    others : mapping of str to str, optional
        Labels by other names that they may have there.

    Raises
    ------
    DatasetError
        There is no such folder.
    """
    tables = {path: data for path, data in read_folder(folder, is_table) if isinstance(data, bytes)}
    photos = {}
    for path in find_photos([str(folder)]):
        relative = Path(path).relative_to(folder).as_posix()
        photos[PurePosixPath(unicodedata.normalize("NFC", relative))] = path
    names = dict(others or {}) | {label: label for label in labels}
    layout = find_layout(photos, classes=names, tables=tables)
    for place, path in photos.items():
        found = layout.places.get(place)
        yield path, found.label if found else None


def judge(model: Model, photos: Iterable[tuple[str, str | None]], *, threads: int) -> Report:
    """Classify photos and compare the answers with their classes.

    Parameters
    ----------
    model : Model
        Opened with one thread.
    photos : iterable of (str, str or None)
        Paths and labels; those without a label are counted and left out.
    threads : int
        Photos that are classified at the same time.

    Raises
    ------
    DatasetError
        No photo has a label of the model, or none could be read.
    """
    expected: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for path, label in photos:
        if label is None:
            left_out[str(Path(path).parent)] += 1
        else:
            expected[path] = label
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
    )


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
    """Yield a report as Markdown, for a terminal and for the model card."""
    figures = report.figures
    low, high = figures.interval
    judged = [each for each in figures.classes if each.photos]
    recall = sum(each.recall for each in judged) / len(judged)
    yield (
        f"{figures.photos} photos, {figures.errors} wrong: {figures.error:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%}); mean recall {recall:.1%}."
    )
    if figures.accepted is not None and figures.accepted < 1:
        yield f'{1 - figures.accepted:.1%} are "not sure".'
    yield f"Probabilities are off by {figures.calibration_after:.1%} on average."
    yield ""
    width = max(len("class"), *(len(each.label) for each in figures.classes))
    yield f"| {'class':<{width}} | photos | precision | recall |"
    yield f"| {'-' * width} | -----: | --------: | -----: |"
    for each in figures.classes:
        precision = "none" if each.precision is None else f"{each.precision:.1%}"
        recall_text = f"{each.recall:.1%}" if each.photos else "none"
        yield f"| {each.label:<{width}} | {each.photos:>6} | {precision:>9} | {recall_text:>6} |"
    yield ""
    for true, row in zip(figures.classes, figures.confusion, strict=True):
        for guess, count in zip(figures.classes, row, strict=True):
            if count and guess is not true:
                yield f"- {true.label} taken for {guess.label}: {count}"
    for folder, count in report.left_out.most_common():
        yield f"- left out, because no class is named like {folder}: {count}"
    if report.unreadable:
        yield f"- cannot be read: {len(report.unreadable)}"


def wrong_table(report: Report) -> str:
    """Return the wrong answers as CSV."""
    file = io.StringIO()
    columns = ("path", "expected", "label", "probability", "known")
    table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(report.wrong)
    return file.getvalue()
