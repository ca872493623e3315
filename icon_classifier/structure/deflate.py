"""The compressed data of a PNG and of most TIFFs (RFC 1951)."""

from __future__ import annotations

import secrets
import zlib

from icon_classifier.errors import DamagedImageError

MIN_BYTES = 2**22
"""Bytes of a file below which its blocks are not counted: they take at most 0.3 s."""

MIN_BLOCK = 340
"""Bytes of compressed data for each block with codes of its own. Encoders write 4 kB and more;
each costs 1 to 5 µs, however little it holds."""

_SAMPLES = 64
_SAMPLE_BITS = 1024
_MAX_HEADER = 320
"""Bytes of the longest header of a block."""


def check_deflate(data: bytes) -> None:
    """Estimate the number of blocks with codes of their own, and refuse a file of too many.

    Whether a block starts at a bit is seen by trying to decode from there; in data of no such
    block 1 bit in 10,000 looks like it. The places are random: nobody can prepare them.

    Parameters
    ----------
    data : bytes
        The whole file: what else is in it starts hardly any block.

    Raises
    ------
    DamagedImageError
        If blocks have fewer than :data:`MIN_BLOCK` bytes on average.
    """
    if len(data) < MIN_BYTES:
        return
    blocks = 0
    length = _SAMPLE_BITS // 8 + _MAX_HEADER
    for _ in range(_SAMPLES):
        at = secrets.randbelow(len(data) - length)
        bits = int.from_bytes(data[at : at + length], "little")
        for shift in range(8):
            shifted = (bits >> shift).to_bytes(length, "little")
            blocks += sum(_starts_block(shifted, start) for start in range(_SAMPLE_BITS // 8))
    most = _SAMPLES * _SAMPLE_BITS // (8 * MIN_BLOCK)
    if blocks > most:
        raise DamagedImageError(f"expected at most {most} blocks in a sample, got {blocks}")


def _starts_block(data: bytes, start: int) -> bool:
    """Whether a block with codes of its own may start at a byte."""
    if data[start] & 6 != 4:
        return False
    try:
        zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start : start + _MAX_HEADER], 1)
    except zlib.error as error:
        return "too far back" in str(error)  # its header is whole, what it repeats is not there
    return True
