"""The directories of a TIFF and of EXIF, which has the same form."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from icon_classifier.errors import ImageTooLargeError
from icon_classifier.structure.deflate import check_deflate
from icon_classifier.structure.jpeg import check_sequential_jpeg
from icon_classifier.structure.reading import MAX_UNPACKED, expect, expect_unpacked, number_at

MAX_ENTRIES = 1_000
"""Entries of a directory of a TIFF, which has 20 to 200; Pillow reads it up to six times."""

MAX_VALUES = 300_000
"""Numbers in a directory of TIFF or EXIF. A palette has 196,608 at most, an index of strips one for
each row of each component; Pillow makes a Python object of each."""

MAX_PIECES = 100_000
"""Strips or tiles of a TIFF. A picture has at most as many rows as `Limits.max_side`, and tiles are
of 16 x 16 pixels at least; each costs Pillow 5 µs and 300 bytes."""

MAX_ZSTD = 2**22
"""Bytes of a TIFF compressed by Zstandard, which no camera or scanner writes: a block of 16 bytes
costs 4 µs."""

MAX_EXIF_ENTRIES = 100_000
"""Entries of EXIF, which has about 100; bytes that look like a header by chance may add 65,535."""

MAX_EXIF_HEADERS = 1_000
"""Headers in EXIF: one, a few more for what makers and editors embed, and by chance."""

TIFF_HEADER = re.compile(rb"MM\0[*+]|II[*+]\0|MM\*\0|II\0\*")

_TIFF_WIDTHS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)
"""Bytes of a value by type (TIFF 6.0, section 2; BigTIFF), 0 for those that Pillow ignores."""

_TEXT = {1, 2, 7}
"""Types whose values are kept as one string."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES = 256, 257, 258, 259, 277
_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES = 273, 279, 324, 325
_PAGE_EXIF, _GPS, _INTEROPERABILITY = 34_665, 34_853, 40_965
_NUMBERS = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES),
    *(_PAGE_EXIF, _GPS, _INTEROPERABILITY),
}

_LETTERS = dict(zip((1, 3, 4, 6, 8, 9, 13, 16, 17), "BHIbhiIQq", strict=True))
"""Types of whole numbers, which libtiff takes one for the other, as `struct` names them."""

_PLAIN = 1
_JPEGS = (6, 7)
_DEFLATE = (8, 32_946)
_LZMA = 34_925
_ZSTD = 50_000
"""Compressions of strips and tiles; LZMA takes three times as long as others."""


def check_tiff(data: bytes) -> None:
    """Check the first page of a TIFF; later ones are not read."""
    page = _read_numbers(data)
    for tag in (_PAGE_EXIF, _GPS, _INTEROPERABILITY):
        for offset in page.get(tag, [])[:1]:
            _read_numbers(data, offset)
    compression = page.get(_COMPRESSION, [_PLAIN])[0]
    if compression != _PLAIN:
        width, height, samples = (page.get(tag, [1])[0] for tag in (_WIDTH, _HEIGHT, _SAMPLES))
        bits = page.get(_BITS, [1])
        most = MAX_UNPACKED // 3 if compression == _LZMA else MAX_UNPACKED
        expect_unpacked(width * height, max(sum(bits), bits[0] * samples), most)
    if compression in _DEFLATE:
        check_deflate(data)
    elif compression == _ZSTD and len(data) > MAX_ZSTD:
        raise ImageTooLargeError(f"expected at most {MAX_ZSTD} bytes of Zstandard")
    for offsets, sizes in ((_STRIPS, _STRIP_SIZES), (_TILES, _TILE_SIZES)):
        pieces = page.get(offsets, [])
        expect(MAX_PIECES, len(pieces), "strips or tiles of a TIFF")
        if compression == _PLAIN:
            continue
        lengths = page.get(sizes, [])
        if not any(lengths):  # libtiff lets each end where the file does
            lengths = [len(data)] * len(pieces)
        # Two that share their bytes are read twice.
        expect(len(data), sum(map(abs, lengths)), "bytes in all strips or tiles of a TIFF")
        if compression in _JPEGS:
            for at, length in zip(pieces, lengths, strict=False):
                check_sequential_jpeg(data, at, at + length)


def check_exif(exif: bytes) -> None:
    """Check EXIF, whose first directory is read for the orientation; decoders search its header."""
    entries = 0
    for headers, header in enumerate(TIFF_HEADER.finditer(exif), 1):
        expect(MAX_EXIF_HEADERS, headers, "headers of EXIF")
        values = 0
        for _, kind, amount, _ in _entries(exif, header.start()):
            entries += 1
            expect(MAX_EXIF_ENTRIES, entries, "entries of EXIF")
            values += 0 if kind in _TEXT else amount
            expect(MAX_VALUES, values, "numbers in EXIF")


def _read_numbers(data: bytes, offset: int | None = None) -> dict[int, list[int]]:
    """Return numbers of a directory of a TIFF, the first one by default, by tag."""
    order = "<" if data.startswith(b"II") else ">"
    found: dict[int, list[int]] = {}
    values = 0
    for number, (tag, kind, amount, at) in enumerate(_entries(data, 0, offset), 1):
        expect(MAX_ENTRIES, number, "entries of a directory")
        values += amount if kind not in _TEXT or tag in _NUMBERS else 0
        expect(MAX_VALUES, values, "numbers in a directory")
        if amount and tag in _NUMBERS and kind in _LETTERS:
            numbers = struct.unpack_from(f"{order}{amount}{_LETTERS[kind]}", data, at)
            found.setdefault(tag, list(numbers))
    return found


def _entries(
    data: bytes, header: int, offset: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield tag, type, count and place of each entry of a directory of TIFF or EXIF.

    Parameters
    ----------
    data : bytes
        The whole file.
    header : int
        Where the header is, from which offsets are counted.
    offset : int, optional
        Where the directory is; the first one by default.

    Notes
    -----
    An entry of unknown type, or with values beyond the end of the file, has the count 0: Pillow
    leaves it out.
    """
    order = "<" if data.startswith(b"II", header) else ">"
    big = b"+" in data[header + 2 : header + 4]
    word, counted, size = (8, 8, 20) if big else (4, 2, 12)
    if offset is None:
        offset = number_at(data, header + (8 if big else 4), word, order)
    first = header + offset + counted
    last = min(first + number_at(data, first - counted, counted, order) * size, len(data)) - size
    for at in range(first, last + 1, size):
        tag, kind = number_at(data, at, 2, order), number_at(data, at + 2, 2, order)
        amount, place = number_at(data, at + 4, word, order), at + 4 + word
        width = _TIFF_WIDTHS[kind] if kind < len(_TIFF_WIDTHS) else 0
        if amount * width > word:
            place = header + number_at(data, place, word, order)
        if not width or place + amount * width > len(data):
            amount = 0
        yield tag, kind, amount, place
