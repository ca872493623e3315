"""The files of a folder or an archive, read one after the other; an archive is not unpacked.

Nothing is ever written to the disk under a name that the archive chose: its files are read one by
one and yielded with their path, and the caller gives them new names. So links, devices and names
that leave the folder have no effect; limits stop archives that would unpack without end.
"""

import bz2
import gzip
import lzma
import os
import re
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from icon_classifier.errors import DatasetError
from icon_classifier.images import Limits

Content = bytes | str | None
Wanted = Callable[[PurePosixPath], bool]

_MAX_BYTES = Limits().max_bytes
_TOO_LARGE = f"larger than {_MAX_BYTES // 2**20} MB"

_SAMPLE = 10_000
"""Letters by which the encoding of names is guessed."""

EMPTY_FOLDER = "a folder without files"
"""In place of the content of a folder that holds nothing."""

_UTF8 = 0x800
"""The flag of a name in UTF-8 (APPNOTE 4.4.4)."""

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


def read_folder(
    folder: Path, wanted: Wanted, *, skip: Path | None = None
) -> Iterator[tuple[PurePosixPath, Content]]:
    """Read the files of a folder one after the other, and those of folders that links lead to.

    Parameters
    ----------
    folder : Path
        It is only read.
    wanted : callable
        Whether the file of a path is to be read.
    skip : Path, optional
        A folder within it that is left out.

    Yields
    ------
    path : PurePosixPath
        Relative, its letters composed.
    content : bytes, str or None
        What the file holds; why it, or a whole folder, cannot be read; None where it is not wanted.
        :data:`EMPTY_FOLDER` where the path is that of a folder which holds nothing.

    Raises
    ------
    DatasetError
        If there is no such folder, or it cannot be opened.
    """
    try:
        os.scandir(folder).close()
    except (FileNotFoundError, NotADirectoryError) as missing:
        raise DatasetError(f"there is no folder {folder}") from missing
    except OSError as failed:
        raise DatasetError(f"the folder {folder} cannot be opened: {failed.strerror}") from failed
    passed = {skip.resolve()} if skip else set()  # and those that were read: links may lead back
    errors: list[OSError] = []
    for name, folders, files in os.walk(folder, onerror=errors.append, followlinks=True):
        place = Path(name)
        if place.resolve() in passed:
            folders.clear()
            continue
        passed.add(place.resolve())
        relative = place.relative_to(folder).as_posix()
        within = PurePosixPath(unicodedata.normalize("NFC", relative))
        if not (folders or files):
            yield within, EMPTY_FOLDER
        folders.sort()
        for file in sorted(files):
            path = within / unicodedata.normalize("NFC", file)
            yield path, _read_file(place / file) if wanted(path) else None
    for error in errors:
        place = Path(error.filename)
        yield PurePosixPath(place.relative_to(folder)), f"cannot be opened: {error.strerror}"


def _read_file(path: Path) -> Content:
    try:
        if not path.is_file():
            return "not a file"
        if path.stat().st_size > _MAX_BYTES:
            return _TOO_LARGE
        return path.read_bytes()
    except OSError as error:
        return f"cannot be opened: {error.strerror}"


def read_archive(
    file: Path, wanted: Wanted, *, limits: ArchiveLimits = ArchiveLimits()
) -> Iterator[tuple[PurePosixPath, Content]]:
    """Read the files of an archive one after the other.

    Parameters
    ----------
    file : Path
        A tar archive, compressed or not, or a zip archive; recognised by its contents.
    wanted : callable
        Whether the file of a path is to be read.
    limits : ArchiveLimits
        Limits of all files together.

    Yields
    ------
    path : PurePosixPath
        Relative, without any ``..``, its letters composed.
    content : bytes, str or None
        What the file holds; why it is not read; None where it is not wanted.

    Raises
    ------
    DatasetError
        If the archive is damaged, of an unknown kind, larger than the limits, or has names that
        leave its folder.
    """
    size = count = 0
    try:
        # One record more, since tarfile reads whole records.
        for name, length, opener in _members(file, _MAX_BYTES + tarfile.RECORDSIZE):
            count += 1
            size += length
            if count > limits.max_files or size > limits.max_bytes:
                raise DatasetError(
                    f"{file} unpacks to more than {limits.max_bytes} bytes or {limits.max_files} "
                    "files; the rest was not read"
                )
            path = _safe(name, file)
            if opener is None:
                continue
            if not wanted(path):
                yield path, None
            elif length > _MAX_BYTES:
                yield path, _TOO_LARGE
            elif opened := opener():
                with opened:
                    # One byte more than announced shows a false length.
                    data = opened.read(length + 1)
                if len(data) != length:
                    raise DatasetError(
                        f"{file}: {name}: expected {length} bytes as announced, got {len(data)}"
                    )
                yield path, data
    except _READ_ERRORS as error:
        why = str(error).partition(":\n")[0]  # without what tarfile tried
        raise DatasetError(f"{file} is damaged or not a supported archive: {why}") from error


def is_archive(file: Path) -> bool:
    """Whether a file begins like an archive, or is one by its end as a zip is."""
    try:
        next(read_archive(file, lambda _: False), None)
    except DatasetError:
        return False
    return True


def _members(
    file: Path, max_read: int
) -> Iterator[tuple[str, int, Callable[[], IO[bytes] | None] | None]]:
    """Yield name and length of each entry, and a function that opens it; None if not a file."""
    opener: Callable[[], IO[bytes] | None] | None
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            infos = packed.infolist()
            encoding = _encoding([each.filename for each in infos if not each.flag_bits & _UTF8])
            for info in infos:
                link = info.external_attr >> 28 == 0o12  # a symbolic link, packed on Unix
                is_file = not info.is_dir() and not link
                opener = partial(packed.open, info) if is_file else None
                name = info.filename
                if not info.flag_bits & _UTF8:
                    name = name.encode("cp437").decode(encoding)
                yield name, info.file_size, opener
        return
    with (
        _open_decompressed(file) as stream,
        tarfile.open(fileobj=_Bounded(stream, max_read)) as tar,
    ):
        for member in tar:
            opener = partial(tar.extractfile, member) if member.isreg() else None
            yield member.name, member.size, opener


def _encoding(names: Iterable[str]) -> str:
    """Guess the encoding of names in a zip that does not state it.

    Parameters
    ----------
    names : iterable of str
        As zipfile decodes them, which is with cp437.
    """
    parts = {part for name in names for part in name.split("/") if not part.isascii()}
    text = "\n".join(parts).encode("cp437")
    best, share = "cp437", 0.0
    if _is_latin("".join(parts)):
        share = 1.0
    for encoding, common in _EAST_ASIAN.items():
        try:
            letters = [each for each in text.decode(encoding) if not each.isascii()][:_SAMPLE]
        except UnicodeDecodeError:
            continue
        fitting = sum(map(common, letters)) / max(len(letters), 1)
        if fitting > share:
            best, share = encoding, fitting
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return best
    return "utf-8"  # no other text is valid UTF-8 by chance


def _is_latin(text: str) -> bool:
    """Whether a text has some letters with accents among more without."""
    accented = [each for each in text if not each.isascii()]
    plain = sum(each.isascii() and each.isalpha() for each in text)
    return len(accented) < plain and all(
        unicodedata.name(each, "").startswith("LATIN") for each in accented
    )


def _is_in(encoding: str) -> Callable[[str], bool]:
    """Return a function that says if a character is an ideograph or kana of two bytes there."""

    def is_in(character: str) -> bool:
        if not "\u3040" <= character <= "\u9fff":
            return False
        try:
            return len(character.encode(encoding)) > 1
        except UnicodeEncodeError:
            return False

    return is_in


_EAST_ASIAN = {
    "cp932": _is_in("shift_jis"),
    "gb18030": _is_in("gb2312"),
    "cp950": lambda each: _is_in("big5")(each) and each.encode("big5") < b"\xc7",
}
"""Encodings of names on Windows in Japan, China and Taiwan: whether a character is common there."""


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
    """Refuse absolute names, drive letters and ``..``; on Windows a backslash is a slash."""
    path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", path.as_posix()):
        raise DatasetError(f"{file}: {name!r} leaves the folder; do not trust this archive")
    return path
