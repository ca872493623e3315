import re

import pytest

from icon_classifier import errors
from icon_classifier.errors import (
    MAX_MESSAGE,
    ConversionError,
    IconClassifierError,
    ImageError,
    too_many_bytes,
    too_many_pixels,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, IconClassifierError)
]


def depth(kind: type[IconClassifierError]) -> int:
    return kind.__mro__.index(IconClassifierError)


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_each_error_are_one_plain_sentence(kind: type[IconClassifierError]) -> None:
    words = kind("a reason with /a/path").words
    assert re.fullmatch(r"[A-Z](?:[^.!?/\n]|\.(?=\w))*\.", words), words
    assert len(words) <= 110


@pytest.mark.parametrize(
    ("limit", "shown"),
    [(25_000_000, "25"), (1_500_000, "1.5"), (1_000_000, "1"), (950_000, "0.95")],
)
def test_limit_below_one_megabyte_or_megapixel_is_not_said_to_be_0(limit: int, shown: str) -> None:
    assert f" {shown} megapixels;" in too_many_pixels(limit)
    assert f" {shown} MB;" in too_many_bytes(limit * 2**20 // 1_000_000)


def test_words_of_one_error() -> None:
    error = ImageError("reason", words="Please send it again.")
    assert (str(error), error.words) == ("reason", "Please send it again.")
    assert ImageError("reason").words == ImageError.words
    assert str(ImageError()) == ImageError.words


def test_message_that_quotes_a_long_text_is_cut() -> None:
    assert str(ConversionError(f"expected a name, got {'x' * 2**20}")) == (
        f"expected a name, got {'x' * (MAX_MESSAGE - 21)}"
    )


def test_docstring_draws_the_tree_of_errors() -> None:
    """Every class stands in the drawing, below its base."""
    drawing = (errors.__doc__ or "").split("::\n")[1].split("\n\nThe text")[0]
    drawn = {
        match[2]: len(match[1]) // 4
        for match in re.finditer(r"^    ([│├└─ ]*)(\w+Error)", drawing, re.MULTILINE)
    }
    assert drawn == {kind.__name__: depth(kind) for kind in KINDS}
