import csv
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icon_classifier.system.texts import cell_text, csv_line, is_printable, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bär 熊 👩‍🚀.jpg", "bär 熊 👩‍🚀.jpg"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\nb\rc\td\x7f\x9b", r"a\nb\rc\td\x7f\x9b"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\u2066a\u2028b", r"\u2066a\u2028b"),
        ("\udcff", r"\udcff"),
    ],
)
def test_control_characters_are_escaped_and_others_are_not(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert is_printable(text) is (text == expected)


@given(st.text())
def test_printable_text_is_one_line_that_can_be_written_anywhere(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in shown)
    shown.encode()


@pytest.mark.parametrize("first", [*"=+-@\uff1d\uff0b\uff0d\uff20", " =", "\u3000@"])
def test_formula_is_prefixed_with_an_apostrophe(first: str) -> None:
    assert cell_text(f"{first}1+1.jpg") == f"'{first}1+1.jpg"


@pytest.mark.parametrize("first", ["\t", "\r", "\n", "\x1b"])
def test_cell_begins_with_no_control_character(first: str) -> None:
    assert cell_text(f"{first}=1").startswith("\\")


@given(st.lists(st.text() | st.floats(0, 1), min_size=1))
def test_table_has_the_text_of_each_cell_whatever_divides_cells(cells: list[object]) -> None:
    line = csv_line(cells)
    assert len(line.splitlines()) <= 1
    [row] = csv.reader([line]) if line else [[""]]
    assert row == [cell_text(cell) if isinstance(cell, str) else str(cell) for cell in cells]


def test_semicolon_starts_no_cell() -> None:
    assert csv_line(["a;=1+1.jpg", 0.5]) == '"a;=1+1.jpg",0.5'
