"""Read a file of ``torch.save``, the format of export.pkl, without running anything in it.

The file is a zip of one pickle, which :mod:`.unpickler` parses, and the data of each tensor. Only
the standard library is used.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icon_classifier.conversion.unpickler import parse_pickle
from icon_classifier.errors import ConversionError, UntrustedExportError

MAX_PICKLE_BYTES = 64 * 2**20
"""Largest pickle that is parsed; those of image models have some 100 kB."""

_COPY_AGAIN = "if it was copied here, copy it again"


@dataclass(frozen=True)
class Archive:
    """A file of ``torch.save``: the saved object and the data of its tensors.

    Parameters
    ----------
    root : object
        The saved object, made of the symbols of :mod:`icon_classifier.conversion.unpickler` and
        built-ins.
    path : pathlib.Path
        The file.
    prefix : str
        The folder inside the archive, with its slash.
    """

    root: Any
    path: Path
    prefix: str

    @contextmanager
    def open_storages(self) -> Iterator[Callable[[str, int], bytes]]:
        """Open the file for reading the data of tensors.

        Yields
        ------
        callable
            Given the key of a storage and its number of bytes, returns the bytes. Raises
            ConversionError where they are missing, damaged, or more or fewer.

        Raises
        ------
        ConversionError
            The file can no longer be read.
        """
        try:
            archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ConversionError(f"{self.path} is damaged ({error}); {_COPY_AGAIN}") from error

        def read(key: str, size: int) -> bytes:
            try:
                entry = archive.getinfo(f"{self.prefix}data/{key}")
                if entry.file_size == size and entry.compress_type == zipfile.ZIP_STORED:
                    return archive.read(entry)
            except (zipfile.BadZipFile, KeyError, OSError, RuntimeError) as error:
                raise ConversionError(f"{self.path} is damaged ({error}); {_COPY_AGAIN}") from error
            raise ConversionError(
                f"{self.path}: expected {size} uncompressed bytes in data/{key}, "
                f"got {entry.file_size}"
            )

        with archive:
            yield read


def open_archive(path: Path) -> Archive:
    """Read a file of ``torch.save`` (zip format, torch 1.6 and later) without running it.

    Raises
    ------
    UntrustedExportError
        The pickle names something that a model has no use for, or uses what only a crafted pickle
        uses. The message names it.
    ConversionError
        The file is missing, damaged, or of another format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pkl")]
            if len(names) != 1 or names[0].count("/") != 1 or not names[0].endswith("/data.pkl"):
                raise UntrustedExportError(
                    f"{path}: expected one pickle in the archive, got {names[:5]}"
                )
            entry = archive.getinfo(names[0])
            if entry.file_size > MAX_PICKLE_BYTES or entry.compress_type != zipfile.ZIP_STORED:
                raise UntrustedExportError(f"{path}: the pickle is compressed or far too large")
            prefix = names[0].removesuffix("data.pkl")
            order = f"{prefix}byteorder"
            if order in archive.namelist() and (
                archive.getinfo(order).file_size > 6 or archive.read(order) != b"little"
            ):
                raise ConversionError(f"{path}: was saved on a big-endian machine")
            program = archive.read(entry)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise ConversionError(
            f"{path} is not a file of torch.save, or it is damaged ({error}); {_COPY_AGAIN}"
        ) from error
    try:
        return Archive(parse_pickle(program), path, prefix)
    except ConversionError as error:
        raise type(error)(f"{path}: {error}") from error
