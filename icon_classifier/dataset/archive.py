"""Photos from an archive, read without unpacking it.

Nothing is ever written to the disk under a name that the archive chose: its files are read one by
one and yielded with their path, and the caller gives them new names. So links, devices and names
that leave the folder have no effect; limits stop archives that would unpack without end.
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

_READ_ERRORS = (
    EOFError,
    OSError,
    RuntimeError,  # zipfile: a password is needed
    NotImplementedError,  # zipfile: an unknown compression method
    ValueError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits of an archive.

    Attributes
    ----------
    max_bytes : int
        Size of all its files together, unpacked (bytes).
    max_files : int
        Number of entries, folders included.
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
        A tar archive, compressed or not, or a zip archive; recognised by its contents.
    photo : Limits
        Limits of one photo; larger files are skipped.
    limits : ArchiveLimits
        Limits of all files together.

    Yields
    ------
    path : PurePosixPath
        Relative, without any ``..``.
    data : bytes
        The file's contents.

    Raises
    ------
    DatasetError
        If the archive is damaged, of an unknown kind, larger than the limits, or has names that
        leave its folder.
    """
    size = count = 0
    try:
        # One record more, since tarfile reads whole records.
        for name, length, opener in _members(file, photo.max_bytes + tarfile.RECORDSIZE):
            count += 1
            size += length
            if count > limits.max_files or size > limits.max_bytes:
                raise DatasetError(
                    f"{file} unpacks to more than {limits.max_bytes} bytes or {limits.max_files} "
                    "files; the rest was not read"
                )
            path = _safe(name, file)
            opened = opener() if opener and length <= photo.max_bytes else None
            if opened is None:
                continue
            with opened:
                # One byte more than announced shows a false length.
                data = opened.read(length + 1)
            if len(data) != length:
                raise DatasetError(
                    f"{file}: {name}: expected {length} bytes as announced, got {len(data)}"
                )
            yield path, data
    except _READ_ERRORS as error:
        raise DatasetError(f"{file} is damaged or not a supported archive: {error}") from error


def _members(
    file: Path, max_read: int
) -> Iterator[tuple[str, int, Callable[[], IO[bytes] | None] | None]]:
    """Yield name and length of each entry, and a function that opens it; None if not a file."""
    opener: Callable[[], IO[bytes] | None] | None
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            for info in packed.infolist():
                link = info.external_attr >> 28 == 0o12  # a symbolic link, packed on Unix
                is_file = not info.is_dir() and not link
                opener = partial(packed.open, info) if is_file else None
                yield info.filename, info.file_size, opener
        return
    with (
        _open_decompressed(file) as stream,
        tarfile.open(fileobj=_Bounded(stream, max_read)) as tar,
    ):
        for member in tar:
            opener = partial(tar.extractfile, member) if member.isreg() else None
            yield member.name, member.size, opener


def _open_decompressed(file: Path) -> IO[bytes]:
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
    """A stream with a limit on a single read.

    A tar archive can announce a name of some gigabytes, which tarfile would read into memory.
    """

    def __init__(self, stream: IO[bytes], max_read: int) -> None:
        self._stream = stream
        self._max = max_read

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._max:
            raise tarfile.ReadError(f"expected a read of at most {self._max} bytes, got {size}")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _safe(name: str, file: Path) -> PurePosixPath:
    """Refuse absolute names, drives and ``..``; on Windows a backslash is a slash."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.as_posix().partition("/")[0]:
        raise DatasetError(f"{file}: {name!r} leaves the folder; do not trust this archive")
    return path
