"""Decode every hostile file, and tell what each took: a line of JSON for each, on standard output.

Run as a process of its own, so that a crash of a decoder shows, and so that memory can be measured.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from icon_classifier.errors import ImageError
from icon_classifier.images import read_image
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
        before, started, words = peak(reset=True), time.process_time(), ""
        print(json.dumps({"name": name}), flush=True)  # the last one, should the process die
        try:
            size: tuple[int, int] | None = read_image(data).size
        except ImageError as error:
            size, words = None, error.words
        seconds, extra = time.process_time() - started, peak() - before
        line = {"name": name, "seconds": seconds, "bytes": extra, "size": size, "words": words}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
