"""Decode every hostile file, and tell what each took: a line of JSON for each, on standard output.

Run as a process of its own, so that a crash of a decoder shows, and so that memory can be measured.
``python -m tests.hostile.decoding FOLDER`` decodes the photos of a folder instead, and ends with a
summary: none of them should be refused.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from icon_classifier.errors import ImageError
from icon_classifier.formats import SUFFIXES
from icon_classifier.images import read_image
from icon_classifier.system.memory import MAX_DECODING, limited_growth
from tests.support.hostile_pictures import files


def peak(*, reset: bool = False) -> int:
    """Most memory since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def main(step: int) -> None:
    """Decode every so many-th file; the large ones only where all are asked for."""
    for number, (name, data) in enumerate(files(large=step == 1)):
        if number % step:
            continue
        print(json.dumps({"name": name}), flush=True)  # the last one, should the process die
        print(json.dumps(decode(name, data)), flush=True)


def decode(name: str, data: bytes) -> dict[str, Any]:
    """Decode a file; return what it took."""
    before, started, words = peak(reset=True), time.process_time(), ""
    try:
        with limited_growth(MAX_DECODING):
            size: tuple[int, int] | None = read_image(data).size
    except ImageError as error:
        size, words = None, error.words
    seconds, extra = time.process_time() - started, peak() - before
    return {"name": name, "seconds": seconds, "bytes": extra, "size": size, "words": words}


def decode_folder(folder: Path) -> None:
    """Decode all photos of a folder; print the refused ones and the most that any took."""
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    lines = [decode(str(path), path.read_bytes()) for path in paths]
    refused = [line for line in lines if line["size"] is None]
    for line in refused:
        print(line["name"], line["words"])
    seconds, extra = (max(line[what] for line in lines) for what in ("seconds", "bytes"))
    print(f"{len(lines)} photos, {len(refused)} refused; {seconds:.2f} s, {extra / 1e6:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1].isdigit():
        main(int(sys.argv[1]))
    else:
        decode_folder(Path(sys.argv[1]))
