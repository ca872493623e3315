from pathlib import Path

import pytest

from icon_classifier.errors import ConversionError
from icon_classifier.model.names import format_names, parse_names, read_names, rename


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("False=dog\nTrue=cat, any", {"False": "dog", "True": "cat, any"}),
        ("# lesson 1\n\n  # dogs\nFalse = a dog\r\nTrue =cat\n", {"False": "a dog", "True": "cat"}),
        ("=background", {"": "background"}),
        ("0=π=3", {"0": "π=3"}),
        ("", {}),
    ],
)
def test_names_are_parsed(text: str, names: dict[str, str]) -> None:
    assert parse_names(text.encode()) == names


@pytest.mark.parametrize("text", ["cat", "False=", "a=b\nc", "=\n"])
def test_text_that_is_not_names_is_refused(text: str) -> None:
    with pytest.raises(ConversionError, match="expected a class and its name"):
        parse_names(text.encode())


def test_written_names_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "export.names.txt"
    assert read_names(path) is None
    path.write_bytes(b"\xef\xbb\xbf" + format_names({"False": "dog"}))
    assert parse_names(read_names(path) or b"") == {"False": "dog"}


@pytest.mark.parametrize("label", ["#1", "a=b", " a"])
def test_a_class_that_a_file_cannot_name_is_refused(label: str) -> None:
    with pytest.raises(ConversionError, match=f"cannot name the class '{label}'"):
        format_names({"b": "bee", label: "dog"})


def test_names_in_another_encoding_are_refused() -> None:
    with pytest.raises(ConversionError, match="UTF-8"):
        parse_names("a=caf\xe9".encode("latin1"))


def test_unreadable_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="cannot read"):
        read_names(tmp_path)


def test_labels_are_renamed() -> None:
    assert rename(["False", "True"], {"True": "cat"}) == ("False", "cat")


def test_name_of_an_unknown_class_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"no class 'dog'.* the classes are: False, True"):
        rename(["False", "True"], {"dog": "Dog"})


def test_same_name_for_two_classes_is_refused() -> None:
    with pytest.raises(ConversionError, match="different names"):
        rename(["False", "True"], {"False": "True"})


def test_second_name_of_a_class_is_refused() -> None:
    with pytest.raises(ConversionError, match="expected one name for 'a', got a second: 'c'"):
        parse_names(b"a=b\na=c")
