"""What is left of some bytes in the memory of a process, freed or not."""

from __future__ import annotations

from pathlib import Path


def count(mark: bytes, process: int | str = "self") -> int:
    """How often a mark stands in the memory that a process may write."""
    found = 0
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if not rights.startswith("rw") or "[v" in line:
                continue
            memory.seek(start)
            while start < end:
                piece = memory.read(min(end - start, 2**24))
                if not piece:
                    break
                found += piece.count(mark)
                start += len(piece)
    return found
