"""The chunks of a PNG, the blocks of a GIF and the runs of a BMP."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from icon_classifier.errors import ImageTooLargeError
from icon_classifier.structure.deflate import check_deflate
from icon_classifier.structure.directories import check_exif
from icon_classifier.structure.reading import expect, expect_unpacked, number_at

MAX_CHUNKS = 100_000
"""Chunks of a PNG or WebP. PNG encoders put 8 kB into one: 3,200 in 25 MB; each costs
2 µs."""

MAX_BLOCKS = 200_000
"""Blocks before the first frame of a GIF. They hold 255 bytes; a profile of 1 MB has 4,000."""

MAX_RUN_PIXELS = 3_000_000
"""Pixels of a run-length encoded BMP, which Pillow decodes with Python in up to 0.4 µs a pixel."""

_PNG_SAMPLES = {2: 3, 4: 2, 6: 4}
"""Numbers in a pixel of a PNG by color type; one in all others."""

_PNG_HEADER = ((16, 4), (20, 4), (24, 1), (25, 1))
"""Place and size of width, height, bits of a number and color type."""

_PNG_TEXTS = {b"iCCP", b"iTXt", b"tEXt", b"zTXt"}


def check_webp(data: bytes) -> None:
    """Check the EXIF of a WebP."""
    at, chunks = 12, 0
    while at + 8 <= len(data):
        chunks += 1
        expect(MAX_CHUNKS, chunks, "chunks of a WebP")
        end = at + 8 + number_at(data, at + 4, 4, "<")
        if data.startswith(b"EXIF", at):
            check_exif(data[at + 8 : end])
            break  # the first one is read
        at = end + end % 2


def check_png(data: bytes) -> None:
    """Check what a PNG unpacks to, its number of chunks and its EXIF."""
    width, height, depth, color = (number_at(data, *place) for place in _PNG_HEADER)
    expect_unpacked(width * height, depth * _PNG_SAMPLES.get(color, 1))
    exif = b""
    for count, (name, start, end) in enumerate(_png_chunks(data), 1):
        expect(MAX_CHUNKS, count, "chunks of a PNG")
        if name == b"eXIf":
            exif = data[start + 8 : end]  # the last one is read
    check_exif(exif)
    check_deflate(data)


def strip_texts(data: bytes) -> bytes:
    """Return a PNG without texts and color profile: they unpack to any size, and none is used."""
    kept, at = [], 0
    for name, start, end in _png_chunks(data):
        if name in _PNG_TEXTS:
            kept.append(data[at:start])
            at = end
    return b"".join([*kept, data[at:]]) if kept else data


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk before the last one."""
    start = 8
    while start + 8 <= len(data) and (name := data[start + 4 : start + 8]) != b"IEND":
        end = start + 12 + number_at(data, start, 4)
        yield name, start, end
        start = end


def check_gif(data: bytes) -> None:
    """Count the blocks before the first frame; later ones are not read."""
    flags = number_at(data, 10, 1)
    at, blocks = 13 + (6 << (flags & 7) if flags & 0x80 else 0), 0
    while at < len(data) and data[at] not in (0x2C, 0x3B):  # a frame, the end
        if data[at] == 0x21:  # an extension: its kind, then blocks up to an empty one
            at += 2
            while size := number_at(data, at, 1):
                at += 1 + size
                blocks += 1
                expect(MAX_BLOCKS, blocks, "blocks of a GIF")
        at += 1
        blocks += 1
        expect(MAX_BLOCKS, blocks, "blocks of a GIF")


def check_bmp(data: bytes) -> None:
    """Limit the size of a run-length encoded BMP."""
    if number_at(data, 14, 4, "<") < 40 or number_at(data, 30, 4, "<") not in (1, 2):
        return  # not run-length encoded
    width, height = struct.unpack_from("<ii", data, 18)
    pixels = abs(width * height)
    if pixels > MAX_RUN_PIXELS:
        raise ImageTooLargeError(
            f"expected at most {MAX_RUN_PIXELS} pixels of a run-length encoded BMP, got {pixels}"
        )
    # Two bytes for each pixel, four for each row, the header with its palette.
    expect(2 * pixels + 4 * abs(height) + 4096, len(data), "bytes of a run-length encoded BMP")
