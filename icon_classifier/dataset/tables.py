"""TOML tables to frozen dataclasses, checked entry by entry.

Names, kinds and defaults are read off the dataclass, so that a new field is all that a new entry
of a recipe needs.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from icon_classifier.errors import RecipeError

_T = TypeVar("_T")

_KINDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of texts",
    dict: "a table",
}


def between(low: float, high: float) -> dict[str, float]:
    """Metadata of a field whose number must lie in ``[low, high]``."""
    return {"low": low, "high": high}


def suggestion(name: str, known: list[str]) -> str:
    """End of a message about an unknown name: the one probably meant, or all there are."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(known)}" if known else ""


def build(cls: type[_T], table: Mapping[str, Any], file: Path, where: str) -> _T:
    """Make a dataclass from a TOML table.

    Parameters
    ----------
    cls : type
        A dataclass whose fields are texts, numbers, tuples, literals or dataclasses again.
    table : mapping
        The table as tomllib reads it.
    file : Path
        Where it comes from, for messages.
    where : str
        Path of the table in the file, with a dot at its end; empty for the whole file.

    Raises
    ------
    RecipeError
        If an entry is unknown, missing, of another kind or out of its range.
    """
    hints = get_type_hints(cls)
    known: dict[str, Field[Any]] = {each.name: each for each in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            raise RecipeError(
                f"{file}: {where}{key}: unknown entry{suggestion(key, sorted(known))}"
            )
    values = {}
    for key, each in known.items():
        if key in table:
            values[key] = _value(table[key], hints[key], each.metadata, file, f"{where}{key}")
        elif each.default is MISSING:
            raise RecipeError(f"{file}: {where}{key}: missing; {_expected(hints[key])} is expected")
    return cls(**values)


def _expected(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return _KINDS.get(get_origin(hint) or hint, "a table")


def _value(value: Any, hint: Any, metadata: Mapping[str, float], file: Path, where: str) -> Any:
    """Check one TOML value against the field's type and range; tables become dataclasses."""
    if isinstance(hint, UnionType):  # X | None: TOML has no null, so only X can come
        hint = next(each for each in get_args(hint) if each is not NoneType)
    if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
        if isinstance(value, dict):
            return build(hint, value, file, f"{where}.")
        raise wrong(file, where, "a table", value)
    if get_origin(hint) is tuple:
        return _items(value, get_args(hint)[0], file, where)
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        hints = suggestion(value, list(get_args(hint))) if isinstance(value, str) else ""
        raise wrong(file, where, _expected(hint), value, hints)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:  # not isinstance: True is an int
        raise wrong(file, where, _expected(hint), value)
    if hint is str and not value.strip():
        raise wrong(file, where, "a text that is not empty", value)
    if metadata and not metadata["low"] <= value <= metadata["high"]:
        span = f"a number from {metadata['low']:g} to {metadata['high']:g}"
        raise wrong(file, where, span, value)
    return value


def _items(value: Any, hint: Any, file: Path, where: str) -> tuple[Any, ...]:
    kind = _expected(tuple) if hint is str else "a list of tables"
    if isinstance(value, str) and hint is str:  # one search term needs no brackets
        value = [value]
    if not isinstance(value, list):
        raise wrong(file, where, kind, value)
    return tuple(_value(each, hint, {}, file, f"{where}[{n}]") for n, each in enumerate(value))


def wrong(file: Path, where: str, expected: str, value: Any, hint: str = "") -> RecipeError:
    """Error about an entry: the file, the entry's path, what was expected and what came."""
    return RecipeError(f"{file}: {where}: expected {expected}, got {value!r}{hint}")
