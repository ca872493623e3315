"""Write a file so that readers see the old one or the new one; hash, decode and name files."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
"""Ends the name of a file that is being written; a run that was killed may leave one behind."""

NO_CLASS = "_something_else"
"""The folder of photos that show none of the classes, beside those of the labels."""

_MAX_NAME = 255
"""Most bytes of a folder's name."""


@contextlib.contextmanager
def replacing(target: str | Path) -> Iterator[Path]:
    """Write a file beside its final name and rename it at the end of the block.

    Parameters
    ----------
    target : str or pathlib.Path
        The file to write or replace. Its folder must exist.

    Yields
    ------
    pathlib.Path
        Where to write, in the same folder. It becomes the target when the block ends, and is
        removed when the block raises.
    """
    target = Path(target)
    # Dotted, so that a folder of photos never shows it; random, so that two processes never share.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        # On the disk before it has the name: a machine that loses power must not keep a half file.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(target: str | Path, content: bytes | str) -> Path:
    """Write a whole file in one step; text as UTF-8. Returns the path.

    Raises
    ------
    OSError
        If it cannot be written; the old file is then still there.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return Path(target)


def sha256_of(path: str | Path) -> str:
    """Hash a file.

    Returns
    -------
    str
        SHA-256 as 64 lower-case hexadecimal digits.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode_text(data: bytes) -> str:
    """Decode a text that any program may have written: UTF-8, UTF-16 as Windows has it, or Latin.

    A mark at its start is left out. Nothing is refused: bytes that are no text become some letters.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors="replace")
    if len(data) > 1 and b"\0" in data[:2]:  # UTF-16 of a Latin letter, without its mark
        return data.decode("utf-16-le" if data[1] == 0 else "utf-16-be", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def folder_name(label: str) -> str:
    """Return the name of the folder that holds the photos of a label.

    Parameters
    ----------
    label : str
        Any text. The folder may not leave the folder around it or be hidden.

    Returns
    -------
    str
        At most 255 bytes of UTF-8, its letters composed; empty if nothing of the label is left.
    """
    name = re.sub(r"[/\\\0\ud800-\udfff]", "_", unicodedata.normalize("NFC", label)).strip()
    name = re.sub(r"^\.", "_", name)
    return name.encode()[:_MAX_NAME].decode(errors="ignore")
