"""Write the results of ``icon-classifier predict`` as text, JSON lines or CSV, and show progress.

A results file can be resumed: the photos that it holds are not classified again.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from icon_classifier.cli.predict import Record
from icon_classifier.errors import SettingsError
from icon_classifier.system.texts import cell_text, csv_line, is_printable, printable

_FLUSH_SECONDS = 1.0


def text_line(record: Record, top: int) -> str:
    """Format a record as path, labels and probabilities, separated by tabs."""
    fields = [record["path"]]
    for entry in record.get("ranking", [])[:top]:
        fields += [entry["label"], f"{entry['probability']:.4f}"]
    if "error" in record:
        fields.append(record["error"])
    elif not record["known"]:
        fields.append("not sure")
    return "\t".join(map(printable, fields))


def json_line(record: Record, _: int) -> str:
    """Format a record as a JSON object."""
    line = json.dumps(record, ensure_ascii=False)
    # A file name may be invalid UTF-8, which JSON can express only by escapes.
    return line if is_printable(line) else json.dumps(record)


def csv_row(record: Record, top: int) -> str:
    """Format a record as a row with the columns of :func:`_csv_header`."""
    ranking = record.get("ranking", [])
    cells = [cell for entry in ranking[:top] for cell in (entry["label"], entry["probability"])]
    cells += [""] * (2 * top - len(cells))
    known = {True: "yes", False: "no", None: ""}[record.get("known")]
    return csv_line([record["path"], *cells, known, record.get("error", "")])


def _csv_header(top: int) -> str:
    more = [f"{name}_{rank}" for rank in range(2, top + 1) for name in ("label", "probability")]
    return csv_line(["path", "label", "probability", *more, "known", "error"])


_FORMATTERS: dict[str, Callable[[Record, int], str]] = {
    "text": text_line,
    "json": json_line,
    "csv": csv_row,
}
"""Each formats a record, with so many entries of its ranking, as a line without its end."""


class PathSet:
    """A set of paths that takes eight bytes for each.

    Parameters
    ----------
    paths : iterable of str
        Its elements, as they are or as they are written in a results file.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._hashes = np.unique(np.fromiter(map(_hash, paths), np.uint64))

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, path: str) -> bool:
        wanted = np.uint64(_hash(path))
        index = int(np.searchsorted(self._hashes, wanted))
        return index < len(self._hashes) and bool(self._hashes[index] == wanted)


def _hash(path: str) -> int:
    written = cell_text(path).encode()
    return int.from_bytes(hashlib.blake2b(written, digest_size=8).digest())


class Results:
    """A file or standard output to which records are written.

    Attributes
    ----------
    done : PathSet
        The photos that the file already held.
    failed : bool
        Whether a photo could not be used, in this run or in those before.
    """

    def __init__(self, file: TextIO, form: str, top: int, done: PathSet, *, failed: bool) -> None:
        self._file = file
        self._format = _FORMATTERS[form]
        self._top = top
        self._flushed = time.monotonic()
        self.done = done
        self.failed = failed

    def write(self, record: Record) -> None:
        """Write one record; the file is flushed about once a second."""
        self.failed |= "error" in record
        self._file.write(self._format(record, self._top) + "\n")
        now = time.monotonic()
        if now - self._flushed > _FLUSH_SECONDS or self._file is sys.stdout:
            self._file.flush()
            self._flushed = now


@contextlib.contextmanager
def open_results(path: Path | None, form: str, top: int) -> Iterator[Results]:
    """Open the destination of the results; an existing file is continued.

    Parameters
    ----------
    path : pathlib.Path or None
        The file; None for standard output.
    form : {'text', 'json', 'csv'}
        The format of a record.
    top : int
        Entries of the ranking in a line of text or a row.

    Raises
    ------
    SettingsError
        If the file cannot be written, or holds something other than such results.
    """
    if path is None:
        if form == "csv":
            print(_csv_header(top))
        yield Results(sys.stdout, form, top, PathSet(), failed=False)
        return
    if form == "text":
        raise SettingsError("expected --json or --csv with --output, got neither")
    try:
        done, failed = _resume(path, form, top)
        file = path.open("a", encoding="utf-8", newline="")
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error
    with file:
        if form == "csv" and path.stat().st_size == 0:
            file.write(_csv_header(top) + "\n")
        yield Results(file, form, top, done, failed=failed)


def _resume(path: Path, form: str, top: int) -> tuple[PathSet, bool]:
    """Read the results of an earlier run and cut off an unfinished last line."""
    if not path.exists():
        return PathSet(), False
    begin = (f"{_csv_header(top)}\n" if form == "csv" else '{"path": ').encode()
    with path.open("rb") as raw:
        end = _end_of_last_line(raw)
        raw.seek(0)
        if end == 0 and not begin.startswith(raw.read(len(begin))):
            raise _not_results(form, 1, path)
    failed = False

    def paths() -> Iterator[str]:
        nonlocal failed
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            finished = itertools.takewhile(lambda line: line.endswith("\n"), file)
            for number, line in enumerate(finished, 1):
                record = _parse(line, form, top, number, path)
                if record is not None:
                    failed |= bool(record.get("error"))
                    yield record["path"]

    done = PathSet(paths())
    os.truncate(path, end)  # only now: a file of something else is left as it is
    return done, failed


def _end_of_last_line(raw: io.BufferedReader) -> int:
    """Find the offset after the last line break, searching backwards."""
    end = raw.seek(0, os.SEEK_END)
    block = 64 * 2**10
    while end > 0:
        start = max(0, end - block)
        raw.seek(start)
        index = raw.read(end - start).rfind(b"\n")
        if index >= 0:
            return start + index + 1
        end = start
    return 0


def _parse(line: str, form: str, top: int, number: int, path: Path) -> Record | None:
    """Parse a line of a results file; None for the header of a table."""
    try:
        if form == "json":
            record: Record = json.loads(line)
            if isinstance(record["path"], str):
                return record
        elif number == 1 and line.rstrip("\r\n") == _csv_header(top):
            return None
        else:
            [cells] = csv.reader([line])
            if number > 1 and len(cells) == 2 * top + 3:
                return {"path": cells[0], "error": cells[-1]}
    except (ValueError, KeyError, TypeError, csv.Error):
        pass
    raise _not_results(form, number, path)


def _not_results(form: str, number: int, path: Path) -> SettingsError:
    return SettingsError(
        f"expected a {form} result in line {number} of {path}, got something else; "
        "choose another file or the options that it was started with"
    )


def show_progress(
    records: Iterable[Record], find: Callable[[], Iterable[str]], *, done: int = 0
) -> Iterator[Record]:
    """Yield records and show a progress bar on standard error.

    Parameters
    ----------
    records : iterable of Record
        Yielded as they are.
    find : callable
        Finds all photos. They are counted in a thread while the first ones are classified: walking
        a large folder takes minutes.
    done : int, optional
        Photos that were classified by an earlier run.
    """
    # Imported here: most runs show no bar.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("photos, {task.fields[rate]:.1f}/s")
    columns = BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()
    # Standard output is not redirected: it may be the file of the results.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task("", total=None, completed=done, rate=0.0)

        def count() -> None:
            total = sum(1 for _ in find())
            bar.update(task, total=total)

        threading.Thread(target=count, name="count", daemon=True).start()
        start = time.monotonic()
        number = 0
        for number, record in enumerate(records, 1):
            yield record
            bar.update(task, advance=1, rate=number / (time.monotonic() - start))
        bar.update(task, total=done + number)
