"""Read a file of ``torch.save`` or ``pickle``, the formats of export.pkl, without running it.

:mod:`.unpickler` parses the pickle. The data of the tensors is beside it: in a zip since torch 1.6,
behind it before, and inside it in an ordinary pickle. Only the standard library is used.
"""

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any, cast

from icon_classifier.conversion.other_files import check_names, check_start
from icon_classifier.conversion.unpickler import LEAVE_OUT, Storage, Unpickler, shorten
from icon_classifier.errors import ConversionError, UntrustedExportError

MAX_PICKLE_BYTES = 20 * 2**20
"""Largest pickle that is parsed in a zip; those of image models have some 100 kB."""

MAX_ENTRIES = 100_000
"""Most entries of a zip; a tensor is one."""

MAX_COMPRESSION = 10
"""Largest ratio of the bytes that are read from a zip to its own; that of weights is below 2."""

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""What a file of torch.save begins with, in the format before torch 1.6."""

BIG_ENDIAN = "it was saved on a big-endian machine; train and export it on a usual one"

ELEMENT_BYTES = {
    **dict.fromkeys(("BoolStorage", "ByteStorage", "CharStorage", "UntypedStorage"), 1),
    **dict.fromkeys(("BFloat16Storage", "HalfStorage", "ShortStorage"), 2),
    **dict.fromkeys(("FloatStorage", "IntStorage"), 4),
    **dict.fromkeys(("ComplexFloatStorage", "DoubleStorage", "LongStorage"), 8),
}

_READ_ERRORS = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError),
    *(MemoryError, OverflowError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
"""What zipfile and the reading of the old format raise on damaged files."""


@dataclass(frozen=True)
class Archive:
    """A file of ``torch.save`` or ``pickle``: the saved object and the data of its tensors.

    Parameters
    ----------
    root : object
        The saved object, made of the symbols of :mod:`icon_classifier.conversion.unpickler` and
        built-ins.
    path : pathlib.Path
        The file.
    prefix : str
        The folder inside a zip, with its slash.
    storages : dict
        The data of the tensors by key, where the file is not a zip.
    """

    root: Any
    path: Path
    prefix: str = ""
    storages: dict[str, bytes] = field(default_factory=dict)

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
        if not self.prefix:
            yield self._read_storage
            return
        try:
            archive = zipfile.ZipFile(self.path)
            left = MAX_COMPRESSION * self.path.stat().st_size
        except _READ_ERRORS as error:
            raise _damaged(error) from error

        def read(key: str, size: int) -> bytes:
            nonlocal left
            left -= size
            if left < 0:
                raise ConversionError(
                    f"expected at most {MAX_COMPRESSION} times the bytes of the file "
                    "in its tensors, got more; save the Learner again with learn.export()"
                )
            try:
                entry = archive.getinfo(f"{self.prefix}data/{key}")
                if entry.file_size == size:
                    return archive.read(entry)
            except _READ_ERRORS as error:
                raise _damaged(error) from error
            raise ConversionError(
                f"expected {size} bytes in data/{key}, got {entry.file_size}; "
                "copy or download it again"
            )

        with archive:
            yield read

    def _read_storage(self, key: str, size: int) -> bytes:
        data = self.storages.get(key, b"")
        if len(data) != size:
            raise ConversionError(
                f"expected {size} bytes in the storage {key}, got {len(data)}; "
                "copy or download it again"
            )
        return data


def open_archive(path: Path) -> Archive:
    """Read a file of ``torch.save`` or ``pickle`` without running it.

    Raises
    ------
    UntrustedExportError
        The pickle uses what only a crafted pickle uses. The message names it.
    NotAnExportError
        It is a file of another kind. The message says which, and what to do.
    ConversionError
        The file is missing or damaged.
    """
    try:
        is_zip = check_start(path)
        archive = _open_zip(path) if is_zip else _open_pickle(path)
    except FileNotFoundError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}") from error
    except _READ_ERRORS as error:
        raise ConversionError(f"{path}: {_damaged(error)}") from error
    except ConversionError as error:
        raise type(error)(f"{path}: {error}") from error
    return archive


def _damaged(error: Exception) -> ConversionError:
    return ConversionError(
        f"the file is damaged or incomplete; copy or download it again ({error})"
    )


def _open_zip(path: Path) -> Archive:
    """Read the format of torch 1.6 and later."""
    if not zipfile.is_zipfile(path):
        raise ConversionError("the file is cut off; copy or download it again")
    with path.open("rb") as file:
        entries = sum(block.count(b"PK\1\2") for block in iter(lambda: file.read(2**20), b""))
    if entries > MAX_ENTRIES:
        raise ConversionError(f"the archive has more than {MAX_ENTRIES:,} entries; {LEAVE_OUT}")
    with zipfile.ZipFile(path) as archive:
        check_names(archive.namelist())
        names = [name for name in archive.namelist() if name.endswith(".pkl")]
        if len(names) != 1 or names[0].count("/") != 1 or not names[0].endswith("/data.pkl"):
            raise UntrustedExportError(f"expected one pickle in the archive, got {shorten(names)}")
        if archive.getinfo(names[0]).file_size > MAX_PICKLE_BYTES:
            raise ConversionError(
                f"the pickle in the archive is larger than {MAX_PICKLE_BYTES // 2**20} MB; "
                f"{LEAVE_OUT}"
            )
        prefix = names[0].removesuffix("data.pkl")
        order = f"{prefix}byteorder"
        if order in archive.namelist():
            with archive.open(order) as entry:
                if entry.read(7) != b"little":
                    raise ConversionError(BIG_ENDIAN)
        program = archive.read(names[0])
    return Archive(Unpickler().load(io.BytesIO(program)), path, prefix)


def _open_pickle(path: Path) -> Archive:
    """Read the format of torch.save before 1.6, or an ordinary pickle."""
    storages: dict[str, bytes] = {}
    left = path.stat().st_size

    def load_bytes(data: bytes) -> Storage:
        """Return the storage whose file of torch.save is a value in an ordinary pickle."""
        nonlocal left
        left -= len(data)
        inner = io.BytesIO(data)
        reader = Unpickler(unpickler.steps)
        found: dict[str, bytes] = {}
        if left < 0 or reader.load(inner) != MAGIC_NUMBER:
            raise ValueError("expected the data of a tensor")
        storage = _load_legacy(reader, inner, found)
        key = str(len(storages))
        storages[key] = found[storage.key]
        return Storage(storage.kind, key, storage.numel)

    unpickler = Unpickler(load_bytes=load_bytes)
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
        pages = cast("IO[bytes]", mapped)  # faster than the file, and reads no more than there is
        root = unpickler.load(pages)
        if root == MAGIC_NUMBER:
            root = _load_legacy(unpickler, pages, storages)
    return Archive(root, path, storages=storages)


def _load_legacy(unpickler: Unpickler, file: IO[bytes], storages: dict[str, bytes]) -> Any:
    """Read what follows the magic number; add the storages, which follow the pickles."""
    _version, system, root, keys = (unpickler.load(file) for _ in range(4))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ConversionError(BIG_ENDIAN)
    for key in keys:
        (numel,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(numel * ELEMENT_BYTES[unpickler.storages[key].kind])
    return root
