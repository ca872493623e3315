"""Whom to credit for each photo: a table beside the photos, and a summary for the model card."""

from collections import defaultdict
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from icon_classifier.dataset.json_lines import read_lines
from icon_classifier.dataset.sources import download, search
from icon_classifier.dataset.store import photos_and_labels
from icon_classifier.files import write_file
from icon_classifier.system.texts import csv_line

TABLE = "credits.csv"

_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Credit:
    """Where a photo comes from, and whom to credit for it.

    Attributes
    ----------
    file : str
        Path of the photo in the folder of photos, with slashes.
    source : str
        What found it: ``ddgs``, ``openverse``, ``wikimedia`` or ``list``.
    page : str
        Address of the web page that shows it, or of the photo itself.
    licence, author : str
        ``unknown`` or empty where the source does not tell.
    """

    file: str
    source: str
    page: str
    licence: str = _UNKNOWN
    author: str = ""


def read_credits(photos: Path) -> list[Credit]:
    """Return the credit of each photo that was downloaded by its address.

    Parameters
    ----------
    photos : Path
        What :func:`~icon_classifier.dataset.gather.gather` returned.
    """
    root = photos.parent
    # A photo is named by its contents, and keeps that name when it is rewritten or moved.
    urls = {
        Path(line["name"]).stem: line["url"]
        for line in read_lines(root / download.RECORD)
        if line["name"]
    }
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for line in read_lines(root / search.RECORD):
        for photo in line["photos"]:
            if photo["licence"] or photo["url"] not in found:  # another source may know it
                found[photo["url"]] = line["source"], photo
    credited = []
    for path in photos_and_labels(photos)[0]:
        if url := urls.get(path.stem.partition("-")[0]):
            source, photo = found.get(url, ("list", {}))
            credited.append(
                Credit(
                    path.relative_to(photos).as_posix(),
                    source,
                    photo.get("page") or url,
                    photo.get("licence") or _UNKNOWN,
                    photo.get("author", ""),
                )
            )
    return credited


def write_credits(photos: Path) -> None:
    """Write the table of credits into the folder of photos, if any was downloaded."""
    if not (credited := read_credits(photos)):
        return
    rows = [[field.name for field in fields(Credit)], *map(astuple, credited)]
    write_file(photos / TABLE, "".join(f"{csv_line(row)}\r\n" for row in rows))


def credit_lines(photos: Path) -> list[str]:
    """Return one line for each licence of the photos: how many there are, and their authors.

    Plain text in which names are as their authors wrote them; none if no photo was downloaded.
    """
    licences: dict[str, list[str]] = defaultdict(list)
    for each in read_credits(photos):
        licences[each.licence].append(each.author)
    return [
        f"licence {licence}: {len(authors)} photo{'s' if len(authors) > 1 else ''}"
        + (f" by {', '.join(names)}" if (names := sorted(set(filter(None, authors)))) else "")
        for licence, authors in sorted(licences.items())
    ]
