"""Read a file of ``torch.save``, the format of export.pkl, without running anything that is in it.

The file is a zip: one pickle, which :mod:`.unpickler` reads, and the bytes of each tensor beside
it. Only the standard library is used.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icon_classifier.conversion.unpickler import follow
from icon_classifier.errors import ConversionError, UntrustedExportError

MAX_PICKLE_BYTES = 64 * 2**20
"""Largest pickle that is followed; those of image models have some 100 kB."""

_DAMAGED = "This export.pkl is damaged; please copy it again from where it was made."


@dataclass(frozen=True)
class Archive:
    """A file of ``torch.save``: the object it holds, and the bytes of its tensors.

    Parameters
    ----------
    root : object
        What was saved, in the records of :mod:`icon_classifier.conversion.unpickler` and builtins.
    path : pathlib.Path
        The file.
    prefix : str
        The folder inside the archive, with its slash.
    """

    root: Any
    path: Path
    prefix: str

    @contextmanager
    def numbers(self) -> Iterator[Callable[[str, int], bytes]]:
        """Open the file for reading the bytes of storages.

        Yields
        ------
        callable
            Given the key of a storage and how many bytes are expected there, returns them. Raises
            ConversionError where they are missing, damaged, or more or fewer.

        Raises
        ------
        ConversionError
            The file cannot be read any more.
        """
        try:
            archive = zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ConversionError(f"{self.path}: {error}", words=_DAMAGED) from error

        def read(key: str, size: int) -> bytes:
            try:
                entry = archive.getinfo(f"{self.prefix}data/{key}")
                if entry.file_size == size and entry.compress_type == zipfile.ZIP_STORED:
                    return archive.read(entry)
            except (zipfile.BadZipFile, KeyError, OSError, RuntimeError) as error:
                raise ConversionError(f"{self.path}: {error}", words=_DAMAGED) from error
            raise ConversionError(
                f"{self.path}: expected {size} plain bytes in data/{key}, came {entry.file_size}",
                words=_DAMAGED,
            )

        with archive:
            yield read


def open_archive(path: Path) -> Archive:
    """Read a file of ``torch.save`` (zip format, torch 1.6 and later) without running it.

    Raises
    ------
    UntrustedExportError
        The pickle names something that a model has no use for, or does what only a crafted one
        does. The message names it.
    ConversionError
        The file is missing, damaged, or of another format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pkl")]
            if len(names) != 1 or names[0].count("/") != 1 or not names[0].endswith("/data.pkl"):
                raise UntrustedExportError(
                    f"{path}: expected one pickle in the archive, came {names[:5]}"
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
    except FileNotFoundError as error:
        raise ConversionError(
            f"{path}: no such file",
            words="There is no export.pkl here; please train a model or copy one here.",
        ) from error
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise ConversionError(
            f"{path}: not a file of torch.save ({error})",
            words=_DAMAGED,
        ) from error
    try:
        return Archive(follow(program), path, prefix)
    except UntrustedExportError as error:
        raise UntrustedExportError(f"{path}: {error}", words=error.words) from error
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}", words=_DAMAGED) from error
