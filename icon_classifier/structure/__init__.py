"""A look at the structure of a picture's file before a decoder reads it.

In every format some field lets a few bytes cost a decoder minutes or gigabytes: empty scans,
millions of segments, tiles of one pixel. What no camera and no program writes is refused here,
within milliseconds; all else is left to the decoder.
"""

from __future__ import annotations

from icon_classifier.structure.blocks import (
    check_bmp,
    check_gif,
    check_png,
    check_webp,
    strip_texts,
)
from icon_classifier.structure.boxes import check_items
from icon_classifier.structure.directories import TIFF_HEADER, check_tiff
from icon_classifier.structure.jpeg import check_jpeg


def checked_bytes(data: bytes) -> bytes:
    """Return what to give to the decoder; refuse what would cost it far more than its pixels do.

    Parameters
    ----------
    data : bytes
        The whole file, of any length and format.

    Returns
    -------
    bytes
        The file, or a PNG without its texts and color profile, whose sizes Pillow limits to less
        than honest files have.

    Raises
    ------
    ImageError
        The file is damaged or too large.
    """
    if data.startswith(b"\xff\xd8"):
        check_jpeg(data)
    elif TIFF_HEADER.match(data):
        check_tiff(data)
    elif data.startswith(b"GIF"):
        check_gif(data)
    elif data.startswith(b"BM"):
        check_bmp(data)
    elif data.startswith(b"RIFF"):
        check_webp(data)
    elif data[4:8] == b"ftyp":
        check_items(data)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        check_png(data)
        return strip_texts(data)
    return data
