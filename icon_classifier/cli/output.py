"""Where the answers of ``icon-classifier predict`` go: text, JSON lines or CSV, to be resumed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from icon_classifier.cli.predict import Record
from icon_classifier.errors import SettingsError

Format = Callable[[Record, int], str]
"""A record and the number of its best classes to a line, without its end."""

_FLUSH_SECONDS = 1.0


def plain_line(record: Record, top: int) -> str:
    """Write a line for a person: path, class and probability, separated by tabs."""
    if "error" in record:
        return _printable(f"{record['path']}\t{record['error']}")
    best = "".join(
        f"\t{entry['label']}\t{entry['probability']:.4f}" for entry in record["ranking"][:top]
    )
    return _printable(f"{record['path']}{best}{'' if record['known'] else chr(9) + 'not sure'}")


def json_line(record: Record, _: int) -> str:
    """Write a JSON object."""
    line = json.dumps(record, ensure_ascii=False)
    # A name of a file may be no text at all; JSON can say it only by escapes.
    return line if _printable(line) == line else json.dumps(record)


def csv_row(record: Record, top: int) -> str:
    """Write a row for a table; see :func:`_csv_head` for its columns."""
    ranking = record.get("ranking", [])
    cells = [cell for entry in ranking[:top] for cell in (entry["label"], entry["probability"])]
    cells += [""] * (2 * top - len(cells))
    known = {True: "yes", False: "no", None: ""}[record.get("known")]
    return _row([record["path"], *cells, known, record.get("error", "")])


def _csv_head(top: int) -> str:
    more = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("label", "probability")]
    return _row(["path", "label", "probability", *more, "known", "error"])


def _row(cells: Iterable[object]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(_printable(str(cell)) for cell in cells)
    # A line for each record, so that a file that was cut off can be mended.
    return _one_line(file.getvalue())


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


FORMATS: dict[str, Format] = {"text": plain_line, "json": json_line, "csv": csv_row}


class Done:
    """The photos that a results file has already, eight bytes each.

    Parameters
    ----------
    paths : iterable of str
        As the file tells them.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._hashes = np.unique(np.fromiter(map(_hash, paths), np.uint64))

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, path: str) -> bool:
        wanted = np.uint64(_hash(path))
        place = int(np.searchsorted(self._hashes, wanted))
        return place < len(self._hashes) and bool(self._hashes[place] == wanted)


def _hash(path: str) -> int:
    written = _one_line(_printable(path)).encode()  # as it stands in a table
    return int.from_bytes(hashlib.blake2b(written, digest_size=8).digest())


class Results:
    """A place for records.

    Attributes
    ----------
    done : Done
        The photos that need not be done again.
    failed : bool
        Whether a photo could not be used, now or in what was there already.
    """

    def __init__(self, file: TextIO, form: Format, top: int, done: Done, *, failed: bool) -> None:
        self._file = file
        self._form = form
        self._top = top
        self._flushed = time.monotonic()
        self.done = done
        self.failed = failed

    def write(self, record: Record) -> None:
        """Write one record; at most a second later it is in the file."""
        self.failed |= "error" in record
        self._file.write(self._form(record, self._top) + "\n")
        now = time.monotonic()
        if now - self._flushed > _FLUSH_SECONDS or self._file is sys.stdout:
            self._file.flush()
            self._flushed = now


@contextlib.contextmanager
def open_results(path: Path | None, form: str, top: int) -> Iterator[Results]:
    """Open the place for the results: a file, gone on with if it is there, or standard output.

    Parameters
    ----------
    path : pathlib.Path or None
        The file; None for standard output.
    form : {'text', 'json', 'csv'}
        How records are written.
    top : int
        Best classes in a line of text or a row.

    Raises
    ------
    SettingsError
        If the file cannot be written, or holds something else than such results.
    """
    if path is None:
        if form == "csv":
            print(_csv_head(top))
        yield Results(sys.stdout, FORMATS[form], top, Done(), failed=False)
        return
    if form == "text":
        raise SettingsError("a file of results is --json or --csv: please add one of them")
    try:
        done, failed = _resume(path, form, top)
        file = path.open("a", encoding="utf-8", newline="")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error
    with file:
        if form == "csv" and path.stat().st_size == 0:
            file.write(_csv_head(top) + "\n")
        yield Results(file, FORMATS[form], top, done, failed=failed)


def _resume(path: Path, form: str, top: int) -> tuple[Done, bool]:
    """Read what a run before left, and cut off a last line that it did not finish."""
    if not path.exists():
        return Done(), False
    with path.open("rb+") as raw:
        end = raw.seek(0, os.SEEK_END)
        whole = _last_line_end(raw, end)
        raw.truncate(whole)
    failed = False

    def paths() -> Iterator[str]:
        nonlocal failed
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            for number, line in enumerate(file, 1):
                record = _read(line, form, top, number, path)
                if record is not None:
                    failed |= bool(record.get("error"))
                    yield record["path"]

    return Done(paths()), failed


def _last_line_end(raw: io.BufferedRandom, end: int) -> int:
    """Find where the last finished line ends, looking backwards."""
    step = 64 * 2**10
    while end > 0:
        start = max(0, end - step)
        raw.seek(start)
        place = raw.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def _read(line: str, form: str, top: int, number: int, path: Path) -> Record | None:
    """Read a line back; None for the head of a table."""
    try:
        if form == "json":
            record: Record = json.loads(line)
            if isinstance(record["path"], str):
                return record
        elif number == 1 and line.rstrip("\r\n") == _csv_head(top):
            return None
        else:
            [cells] = csv.reader([line])
            if number > 1 and len(cells) == 2 * top + 3:
                return {"path": cells[0], "error": cells[-1]}
    except (ValueError, KeyError, TypeError):
        pass
    raise SettingsError(
        f"{path} is there already and line {number} is no result of this kind; "
        "please give another file or the options that it was begun with"
    )
