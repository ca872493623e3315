"""Which export.pkl is the owner's: the one whose SHA-256 is recorded beside it."""

import hashlib
import logging
import os
import uuid
from pathlib import Path

from icon_classifier.errors import ConversionError, UntrustedExportError

_log = logging.getLogger(__name__)


def record_hash(export: str | Path) -> Path:
    """Record the SHA-256 of an export.pkl beside it: "I made this file, or I trust who did".

    Returns
    -------
    pathlib.Path
        The file written, in the format of ``sha256sum``.

    Raises
    ------
    ConversionError
        The file cannot be read, or its folder not be written to.
    """
    export = Path(export)
    record = _record(export)
    replace_file(record, f"{sha256(export)}  {export.name}\n".encode())
    return record


def _record(export: Path) -> Path:
    return export.with_name(f"{export.name}.sha256")


def sha256(path: Path) -> str:
    """Hash a file, in hexadecimal digits.

    Raises
    ------
    ConversionError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> ConversionError:
    """Say in our own error that a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return ConversionError(
            f"there is no {path}",
            words="There is no export.pkl here; please train a model or copy one here.",
        )
    return ConversionError(f"cannot read {path}: {error.strerror}")


def check_hash(export: Path, *, trust: bool) -> str:
    """Return the SHA-256 of an export.pkl after checking that it is the recorded one.

    Parameters
    ----------
    export : pathlib.Path
        The file; its record lies beside it.
    trust : bool
        Record the SHA-256 instead, if it is not on record.

    Raises
    ------
    UntrustedExportError
        It is not on record, and `trust` is false.
    ConversionError
        A file cannot be read or written.
    """
    digest, record = sha256(export), _record(export)
    try:
        recorded = record.read_text("utf-8", "replace").split()
    except FileNotFoundError:
        recorded = []
    except OSError as error:
        raise unreadable(record, error) from error
    if recorded and recorded[0].lower() == digest:
        return digest
    if trust:
        record_hash(export)
        _log.info("recorded the SHA-256 of %s as trusted", export)
        return digest
    found = (
        f"{record.name} names another file ({recorded[0]:.12}…, this one is {digest:.12}…)"
        if recorded
        else f"no SHA-256 is recorded in {record.name}"
    )
    raise UntrustedExportError(
        f"{export} is not known to be yours: {found}. If you made it, or trust who did, run "
        f"'icon-classifier convert --trust {export}' once",
    )


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: readers see the old one or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise ConversionError(
            f"cannot write {path}: {error.strerror}",
            words="The folder of the model cannot be written to; please check its permissions.",
        ) from error
    finally:
        beside.unlink(missing_ok=True)
