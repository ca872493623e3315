"""Say what was gathered and cleaned, with small pictures of what a person should look at."""

import base64
import html
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icon_classifier.dataset.clean import CleanReport
from icon_classifier.dataset.journal import JOURNAL, read_moves
from icon_classifier.dataset.json_lines import read_lines
from icon_classifier.dataset.sources.download import RECORD
from icon_classifier.dataset.store import GATHERED, original_name, valid_indices
from icon_classifier.errors import ImageError
from icon_classifier.images import read_image_file, thumbnail
from icon_classifier.system.texts import printable

_MAX_PICTURES = 12
"""Most pairs and photos in quarantine that are shown."""

_MAX_REASONS = 12

_MAX_NAMES = 3
"""Most files that are named for each reason."""

_SIDE = 96
"""Longer side of the small pictures, in pixels."""


@dataclass(frozen=True)
class Row:
    """The photos of one class.

    Attributes
    ----------
    label : str
        The class.
    photos : int
        How many there are to train on, those for validation included.
    valid, test : int
        How many the user's own sets keep for validation, and for the test at the end.
    near : int
        How many are near-duplicates of another photo.
    copies : int
        How many exact copies were left out.
    quarantined : int
        How many are in quarantine.
    """

    label: str
    photos: int
    valid: int
    test: int
    near: int
    copies: int
    quarantined: int


@dataclass(frozen=True)
class Summary:
    """What was gathered and cleaned; printed as text, and by a notebook as a table with pictures.

    Attributes
    ----------
    rows : tuple of Row
        One for each class.
    labels_from : str
        What the labels were taken from.
    changes : dict of str to int
        How many photos were added, removed and moved since the last run, if there was one.
    left_out : dict of str to list of str
        Files that were left out, by the reason.
    quarantined : tuple of (Path, str)
        Photos in quarantine, and why.
    test : Path or None
        The folder of the test set, if there is one.
    conflicts, test_copies : tuple of (Path, Path)
        As in :class:`~icon_classifier.dataset.clean.CleanReport`.
    records : tuple of Path
        The files that name every photo which was left out or moved.
    """

    rows: tuple[Row, ...]
    labels_from: str
    changes: dict[str, int]
    left_out: dict[str, list[str]]
    quarantined: tuple[tuple[Path, str], ...]
    test: Path | None
    conflicts: tuple[tuple[Path, Path], ...]
    test_copies: tuple[tuple[Path, Path], ...]
    records: tuple[Path, ...]

    def __str__(self) -> str:
        headers, table = self._table()
        cells = [headers, *table]
        widths = [max(len(row[at]) for row in cells) for at in range(len(headers))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in cells
        ]
        lines += self._sentences()
        lines += [
            f"{title}: {_named(first)} and {_named(other)}"
            for title, pairs in self._pairs().items()
            for first, other in pairs[:_MAX_PICTURES]
        ]
        return "\n".join(lines)

    __repr__ = __str__  # a notebook that runs without a browser logs this

    def _repr_html_(self) -> str:
        headers, table = self._table()
        head = "".join(f"<th>{html.escape(each)}</th>" for each in headers)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in table
        )
        parts = [f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"]
        parts.append(f"<p>{'<br>'.join(map(html.escape, self._sentences()))}</p>")
        for title, pairs in self._pairs().items():
            pictures = [_block(map(_figure, pair)) for pair in pairs[:_MAX_PICTURES]]
            parts += [f"<p>{html.escape(title)}:</p>", *pictures] if pairs else []
        if self.quarantined:
            pictures = [_figure(path, why) for path, why in self.quarantined[:_MAX_PICTURES]]
            parts += ["<p>in quarantine:</p>", *pictures]
        return "\n".join(parts)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Return headers and rows, without the columns that say nothing."""
        columns = {
            "photos": "photos",
            "valid": "of them for validation",
            "test": "test set",
            "near": "near-duplicates",
            "copies": "copies left out",
            "quarantined": "in quarantine",
        }
        told = [name for name in columns if any(getattr(row, name) for row in self.rows)]
        rows = [[row.label, *(str(getattr(row, name)) for name in told)] for row in self.rows]
        return ["class", *(columns[name] for name in told)], rows

    def _sentences(self) -> Iterator[str]:
        photos = sum(row.photos for row in self.rows)
        yield f"{photos} photos; their classes are from {printable(self.labels_from)}"
        if changes := [f"{count} {what}" for what, count in self.changes.items() if count]:
            yield f"since the last run: {', '.join(changes)}"
        if self.test is not None:
            yield f"the test set, {self.test}, is not trained on; it judges the finished model"
            if lacking := [row.label for row in self.rows if not row.test]:
                yield f"the test set has no photo of {', '.join(lacking)}"
        if any(row.near for row in self.rows):
            yield "near-duplicates stay on one side of the split"
        if self.conflicts:
            yield f"{_pairs(self.conflicts)} similar but labelled differently"
        if self.test_copies:
            yield f"{_pairs(self.test_copies)} similar, and one of them is in the test set"
        # "a copy: of cat.jpg" without its end: files of equal reasons are counted.
        reasons = _grouped((why.partition(": ")[0], _named(path)) for path, why in self.quarantined)
        yield from _counted("in quarantine", reasons)
        yield from _counted("left out", self.left_out)
        if self.quarantined or self.left_out:
            yield f"each with its reason: {', '.join(map(str, self.records))}"

    def _pairs(self) -> dict[str, tuple[tuple[Path, Path], ...]]:
        return {
            "similar but labelled differently": self.conflicts,
            "similar, and the second is in the test set": self.test_copies,
        }


def summarize(cleaned: CleanReport) -> Summary:
    """Sum up what gathering and cleaning found, earlier runs on the same data folder included.

    Parameters
    ----------
    cleaned : CleanReport
        What :func:`~icon_classifier.dataset.clean.clean` returned.
    """
    root = cleaned.paths[0].parents[2]
    gathered = read_lines(root / GATHERED)
    about: dict[str, Any] = next((line for line in gathered if "labels_from" in line), {})
    left_out = _grouped(
        ("a copy" if "photo" in line else line["left_out"], line["file"])
        for line in gathered
        if "left_out" in line
    )
    copies = Counter(line["label"] for line in gathered if "photo" in line and "left_out" in line)
    asked = {(line["label"], line["url"]): line for line in read_lines(root / RECORD)}
    seen = set()
    for (label, _), line in asked.items():
        if line["problem"]:
            # "https://...: HTTP 404 Not Found" without the address: equal reasons are counted.
            why = f"no photo at the address ({line['problem'].rpartition(': ')[2]})"
            left_out.setdefault(why, []).append(line["url"])
        else:
            copies[label] += (label, line["name"]) in seen
            seen.add((label, line["name"]))
    reasons = {move.target: move.reason for move in read_moves(root)}
    quarantined = [
        (path, reasons[target])
        for target in sorted(reasons)
        if target.startswith("quarantine/") and (path := root / target).is_file()
    ]
    sizes = Counter(cleaned.groups)
    numbers: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(cleaned.labels, cleaned.groups, strict=True):
        numbers[label]["photos"] += 1
        numbers[label]["near"] += sizes[group] > 1
    for index in valid_indices(cleaned.paths):
        numbers[cleaned.labels[index]]["valid"] += 1
    for path in cleaned.test:
        numbers[path.parent.name]["test"] += 1
    for path, _ in quarantined:
        numbers[path.parent.name]["quarantined"] += 1
    for label, count in copies.items():
        numbers[label]["copies"] += count
    names = ("photos", "valid", "test", "near", "copies", "quarantined")
    return Summary(
        tuple(
            Row(label, *(each[name] for name in names)) for label, each in sorted(numbers.items())
        ),
        about.get("labels_from", "the recipe"),
        about.get("changes", {}),
        left_out,
        tuple(quarantined),
        cleaned.test[0].parents[1] if cleaned.test else None,
        cleaned.conflicts,
        cleaned.test_copies,
        tuple(
            path
            for name in (GATHERED, RECORD, JOURNAL)
            if (path := root / name).is_file() and path.stat().st_size
        ),
    )


def _grouped(reasons: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Collect the names of files by the reason."""
    grouped: dict[str, list[str]] = {}
    for why, name in reasons:
        grouped.setdefault(why, []).append(name)
    return grouped


def _counted(what: str, reasons: dict[str, list[str]]) -> Iterator[str]:
    """Yield how many files have each reason, the most first, and name some of them."""
    ranked = sorted(reasons.items(), key=lambda each: -len(each[1]))
    for why, names in ranked[:_MAX_REASONS]:
        more = ["…"] if len(names) > _MAX_NAMES else []
        yield printable(f"{len(names)} {what}: {why}: {', '.join(names[:_MAX_NAMES] + more)}")


def _pairs(pairs: tuple[tuple[Path, Path], ...]) -> str:
    return "1 pair is" if len(pairs) == 1 else f"{len(pairs)} pairs are"


def _named(path: Path) -> str:
    return f"{path.parent.name}/{original_name(path)}"


def _figure(path: Path, why: str = "") -> str:
    """Return HTML of a small picture with its label and name; without the picture if broken."""
    try:
        data = base64.b64encode(thumbnail(read_image_file(path, side=_SIDE), _SIDE)).decode()
        picture = f'<img src="data:image/jpeg;base64,{data}" alt=""><br>'
    except ImageError:
        picture = ""
    text = html.escape(": ".join(filter(None, (_named(path), why))))
    return _block([picture, text])


def _block(parts: Iterable[str]) -> str:
    style = "display: inline-block; vertical-align: top; max-width: 28em; margin: 0 1em 1em 0"
    return f'<div style="{style}">{"".join(parts)}</div>'
