"""What the checks of all formats use."""

from __future__ import annotations

from icon_classifier.errors import DamagedImageError, ImageTooLargeError, too_many_pixels

MAX_UNPACKED = 150_000_000
"""Bytes that the pixels of a PNG or of a compressed TIFF unpack to: 50 megapixels of RGB, 25 of 16
bits each. Unpacking takes up to 9 ns a byte, however few bytes the file has."""


def expect(most: int, got: int, what: str) -> None:
    """Refuse a file that has more of something than any honest one.

    Raises
    ------
    DamagedImageError
        If `got` is more than `most`.
    """
    if got > most:
        raise DamagedImageError(f"expected at most {most} {what}, got {got} or more")


def number_at(data: bytes, at: int, size: int, order: str = ">") -> int:
    """Return the number in `size` bytes, as many of them as there are; 0 beyond the end."""
    return int.from_bytes(data[at : at + size], "big" if order == ">" else "little")


def expect_unpacked(pixels: int, bits: int, most: int = MAX_UNPACKED) -> None:
    """Refuse a picture whose pixels, of so many bits each, unpack to more than `most` bytes.

    Raises
    ------
    ImageTooLargeError
        If they do.
    """
    if pixels * bits > 8 * most:
        raise ImageTooLargeError(
            f"expected pixels of at most {most} bytes, got {pixels} of {bits} bits",
            words=too_many_pixels(8 * most // bits),
        )
