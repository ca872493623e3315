"""Files of JSON lines, one object a line: the records of a data folder.

What is appended is on the disk before the call returns. A line that an interrupted run left
unfinished is dropped.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from icon_classifier.errors import DatasetError
from icon_classifier.files import write_file


def append_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Append objects to a file of JSON lines, and flush them to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _drop_partial_line(file)
        file.write(_to_text(lines).encode())
        file.flush()
        os.fsync(file.fileno())


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write a file of JSON lines."""
    write_file(path, _to_text(lines))


def _to_text(lines: Iterable[dict[str, Any]]) -> str:
    """Return ASCII, since names of files that are not Unicode have to be escaped."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def _drop_partial_line(file: BinaryIO) -> None:
    """Remove a last line without a line feed: the next one must not be joined to it."""
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; none if there is no file.

    A partial last line is left out; it was never acted on.

    Raises
    ------
    DatasetError
        If another line is damaged.
    """
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8").split("\n")  # splitlines() would split at more
    lines = []
    for number, text in enumerate(texts, 1):
        if not text:
            continue
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            if number < len(texts):
                raise DatasetError(f"{path}: line {number} is damaged: {error}") from error
    return lines
