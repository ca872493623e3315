"""What the checks of all formats use."""

from __future__ import annotations

from icon_classifier.errors import DamagedImageError


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
