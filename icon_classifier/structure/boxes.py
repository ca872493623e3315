"""The boxes and items of an AVIF or HEIC."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

from icon_classifier.errors import DamagedImageError, ImageTooLargeError
from icon_classifier.structure.directories import check_exif
from icon_classifier.structure.reading import expect, number_at

MAX_ITEM_BYTES = 2**18
"""Bytes of each table of items in an AVIF or HEIC. A grid of 400 tiles has 10 kB; libavif searches
all items for each, and keeps 300 bytes for each byte of an association."""

MAX_BOXES = 20_000
"""Boxes of an AVIF or HEIC. One of 400 tiles has about 1,000; libavif keeps 300 bytes for each."""

MAX_FRAMES = 100_000
"""Frames of a sequence in an AVIF or HEIC: an hour at 25 a second."""

MAX_TILE_PIXELS = 200_000_000
"""Pixels of all pictures of which others are made in an AVIF or HEIC. The tiles of a grid cover it,
and those of its gain map a quarter of it; libheif decodes tiles of any size at 5 ns a pixel.

Pixels count again for each time that they are cropped, turned or mirrored, which libheif does as
often as a picture says. So this is also the limit for one picture: it may be all three."""

MAX_METADATA = 2**26
"""Bytes of metadata in an AVIF or HEIC; those that describe several pictures are kept for each."""

MAX_CODED = 12 * 2**20
"""Bytes of coded data for one picture in an AVIF or HEIC, or for all tiles together: a phone's have
up to 8 MB. Each takes up to 75 ns, and several tiles may have the same bytes."""

MAX_CODED_PIXELS = 200_000_000
"""Pixels of all frames in an AVIF: those of the picture, its transparency, its layers. A frame has
the size of its sequence, whatever size the picture has by its properties; hidden ones count."""

MAX_FRAME_PIXELS = 50_000_000
"""Pixels of a frame in an AVIF."""

MAX_MEMORY = 290_000_000
"""Bytes that decoding an AVIF may take: for each pixel 7.5 and those of its planes, for each byte
of metadata and color profile two."""

MAX_UNITS = 20_000
"""Units of coded data (OBU) in an AVIF, three or four for each picture."""

_BOXES_OF_BOXES = {b"iprp", b"ipco", b"moov", b"trak", b"mdia", b"minf", b"stbl"}

_TRANSFORMATIONS = {b"clap", b"imir", b"irot"}

_ITEM_TABLES = {b"iinf", b"iloc", b"iref", b"ipma"}

Extents = list[tuple[int, int]]
"""Offset and length of each part of an item."""


def check_items(data: bytes) -> None:
    """Check the boxes of an AVIF or HEIC (ISO/IEC 14496-12 and 23008-12)."""
    number = 0
    areas = [0]  # in pixels, of the properties, which count from 1; -1 of a transformation
    tables: dict[bytes, tuple[int, int]] = {}
    copied = 0  # bytes of profiles and metadata
    planes = 0.0  # bytes of a pixel in its planes
    samples: list[Extents] = []  # the first frame of each track
    parts = [(b"", 0, len(data))]
    while parts:
        parent, at, end = parts.pop()
        offset = length = 0
        while at + 8 <= end:
            number += 1
            expect(MAX_BOXES, number, "boxes")
            size, name, start = number_at(data, at, 4), data[at + 4 : at + 8], at + 8
            if size == 1:
                size, start = number_at(data, start, 8), start + 8
            stop = min(at + size, end) if size else end
            if parent == b"ipco":
                width, height = number_at(data, start + 4, 4), number_at(data, start + 8, 4)
                area = width * height if name == b"ispe" else 0
                areas.append(-1 if name in _TRANSFORMATIONS else area)
                if name == b"av1C":  # depth and subsampling
                    flags = number_at(data, start + 2, 1)
                    chroma = 2 / (1 + (flags >> 3 & 1)) / (1 + (flags >> 2 & 1))
                    planes = max(planes, (1 + chroma) * (1 + (flags >> 6 & 1)))
            elif name == b"meta" and not parent:
                parts.append((name, start + 4, stop))
                copied = stop - start
            elif name in _BOXES_OF_BOXES:
                parts.append((name, start, stop))
            elif name in _ITEM_TABLES:
                expect(MAX_ITEM_BYTES, stop - start, f"bytes in {name.decode()}")
                if name in tables:
                    raise DamagedImageError(f"expected one {name.decode()}, got two")
                tables[name] = start, stop
            elif name in (b"stco", b"co64"):
                offset = number_at(data, start + 8, 4 if name == b"stco" else 8)
            elif name == b"stsz":
                expect(MAX_FRAMES, number_at(data, start + 8, 4), "frames")
                length = number_at(data, start + 4, 4) or number_at(data, start + 12, 4)
            at = max(stop, start)
        if parent == b"stbl" and offset:
            samples.append([(offset, length)])
    extents = _read_extents(data, *tables.get(b"iloc", (0, 0)))
    pixels = _read_areas(data, *tables.get(b"ipma", (0, 0)), areas)
    for coded in (*extents.values(), *samples):
        _expect_coded(sum(length for _, length in coded))
    copied += _check_references(data, *tables.get(b"iref", (0, 0)), extents, pixels)
    if planes and max(areas) * (7.5 + planes) + 2 * copied > MAX_MEMORY:
        raise ImageTooLargeError(f"expected less memory for {max(areas)} pixels of an AVIF")
    if b"avi" in data[8 : number_at(data, 0, 4)]:
        _check_frames(data, [*samples, *extents.values()])


def _read_extents(data: bytes, at: int, end: int) -> dict[int, Extents]:
    """Return where each item lies in the file; those kept elsewhere are left out."""
    version, sizes = number_at(data, at, 1), number_at(data, at + 4, 2)
    offset_size, length_size, base_size, index_size = (sizes >> bits & 15 for bits in (12, 8, 4, 0))
    if end and not offset_size + length_size:
        raise DamagedImageError("expected extents with offset or length, got neither")
    wide = 4 if version == 2 else 2
    found: dict[int, Extents] = {}
    at += 6 + wide
    while at < end:
        item, method = number_at(data, at, wide), 0
        at += wide
        if version:
            method, at = number_at(data, at, 2), at + 2
        base, at = number_at(data, at + 2, base_size), at + 2 + base_size
        count, at = number_at(data, at, 2), at + 2
        extents = []
        for _ in range(count):
            at += index_size if version else 0
            offset, at = number_at(data, at, offset_size), at + offset_size
            extents.append((base + offset, number_at(data, at, length_size)))
            at += length_size
            if at > end:
                break
        if not method:
            found[item] = extents
    return found


def _read_areas(data: bytes, at: int, end: int, areas: list[int]) -> dict[int, int]:
    """Return the pixels of each item that is a picture, once more for each transformation."""
    wide, narrow = 4 if number_at(data, at, 1) else 2, not number_at(data, at + 3, 1) & 1
    found: dict[int, int] = {}
    times: Counter[int] = Counter()
    at += 8
    while at < end:
        item, count = number_at(data, at, wide), number_at(data, at + wide, 1)
        at += wide + 1
        for _ in range(count):
            size = 1 if narrow else 2
            index = number_at(data, at, size) & (0x7F if narrow else 0x7FFF)
            at += size
            area = areas[index] if index < len(areas) else 0
            if area > 0:
                found[item] = max(area, found.get(item, 0))
            times[item] -= min(area, 0)
    for item in found:
        found[item] *= 1 + times[item]
        expect(MAX_TILE_PIXELS, found[item], "pixels of a picture and its transformations")
    return found


def _check_references(
    data: bytes, at: int, end: int, extents: dict[int, Extents], pixels: dict[int, int]
) -> int:
    """Add up the pixels of all tiles; return the bytes of all metadata."""
    wide = 4 if number_at(data, at, 1) else 2
    lengths = {item: sum(length for _, length in parts) for item, parts in extents.items()}
    tiles = coded = metadata = 0
    described: dict[int, Extents] = {}
    at += 4
    while at + 8 < end:
        size, name, place = number_at(data, at, 4), data[at + 4 : at + 8], at + 8
        source, count = number_at(data, place, wide), number_at(data, place + wide, 2)
        first = place + wide + 2
        stop = first + count * wide
        if stop != at + size:  # a decoder may go by either
            raise DamagedImageError(f"expected a reference of {stop - at} bytes, got {size}")
        if name == b"dimg":
            for target in range(first, min(stop, end), wide):
                item = number_at(data, target, wide)
                tiles += pixels.get(item, 0)
                coded += lengths.get(item, 0)
            expect(MAX_TILE_PIXELS, tiles, "pixels of tiles")
            _expect_coded(coded)
        elif name == b"cdsc":
            metadata += max(1, count) * lengths.get(source, 0)
            expect(MAX_METADATA, metadata, "bytes of metadata")
            described[source] = extents.get(source, [])
        at = stop
    parts = itertools.chain.from_iterable(described.values())
    check_exif(b"".join(data[offset : offset + length] for offset, length in parts))
    return metadata


def _expect_coded(size: int) -> None:
    if size > MAX_CODED:
        raise ImageTooLargeError(f"expected at most {MAX_CODED} bytes of coded data, got {size}")


def _check_frames(data: bytes, pictures: list[Extents]) -> None:
    """Add up the pixels of the frames in an AVIF (AV1 specification, sections 5.3 and 5.9)."""
    pixels = area = units = 0
    for offset, length in itertools.chain.from_iterable(pictures):
        at, end = offset, min(offset + length, len(data))
        while at < end:
            units += 1
            expect(MAX_UNITS, units, "units of coded data")
            head = data[at]
            at += 2 if head & 4 else 1
            size = end - at
            if head & 2:
                size, at = _read_leb128(data, at)
            kind = head >> 3 & 15
            if kind == 1:
                area = _read_frame_area(data[at : at + 64])
                expect(MAX_FRAME_PIXELS, area, "pixels of a frame")
            elif kind in (3, 6):  # the header of a frame, alone or with its tiles
                pixels += area
                expect(MAX_CODED_PIXELS, pixels, "pixels of frames")
            at += size


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits in each byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 56, 7):
        byte = number_at(data, at, 1)
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            break
    return number, at


def _read_frame_area(header: bytes) -> int:
    """Return the pixels of a frame by the header of its sequence (AV1, section 5.5)."""
    bits, left = int.from_bytes(header), 8 * len(header)

    def take(count: int) -> int:
        nonlocal left
        left = max(0, left - count)
        return bits >> left & ((1 << count) - 1)

    take(4)  # profile, still picture
    if take(1):  # the short header of a still picture
        take(5)
    else:
        delay_bits = _skip_timing(take)
        display_delay = take(1)
        for _ in range(take(5) + 1):  # operating points
            take(12)
            if take(5) > 7:
                take(1)
            if delay_bits and take(1):
                take(2 * delay_bits + 1)
            if display_delay and take(1):
                take(4)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return (take(width_bits) + 1) * (take(height_bits) + 1)


def _skip_timing(take: Callable[[int], int]) -> int:
    """Skip what a sequence says about time; return the bits of a delay, 0 where there is none."""
    if not take(1):
        return 0
    take(64)
    if take(1):  # a number with as many leading zeros as it has further bits
        zeros = 0
        while not take(1) and zeros < 32:
            zeros += 1
        take(zeros)
    if not take(1):
        return 0
    delay_bits = take(5) + 1
    take(42)
    return delay_bits
