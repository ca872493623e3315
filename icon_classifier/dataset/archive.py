"""Photos from an archive, read without unpacking it.

Nothing is ever written to the disk under a name that the archive chose: its files are read one by
one and handed on with their path, and who keeps them names them anew. So links, devices and names
that climb out of a folder have nothing to act on; limits stop what would unpack without end.
"""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from icon_classifier.errors import DatasetError
from icon_classifier.images import Limits

_DAMAGE = (
    EOFError,
    OSError,
    RuntimeError,  # zipfile: a password is needed
    NotImplementedError,  # zipfile: a method of compression that is not known
    ValueError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may unpack to.

    Attributes
    ----------
    max_bytes : int
        All its files together (bytes).
    max_files : int
        Number of entries, folders and all.
    """

    max_bytes: int = 20 * 2**30
    max_files: int = 500_000


def read_archive(
    file: Path, *, photo: Limits = Limits(), limits: ArchiveLimits = ArchiveLimits()
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Read the files of an archive one after the other.

    Parameters
    ----------
    file : Path
        A tar archive, packed or not, or a zip archive; told by its contents.
    photo : Limits
        What one photo may cost; larger files are passed over.
    limits : ArchiveLimits
        What all together may cost.

    Yields
    ------
    path : PurePosixPath
        Relative, without any ``..``.
    data : bytes
        The file's contents.

    Raises
    ------
    DatasetError
        If the archive is damaged, of no known kind, larger than the limits, or has names that
        climb out of their folder.
    """
    size = count = 0
    try:
        # A block more: tarfile reads whole blocks.
        for name, length, opener in _members(file, photo.max_bytes + tarfile.RECORDSIZE):
            count += 1
            size += length
            if count > limits.max_files or size > limits.max_bytes:
                raise DatasetError(
                    f"{file} unpacks to more than {limits.max_bytes} bytes or {limits.max_files} "
                    "files; it was not read to its end"
                )
            path = _safe(name, file)
            opened = opener() if opener and length <= photo.max_bytes else None
            if opened is None:
                continue
            with opened:
                # One byte more than it says would show a false length.
                data = opened.read(length + 1)
            if len(data) != length:
                raise DatasetError(f"{file}: {name} has another length than the archive says")
            yield path, data
    except _DAMAGE as error:
        raise DatasetError(f"{file} is damaged or no archive that is read: {error}") from error


def _members(
    file: Path, max_read: int
) -> Iterator[tuple[str, int, Callable[[], IO[bytes] | None] | None]]:
    """Name and length of each entry, and what opens it; None for what is no file."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            for info in packed.infolist():
                link = info.external_attr >> 28 == 0o12  # a symbolic link, packed on Unix
                plain = not info.is_dir() and not link
                yield info.filename, info.file_size, partial(packed.open, info) if plain else None
        return
    with _unpacking(file) as stream, tarfile.open(fileobj=_Bounded(stream, max_read)) as tar:
        for member in tar:
            plain = member.isreg()
            yield member.name, member.size, partial(tar.extractfile, member) if plain else None


def _unpacking(file: Path) -> IO[bytes]:
    with file.open("rb") as opened:
        start = opened.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(file))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(file))
    if start == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.open(file))
    return file.open("rb")


class _Bounded:
    """A stream that refuses to read much at once.

    A tar archive can announce a name of some gigabytes, which tarfile would read into memory.
    """

    def __init__(self, stream: IO[bytes], max_read: int) -> None:
        self._stream = stream
        self._max = max_read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._max:
            raise tarfile.ReadError(f"expected at most {self._max} bytes at once, got {size}")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _safe(name: str, file: Path) -> PurePosixPath:
    """Refuse absolute names, drives and ``..``; on Windows a backslash is a slash."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.as_posix().partition("/")[0]:
        raise DatasetError(f"{file}: {name!r} climbs out of its folder; do not trust this archive")
    return path
