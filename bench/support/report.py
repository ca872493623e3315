"""Print what a benchmark measured as tables, and write them into docs/benchmarks.md."""

from __future__ import annotations

import argparse
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from icon_classifier.files import write_file
from icon_classifier.system.memory import usable_cores
from scripts.environment import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
MISSED = "**not reached**"


@dataclass(frozen=True)
class Row:
    """A figure of this project beside those of rivals.

    Attributes
    ----------
    name, unit : str
        What was measured.
    values : sequence of float or None
        This project's figure, then each rival's; None where there is none.
    target : str
        Such as "≤ 0.9", of this project's figure, or "≥ 4 times", of the first rival's.
    """

    name: str
    unit: str
    values: Sequence[float | None]
    target: str = ""

    @property
    def ratio(self) -> float | None:
        """This project's figure divided by the first rival's."""
        ours, *rivals = self.values
        return ours / rivals[0] if ours is not None and rivals and rivals[0] else None

    @property
    def verdict(self) -> str:
        """Whether the target was reached."""
        if not self.target:
            return ""
        sign, limit, *times = self.target.split()
        value = self.ratio if times else self.values[0]
        if value is None:
            return "not measured"
        return verdict(value <= float(limit) if sign == "≤" else value >= float(limit))


def verdict(reached: bool) -> str:
    """Return a table's word for whether a target was reached."""
    return "reached" if reached else MISSED


def table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return rows as a table in Markdown; ratios and targets only where there are any."""
    heads = ["", *columns]
    lines = []
    for row in rows:
        values = [*row.values, *[None] * (len(columns) - len(row.values))]
        lines.append([row.name, *(_cell(value, row.unit) for value in values)])
    if any(row.ratio for row in rows):
        heads.append("ratio" if len(columns) == 2 else f"ratio to {columns[1]}")
        for line, row in zip(lines, rows, strict=True):
            line.append("" if row.ratio is None else f"{row.ratio:.2f}")
    if any(row.target for row in rows):
        heads += ["target", ""]
        for line, row in zip(lines, rows, strict=True):
            unit = "" if row.target.endswith("times") else row.unit
            line += [f"{row.target} {unit}".strip() if row.target else "", row.verdict]
    return markdown(heads, lines)


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    every = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in every)


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def progress(what: str) -> None:
    """Print on standard error what is measured next, and the time."""
    print(f"{datetime.now():%H:%M:%S} {what}", file=sys.stderr, flush=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of a benchmark's arguments with the option that :func:`publish` needs."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--write", action="store_true", help="into docs/benchmarks.md, too")
    return result


def publish(options: argparse.Namespace, parts: Iterable[str]) -> None:
    """Print tables and sentences as they are made; with ``--write`` put them into the document.

    They replace the section of the benchmark that runs.
    """
    name = Path(sys.argv[0]).stem
    text = f"{_command(name)}, {_circumstances()}:\n"
    print(text)
    for part in parts:
        print(part, end="\n\n", flush=True)
        text += f"\n{part}\n"
    if options.write:
        write_file(PAGE, replace_section(PAGE.read_text(), name, text))


def replace_section(page: str, name: str, text: str) -> str:
    """Put a text between the markers of a benchmark and return the page.

    Raises
    ------
    ValueError
        If the page does not have both markers once.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, *after = page.split(start)
    if len(after) != 1 or after[0].count(end) != 1:
        raise ValueError(f"expected the markers of {name} once in {PAGE.name}")
    return f"{before}{start}{text}{end}{after[0].partition(end)[2]}"


def _command(name: str) -> str:
    # Folders by their last part: the others say nothing to a reader.
    words = [re.sub("[^=]*/(?=.)", "", word) for word in sys.argv[1:] if word != "--write"]
    return f"`{shlex.join(['python', '-m', f'bench.{name}', *words])}`"


def _circumstances() -> str:
    today = date.today()
    return (
        f"{today.day} {today:%B %Y}, {usable_cores()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}"
    )
