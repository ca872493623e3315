"""A look at the structure of a picture's file before a decoder reads it.

In every format some field lets a few bytes cost a decoder minutes or gigabytes: empty scans,
millions of segments, tiles of one pixel. What no camera and no program writes is refused here,
within milliseconds; all else is left to the decoder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from icon_classifier.errors import DamagedImageError, ImageTooLargeError

MAX_SEGMENTS = 2_000
"""Segments of a JPEG. An extended XMP of 25 MB has 400; each costs Pillow a list entry and 1 µs."""

MAX_TABLES = 2**17
"""Bytes in segments of a JPEG that hold neither metadata nor pixels. A photo has 2 kB in its head
and less than 1 kB a scan; Pillow reads quantization tables and components with Python."""

MAX_PADDING = 2**17
"""Bytes between the segments of a JPEG; each costs Pillow 0.6 µs."""

MAX_EXIF_SEGMENTS = 16
"""EXIF segments of a JPEG. The standard has one; Pillow copies all of them for each."""

MAX_RESOURCES = 20_000
"""Photoshop resources in a JPEG's head, which has about 50; each costs 1 µs."""

MAX_SCANS = 100
"""Scans of a JPEG. Encoders write 10, some 20; the most that make sense are about 64."""

MAX_SCANNED = 1_500_000_000
"""Scans times pixels of a JPEG: 30 scans of 50 megapixels. Even an empty scan visits all pixels."""

MAX_SAMPLES_IN_PARTS = 100_000_000
"""Samples (pixels times components) of a sequential JPEG with one scan for each component: all its
coefficients, of two bytes, are in memory until the last scan is read."""

MAX_CHUNKS = 100_000
"""Chunks of a PNG. Encoders put 8 kB into one, which makes 3,200 in 25 MB; each costs 2 µs."""

MAX_BLOCKS = 200_000
"""Blocks before the first frame of a GIF. They hold 255 bytes; a profile of 1 MB has 4,000."""

MAX_RUN_PIXELS = 3_000_000
"""Pixels of a run-length encoded BMP, which Pillow decodes with Python in up to 0.4 µs a pixel."""

MAX_ENTRIES = 1_000
"""Entries of a directory of a TIFF, which has 20 to 200; Pillow reads it up to six times."""

MAX_VALUES = 300_000
"""Numbers in a directory of TIFF or EXIF. A palette has 196,608 at most, an index of strips one for
each row of each component; Pillow makes a Python object of each."""

MAX_PIECES = 100_000
"""Strips or tiles of a TIFF. A picture has at most as many rows as `Limits.max_side`, and tiles are
of 16 x 16 pixels at least; each costs Pillow 5 µs and 300 bytes."""

MAX_PIECE_BYTES = 200_000_000
"""Bytes of all compressed strips or tiles of a TIFF, which may share the same bytes of the file."""

MAX_EXIF_ENTRIES = 100_000
"""Entries of all EXIF in a file that is no JPEG. There are about 100; bytes that look like a header
by chance may add 65,535."""

MAX_EXIF_HEADERS = 1_000
"""Headers of EXIF in such a file: one, and by chance a few more."""

MAX_ITEM_BYTES = 2**18
"""Bytes of each table of items in an AVIF or HEIC. A grid of 400 tiles has 10 kB; libavif searches
all items for each, and keeps 300 bytes for each byte of an association."""

MAX_BOXES = 20_000
"""Boxes of an AVIF or HEIC. One of 400 tiles has about 1,000; libavif keeps 300 bytes for each."""

MAX_FRAMES = 100_000
"""Frames of a sequence in an AVIF or HEIC: an hour at 25 a second."""

MAX_TILE_PIXELS = 200_000_000
"""Pixels of all pictures of which others are made in an AVIF or HEIC. The tiles of a grid cover it,
and those of its gain map a quarter of it; libheif decodes tiles of any size at 5 ns a pixel."""

MAX_METADATA = 2**26
"""Bytes of metadata in an AVIF or HEIC; those that describe several pictures are kept for each."""

MAX_FURTHER_FRAMES = 8
"""Frames beyond one for each picture in an AVIF, for its layers; hidden ones are decoded, too."""

MAX_UNITS = 20_000
"""Units of coded data (OBU) in an AVIF, three or four for each picture."""

_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""In coded data 0xff is followed by 0 or by a restart marker (0xd0 to 0xd7)."""

_JPEG_WITHOUT_LENGTH = {0x01, 0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)}
"""Markers after which Pillow and libjpeg expect no segment."""

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}

_EXIF_HEADER = re.compile(rb"MM\0[*+]|II[*+]\0|MM\*\0|II\0\*")

_TIFF_WIDTHS = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)
"""Bytes of a value by type (TIFF 6.0, section 2; BigTIFF), 0 for those that Pillow ignores."""

_TEXT = {1, 2, 7}
"""Types whose values are kept as one string."""

_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES, _COMPRESSION, _PAGE_EXIF, _GPS, _INTEROPERABILITY = (
    *(273, 279, 324, 325, 259, 34_665, 34_853, 40_965),
)

_BOXES_OF_BOXES = {b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_ITEM_TABLES = {b"iinf", b"iloc", b"iref", b"ipma"}

Extents = list[tuple[int, int]]
"""Offset and length of each part of an item."""

_PNG_TEXTS = {b"iCCP", b"iTXt", b"tEXt", b"zTXt"}


def check_structure(data: bytes) -> bytes:
    """Refuse a file whose parts would cost its decoder far more than its pixels do.

    Parameters
    ----------
    data : bytes
        The whole file, of any length and format.

    Returns
    -------
    bytes
        What to give to the decoder: the file, or a PNG without its texts and color profile, whose
        sizes Pillow limits to less than honest files have.

    Raises
    ------
    ImageError
        The file is damaged or too large.
    """
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif _EXIF_HEADER.match(data):
        _check_tiff(data)
    elif data.startswith(b"GIF"):
        _check_gif(data)
    elif data.startswith(b"BM"):
        _check_bmp(data)
    else:
        _check_exif(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return _without_texts(data)
        if data[4:8] == b"ftyp":
            _check_items(data)
    return data


def _expect(most: int, got: int, what: str) -> None:
    if got > most:
        raise DamagedImageError(f"expected at most {most} {what}, got {got} or more")


def _number(data: bytes, at: int, size: int, order: str = ">") -> int:
    return int.from_bytes(data[at : at + size], "big" if order == ">" else "little")


def _check_jpeg(data: bytes) -> None:
    at, segments, scans, padding, tables, exif, samples, components = 2, 0, 0, 0, 0, 0, 0, 0
    while found := _JPEG_MARKER.search(data, at):
        marker = data[found.start() + 1]
        segments += 1
        _expect(MAX_SEGMENTS, segments, "segments of a JPEG")
        if not scans:  # the decoder skips bytes that belong to no scan fast; Pillow does not
            padding += found.start() - at
            _expect(MAX_PADDING, padding, "bytes between the segments of a JPEG")
        at = found.end()
        if marker == 0xD9 and scans:
            break  # what follows, a video or more pictures, is not read
        if marker in _JPEG_WITHOUT_LENGTH:
            continue
        length, start = max(2, _number(data, at, 2)), at + 2
        at += length
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            tables += length
            _expect(MAX_TABLES, tables, "bytes of tables in a JPEG")
        if marker == 0xE1 and data.startswith(b"Exif\0\0", start):
            exif += 1
            _expect(MAX_EXIF_SEGMENTS, exif, "EXIF segments of a JPEG")
        elif marker in _JPEG_FRAMES:
            pixels = _number(data, start + 1, 2) * _number(data, start + 3, 2)
            components = _number(data, start + 5, 1)
            samples, progressive = pixels * components, marker in _JPEG_PROGRESSIVE
        elif marker == 0xDA:
            scans += 1
            _expect(MAX_SCANS, scans, "scans of a JPEG")
            if samples:
                _expect(MAX_SCANNED, scans * pixels, "pixels in all scans of a JPEG")
                in_parts = not progressive and _number(data, start, 1) < components
                if in_parts and samples > MAX_SAMPLES_IN_PARTS:
                    raise ImageTooLargeError(
                        f"expected at most {MAX_SAMPLES_IN_PARTS} samples in parts, got {samples}"
                    )
            if scans == 1:
                resources = data.count(b"8BIM", 0, at)
                _expect(MAX_RESOURCES, resources, "Photoshop resources in a JPEG")


def _without_texts(data: bytes) -> bytes:
    """Return a PNG without texts and color profile: they unpack to any size, and none is used."""
    kept, start, at, chunks = [], 0, 8, 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IEND":
        chunks += 1
        _expect(MAX_CHUNKS, chunks, "chunks of a PNG")
        end = at + 12 + _number(data, at, 4)
        if data[at + 4 : at + 8] in _PNG_TEXTS:
            kept.append(data[start:at])
            start = end
        at = end
    return b"".join([*kept, data[start:]]) if kept else data


def _check_gif(data: bytes) -> None:
    """Count the blocks before the first frame; later ones are not read."""
    flags = _number(data, 10, 1)
    at, blocks = 13 + (6 << (flags & 7) if flags & 0x80 else 0), 0
    while at < len(data) and data[at] not in (0x2C, 0x3B):  # a frame, the end
        if data[at] == 0x21:  # an extension: its kind, then blocks up to an empty one
            at += 2
            while size := _number(data, at, 1):
                at += 1 + size
                blocks += 1
                _expect(MAX_BLOCKS, blocks, "blocks of a GIF")
        at += 1
        blocks += 1
        _expect(MAX_BLOCKS, blocks, "blocks of a GIF")


def _check_bmp(data: bytes) -> None:
    if _number(data, 14, 4, "<") < 40 or _number(data, 30, 4, "<") not in (1, 2):
        return  # not run-length encoded
    width, height = struct.unpack_from("<ii", data, 18)
    pixels = abs(width * height)
    if pixels > MAX_RUN_PIXELS:
        raise ImageTooLargeError(
            f"expected at most {MAX_RUN_PIXELS} pixels of a run-length encoded BMP, got {pixels}"
        )
    # Two bytes for each pixel, four for each row, the header with its palette.
    _expect(2 * pixels + 4 * abs(height) + 4096, len(data), "bytes of a run-length encoded BMP")


def _check_tiff(data: bytes) -> None:
    page = _read_numbers(data)
    for tag in (_PAGE_EXIF, _GPS, _INTEROPERABILITY):
        for offset in page.get(tag, [])[:1]:
            _read_numbers(data, offset)
    for offsets, sizes in ((_STRIPS, _STRIP_SIZES), (_TILES, _TILE_SIZES)):
        pieces = len(page.get(offsets, ()))
        _expect(MAX_PIECES, pieces, "strips or tiles of a TIFF")
        if page.get(_COMPRESSION, [1])[:1] != [1]:
            # Without sizes libtiff lets each piece end where the file does.
            total = sum(page.get(sizes) or [len(data)] * pieces)
            _expect(MAX_PIECE_BYTES, total, "bytes in all strips or tiles of a TIFF")
            if pieces:  # each may hold a JPEG with one scan for each component
                scans = data.count(b"\xff\xda") - 4 * pieces
                _expect(MAX_SCANS, scans, "further scans of the JPEGs in a TIFF")


def _read_numbers(data: bytes, offset: int | None = None) -> dict[int, list[int]]:
    """Return the whole numbers of a directory of a TIFF, the first one by default, by tag."""
    order = "<" if data.startswith(b"II") else ">"
    found: dict[int, list[int]] = {}
    values = 0
    for number, (tag, kind, amount, at) in enumerate(_entries(data, 0, offset), 1):
        _expect(MAX_ENTRIES, number, "entries of a directory")
        values += 0 if kind in _TEXT else amount
        _expect(MAX_VALUES, values, "numbers in a directory")
        letter = {3: "H", 4: "I", 13: "I", 16: "Q"}.get(kind)
        if amount and letter:
            numbers = struct.unpack_from(f"{order}{amount}{letter}", data, at)
            found.setdefault(tag, list(numbers))
    return found


def _check_exif(data: bytes) -> None:
    """Check whatever looks like EXIF, wherever it is, for its orientation is decoded."""
    entries = 0
    for headers, header in enumerate(_EXIF_HEADER.finditer(data), 1):
        _expect(MAX_EXIF_HEADERS, headers, "headers of EXIF")
        values = 0
        for _, kind, amount, _ in _entries(data, header.start()):
            entries += 1
            _expect(MAX_EXIF_ENTRIES, entries, "entries of EXIF")
            values += 0 if kind in _TEXT else amount
            _expect(MAX_VALUES, values, "numbers in EXIF")


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
        offset = _number(data, header + (8 if big else 4), word, order)
    first = header + offset + counted
    last = min(first + _number(data, first - counted, counted, order) * size, len(data)) - size
    for at in range(first, last + 1, size):
        tag, kind = _number(data, at, 2, order), _number(data, at + 2, 2, order)
        amount, place = _number(data, at + 4, word, order), at + 4 + word
        width = _TIFF_WIDTHS[kind] if kind < len(_TIFF_WIDTHS) else 0
        if amount * width > word:
            place = header + _number(data, place, word, order)
        if not width or place + amount * width > len(data):
            amount = 0
        yield tag, kind, amount, place


def _check_items(data: bytes) -> None:
    """Check the boxes of an AVIF or HEIC (ISO/IEC 14496-12 and 23008-12)."""
    number = 0
    areas = [0]  # in pixels, of the properties, which count from 1
    tables: dict[bytes, tuple[int, int]] = {}
    samples: list[Extents] = []  # the first frame of each track
    parts = [(b"", 0, len(data))]
    while parts:
        parent, at, end = parts.pop()
        offset = 0
        while at + 8 <= end:
            number += 1
            _expect(MAX_BOXES, number, "boxes")
            size, name, start = _number(data, at, 4), data[at + 4 : at + 8], at + 8
            if size == 1:
                size, start = _number(data, start, 8), start + 8
            stop = min(at + size, end) if size else end
            if parent == b"ipco":
                is_size = name == b"ispe"
                areas.append(_number(data, start + 4, 4) * _number(data, start + 8, 4) * is_size)
            elif name == b"meta" and not parent:
                parts.append((name, start + 4, stop))
            elif name in _BOXES_OF_BOXES:
                parts.append((name, start, stop))
            elif name in _ITEM_TABLES:
                _expect(MAX_ITEM_BYTES, stop - start, f"bytes in {name.decode()}")
                if name in tables:
                    raise DamagedImageError(f"expected one {name.decode()}, got two")
                tables[name] = start, stop
            elif name in (b"stco", b"co64"):
                offset = _number(data, start + 8, 4 if name == b"stco" else 8)
            elif name == b"stsz":
                _expect(MAX_FRAMES, _number(data, start + 8, 4), "frames")
                length = _number(data, start + 4, 4) or _number(data, start + 12, 4)
            at = max(stop, start)
        if parent == b"stbl" and offset:
            samples.append([(offset, length)])
    extents = _read_extents(data, *tables.get(b"iloc", (0, 0)))
    pixels = _read_areas(data, *tables.get(b"ipma", (0, 0)), areas)
    _check_references(data, *tables.get(b"iref", (0, 0)), extents, pixels)
    if b"avi" in data[8 : _number(data, 0, 4)]:
        _check_frames(data, [*samples, *(extents.get(item, []) for item in pixels)])


def _read_extents(data: bytes, at: int, end: int) -> dict[int, Extents]:
    """Return where each item lies in the file; those kept elsewhere are left out."""
    version, sizes = _number(data, at, 1), _number(data, at + 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> bits & 15 for bits in (12, 8, 4, 0))
    if end and not offset_size + length_size:
        raise DamagedImageError("expected extents with offset or length, got neither")
    wide = 4 if version == 2 else 2
    found: dict[int, Extents] = {}
    at += 6 + wide
    while at < end:
        item, method = _number(data, at, wide), 0
        at += wide
        if version:
            method, at = _number(data, at, 2), at + 2
        base, at = _number(data, at + 2, base_size), at + 2 + base_size
        count, at = _number(data, at, 2), at + 2
        extents = []
        for _ in range(count):
            at += index_size if version else 0
            offset, at = _number(data, at, offset_size), at + offset_size
            extents.append((base + offset, _number(data, at, length_size)))
            at += length_size
            if at > end:
                break
        if not method:
            found[item] = extents
    return found


def _read_areas(data: bytes, at: int, end: int, areas: list[int]) -> dict[int, int]:
    """Return the pixels of each item that is a picture."""
    wide, narrow = 4 if _number(data, at, 1) else 2, not _number(data, at + 3, 1) & 1
    found = {}
    at += 8
    while at < end:
        item, count = _number(data, at, wide), _number(data, at + wide, 1)
        at += wide + 1
        for _ in range(count):
            size = 1 if narrow else 2
            index = _number(data, at, size) & (0x7F if narrow else 0x7FFF)
            at += size
            if index < len(areas) and areas[index]:
                found[item] = areas[index]
    return found


def _check_references(
    data: bytes, at: int, end: int, extents: dict[int, Extents], pixels: dict[int, int]
) -> None:
    wide = 4 if _number(data, at, 1) else 2
    tiles, metadata = 0, 0
    at += 4
    while at + 8 < end:
        size, name, place = _number(data, at, 4), data[at + 4 : at + 8], at + 8
        source, count = _number(data, place, wide), _number(data, place + wide, 2)
        first = place + wide + 2
        if name == b"dimg":
            targets = range(first, min(first + count * wide, end), wide)
            tiles += sum(pixels.get(_number(data, target, wide), 0) for target in targets)
            _expect(MAX_TILE_PIXELS, tiles, "pixels of tiles")
        elif name == b"cdsc":
            metadata += count * sum(length for _, length in extents.get(source, ()))
            _expect(MAX_METADATA, metadata, "bytes of metadata")
        at += max(size, 8)


def _check_frames(data: bytes, pictures: list[Extents]) -> None:
    """Count the frames in the coded data of an AVIF (AV1 specification, section 5.3)."""
    frames, units = 0, 0
    for extents in pictures:
        for offset, length in extents:
            at = offset
            while at < min(offset + length, len(data)):
                units += 1
                _expect(MAX_UNITS, units, "units of coded data")
                head = data[at]
                frames += head >> 3 & 15 in (3, 6)  # a frame's header, alone or with its tiles
                _expect(len(pictures) + MAX_FURTHER_FRAMES, frames, "frames")
                if not head & 2:
                    break  # without a size: the last one
                at += 2 if head & 4 else 1
                size, shift = 0, 0
                while True:  # seven bits of the size in each byte, the lowest first
                    byte = _number(data, at, 1)
                    size |= (byte & 0x7F) << shift
                    at, shift = at + 1, shift + 7
                    if byte < 0x80 or shift > 56:
                        break
                at += size
