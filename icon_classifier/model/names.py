"""Names of classes for people, from a text file beside export.pkl: ``False = dog`` on each line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from icon_classifier.errors import ConversionError


def names_file(export: Path) -> Path:
    """Return the path of the file of names for an export.pkl, which need not exist."""
    return export.with_suffix(".names.txt")


def parse_names(content: bytes) -> dict[str, str]:
    """Return the name of each class that a file names.

    Parameters
    ----------
    content : bytes
        UTF-8; ``class = name`` on each line; ``#`` starts a comment line.

    Raises
    ------
    ConversionError
        A line has no ``=`` or no name, a class has two names, or it is not UTF-8.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConversionError("expected names of classes in UTF-8; save it as UTF-8") from error
    names: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.strip().startswith("#"):
            continue
        label, equals, name = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise ConversionError(
                f"expected a class and its name, such as False=dog, got {line.strip()!r:.80}"
            )
        if label in names:
            raise ConversionError(
                f"expected one name for {label!r:.80}, got a second: {name!r:.80}"
            )
        names[label] = name
    return names


def read_names(path: Path) -> bytes | None:
    """Return the content of a file of names; None where there is no such file.

    Raises
    ------
    ConversionError
        It cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}") from error


def format_names(names: Mapping[str, str]) -> bytes:
    """Return the content of a file of names.

    Raises
    ------
    ConversionError
        A class is one that such a file cannot name.
    """
    lines = "".join(f"{label} = {name}\n" for label, name in names.items())
    content = f"# What the page calls each class of the model.\n{lines}".encode()
    if lost := names.keys() - parse_names(content).keys():
        raise ConversionError(
            f"cannot name the class {min(lost)!r:.80}: expected one that does not begin with # "
            "or a space, and has no = in it"
        )
    return content


def rename(labels: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the labels with their names for people.

    Raises
    ------
    ConversionError
        A name is for a class that is not there, or two classes would have the same name.
    """
    if unknown := names.keys() - set(labels):
        raise ConversionError(
            f"there is no class {min(unknown)!r:.80} to give the name {names[min(unknown)]!r:.80}; "
            f"the classes are: {', '.join(labels):.200}"
        )
    renamed = tuple(names.get(label, label) for label in labels)
    if len(set(renamed)) < len(renamed):
        raise ConversionError(f"expected different names of classes, got {', '.join(renamed):.200}")
    return renamed
