"""The segments and scans of a JPEG."""

from __future__ import annotations

import re

from icon_classifier.errors import (
    DamagedImageError,
    ImageTooLargeError,
    UnsupportedImageError,
)
from icon_classifier.structure.reading import expect, number_at

MAX_SEGMENTS = 2_000
"""Segments of a JPEG. An extended XMP of 25 MB has 400; each costs Pillow a list entry and 1 µs."""

MAX_TABLES = 2**17
"""Bytes in segments of a JPEG that hold neither metadata nor pixels. A photo has 2 kB in its head
and less than 1 kB a scan; Pillow reads quantization tables and components with Python."""

MAX_PADDING = 2**17
"""Bytes between the segments of a JPEG; each costs Pillow 0.6 µs."""

MAX_FILL = 2**16
"""Bytes of 0xff in a row in a JPEG; Pillow copies all of them for each 64 kB that it reads."""

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

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""In coded data 0xff is followed by 0 or by a restart marker (0xd0 to 0xd7)."""

_WITHOUT_LENGTH = {0x01, 0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)}
"""Markers after which Pillow and libjpeg expect no segment."""

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}

_SEQUENTIAL = {0xC0, 0xC1}

_PROGRESSIVE = 0xC2

MAX_HEAD = 10
"""Segments before the frame of a JPEG in a TIFF, which mostly has none there."""

MAX_SEQUENTIAL_SCANS = 4
"""Scans of a JPEG in a TIFF: one for each component."""


def check_jpeg(data: bytes) -> None:
    """Count what Pillow reads up to the first scan, and the scans."""
    at, segments, scans, padding, tables, exif, samples, components = 2, 0, 0, 0, 0, 0, 0, 0
    while found := _MARKER.search(data, at):
        marker = data[found.start() + 1]
        segments += 1
        expect(MAX_SEGMENTS, segments, "segments of a JPEG")
        if not scans:  # the decoder skips bytes that belong to no scan fast; Pillow does not
            padding += found.start() - at
            expect(MAX_PADDING, padding, "bytes between the segments of a JPEG")
        at = found.end()
        if marker == 0xD9 and scans:
            break  # what follows, a video or more pictures, is not read
        if marker in _WITHOUT_LENGTH:
            continue
        length, start = max(2, number_at(data, at, 2)), at + 2
        at += length
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            tables += length
            expect(MAX_TABLES, tables, "bytes of tables in a JPEG")
        if marker == 0xE1 and data.startswith(b"Exif\0\0", start):
            exif += 1
            expect(MAX_EXIF_SEGMENTS, exif, "EXIF segments of a JPEG")
        elif marker in _FRAMES:
            pixels = number_at(data, start + 1, 2) * number_at(data, start + 3, 2)
            components = number_at(data, start + 5, 1)
            samples, progressive = pixels * components, marker == _PROGRESSIVE
            _expect_frame({*_SEQUENTIAL, _PROGRESSIVE}, marker)
        elif marker == 0xDA:
            scans += 1
            expect(MAX_SCANS, scans, "scans of a JPEG")
            if samples:
                expect(MAX_SCANNED, scans * pixels, "pixels in all scans of a JPEG")
                in_parts = not progressive and number_at(data, start, 1) < components
                if in_parts and samples > MAX_SAMPLES_IN_PARTS:
                    raise ImageTooLargeError(
                        f"expected at most {MAX_SAMPLES_IN_PARTS} samples in parts, got {samples}"
                    )
            if scans == 1:
                resources = data.count(b"8BIM", 0, at)
                expect(MAX_RESOURCES, resources, "Photoshop resources in a JPEG")
    else:
        at = len(data)
    if data.find(b"\xff" * MAX_FILL, 0, at) >= 0:
        raise DamagedImageError(f"expected at most {MAX_FILL} bytes of 0xff in a row, got more")


def check_sequential_jpeg(data: bytes, at: int, end: int) -> None:
    """Check that a JPEG in a TIFF is sequential, and has no more scans than components.

    Each further scan costs as much again as the first.

    Parameters
    ----------
    data : bytes
        The TIFF.
    at, end : int
        Where the JPEG is.
    """
    for _ in range(MAX_HEAD):
        found = _MARKER.search(data, at, end)
        if found is None:
            return
        marker, at = data[found.end() - 1], found.end()
        if marker in _FRAMES:
            _expect_frame(_SEQUENTIAL, marker)
            scans = data.count(b"\xff\xda", at, end)
            expect(MAX_SEQUENTIAL_SCANS, scans, "scans of a JPEG in a TIFF")
            return
        if marker not in _WITHOUT_LENGTH:
            at += max(2, number_at(data, at, 2))
    expect(MAX_HEAD, MAX_HEAD + 1, "segments before the frame of a JPEG")


def _expect_frame(allowed: set[int], marker: int) -> None:
    """Refuse what no browser shows, above all arithmetic coding: it takes time, but no bytes."""
    if marker not in allowed:
        raise UnsupportedImageError(f"expected a JPEG of a usual kind, got marker {marker:#x}")
