"""Many photos from the command line: found one by one, classified on all cores, in order.

Nothing is held for the whole run: folders are walked as they are read, and only a few photos are in
work at a time, so that a folder of millions takes no more memory than one of ten.
"""

from __future__ import annotations

import glob
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from icon_classifier.errors import ImageError
from icon_classifier.images import SUFFIXES, read_image_file
from icon_classifier.model.session import Model, Prediction

Record = dict[str, Any]
"""What is said of one photo: ``path``, and ``label``, ``probability``, ``known``, ``ranking`` or
``error``."""

_AHEAD = 4
"""Photos in work or waiting to be written, for each thread."""


def find_photos(arguments: Iterable[str]) -> Iterator[str]:
    """Find the photos that arguments name, without listing them all first.

    Parameters
    ----------
    arguments : iterable of str
        Files, taken as they are; folders, below which whatever ends like a photo is taken, in the
        order of names; and patterns with ``*``, ``?``, ``[...]`` and ``**`` for any folders.

    Yields
    ------
    str
        Paths. One that does not exist is yielded, too: it gets its line with an error.
    """
    for argument in arguments:
        if os.path.isdir(argument):  # noqa: PTH112 - millions of Path objects would cost more
            yield from _below(argument)
        elif not os.path.exists(argument) and glob.has_magic(argument):  # noqa: PTH110
            found = False
            for path in glob.iglob(argument, recursive=True):  # noqa: PTH207
                found = True
                if not os.path.isdir(path):  # noqa: PTH112
                    yield path
                elif "**" not in argument:
                    yield from _below(path)
            if not found:
                yield argument
        else:
            yield argument


def _below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        yield from (
            os.path.join(place, name)  # noqa: PTH118
            for name in sorted(files)
            if name.lower().endswith(SUFFIXES)
        )


def classify_files(
    model: Model, paths: Iterable[str], *, threads: int, top: int | None = None
) -> Iterator[Record]:
    """Classify photos, decoding and inference side by side on the cores.

    Pillow's decoders and ONNX Runtime let other threads run while they work. Each photo goes
    through the network by itself: on a processor a batch takes longer for each photo, not shorter,
    since its layers no longer fit into the caches (measured; see docs/api.md).

    Parameters
    ----------
    model : Model
        What classifies.
    paths : iterable of str
        The photos; read only as far ahead as needed.
    threads : int
        Photos in work at the same time.
    top : int, optional
        Entries of each ranking at most.

    Yields
    ------
    Record
        In the order of `paths`; one with an error where a photo cannot be used.
    """

    def one(path: str) -> Record:
        try:
            return answer(path, model.predict(read_image_file(path)), top)
        except ImageError as error:
            return failure(path, error)

    yield from _in_order(one, paths, threads)


def _in_order(
    call: Callable[[str], Record], paths: Iterable[str], threads: int
) -> Iterator[Record]:
    """Map in threads with a bounded number ahead; ``Executor.map`` would read all paths at once."""
    pending: deque[Future[Record]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="predict") as pool:
        try:
            for path in paths:
                pending.append(pool.submit(call, path))
                if len(pending) >= _AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def answer(path: str, prediction: Prediction, top: int | None = None) -> Record:
    """Say what a photo shows."""
    return {
        "path": path,
        "label": prediction.label,
        "probability": round(prediction.probability, 6),
        "known": prediction.known,
        "ranking": [
            {"label": label, "probability": round(probability, 6)}
            for label, probability in prediction.ranking[:top]
        ],
    }


def failure(path: str, error: ImageError) -> Record:
    """Say why a photo cannot be used."""
    return {"path": path, "error": error.words}
