"""Write text that strangers chose, such as names of files, where programs give it a meaning."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # line breaks, bells, the escape that begins a terminal's commands
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # other line breaks; what reverses the text after it
    "\ud800-\udfff]"  # bytes of a name that are not UTF-8
)

_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the last four are the wide forms of the others


def printable(text: str) -> str:
    r"""Escape what would control a terminal, break a line or hide a part of it, as in ``\x1b``."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_printable(text: str) -> bool:
    """Return whether :func:`printable` leaves a text as it is."""
    return _CONTROL.search(text) is None


def csv_line(cells: Iterable[object]) -> str:
    """Format a row of a table as RFC 4180 has it, on one line without its end."""
    file = io.StringIO()
    # A cell is quoted if it holds a comma, or one of the row's end: so are semicolons, which divide
    # cells in countries with a decimal comma, where what follows them could be a formula.
    csv.writer(file, lineterminator=";").writerow(
        cell_text(cell) if isinstance(cell, str) else cell for cell in cells
    )
    return file.getvalue().removesuffix(";")


def cell_text(text: str) -> str:
    """Return a text as a table holds it: an apostrophe before what would be taken for a formula."""
    text = printable(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
