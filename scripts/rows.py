"""What a played host is measured by, and the table that shows it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    host, what : str
        Where, and what was measured.
    value : float or str
        The figure, or words.
    limit : float, optional
        What the figure must not exceed; words have none.
    unit : str
        Of figure and limit.
    """

    host: str
    what: str
    value: float | str
    limit: float | None = None
    unit: str = ""

    @property
    def text(self) -> str:
        """The figure with its unit, or the words."""
        value = f"{self.value:.1f} {self.unit}" if isinstance(self.value, float) else self.value
        return value.strip()

    @property
    def good(self) -> bool:
        """Whether the figure is within its limit."""
        return self.limit is None or (isinstance(self.value, float) and self.value <= self.limit)


def table(rows: list[Row]) -> str:
    """Lay rows out as a table in Markdown."""
    lines = ["| host | what | measured | limit | |", "| --- | --- | ---: | ---: | --- |"]
    for row in rows:
        limit = f"{row.limit:g} {row.unit}" if row.limit is not None else ""
        verdict = "" if row.limit is None else ("good" if row.good else "**too much**")
        lines.append(f"| {row.host} | {row.what} | {row.text} | {limit.strip()} | {verdict} |")
    return "\n".join(lines)
