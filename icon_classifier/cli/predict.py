"""Find photos and classify them on all cores, in order.

Folders are walked while photos are classified, and only a few photos are in memory at a time: a
folder of millions takes no more memory than one of ten.
"""

from __future__ import annotations

import glob
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from icon_classifier.errors import ImageError
from icon_classifier.images import is_photo_file, read_image_file
from icon_classifier.model.session import Model, Prediction

NO_SUCH_FILE = "There is no such file; please check its name."

Record = dict[str, Any]
"""The result for one photo: ``path``, and either ``label``, ``probability``, ``known`` and
``ranking`` or ``error``."""

_MAX_PENDING_PER_THREAD = 4
"""Photos that are being classified or wait for their turn to be yielded."""


def find_photos(arguments: Iterable[str], passed_over: Counter[str] | None = None) -> Iterator[str]:
    """Find the photos that arguments name, one by one.

    Parameters
    ----------
    arguments : iterable of str
        Files, whatever their names; folders, whose photos are found by their suffixes or first
        bytes at any depth and in the order of their names; and patterns with ``*``, ``?``,
        ``[...]`` and ``**`` for any number of folders.
    passed_over : Counter, optional
        Counts the other files in folders by what they are.

    Yields
    ------
    str
        Paths. One that does not exist, and a folder that cannot be opened, are yielded, too, and
        become records with an error.
    """
    passed_over = Counter() if passed_over is None else passed_over
    for argument in arguments:
        if os.path.isdir(argument):  # noqa: PTH112 - millions of Path objects would cost more
            yield from _walk(argument, passed_over)
        elif not os.path.exists(argument) and glob.has_magic(argument):  # noqa: PTH110
            found = False
            for path in sorted(glob.iglob(argument, recursive=True)):  # noqa: PTH207
                found = True
                if not os.path.isdir(path):  # noqa: PTH112
                    yield path
                elif "**" not in argument:
                    yield from _walk(path, passed_over)
            if not found:
                yield argument
        else:
            yield argument


def _walk(root: str, passed_over: Counter[str]) -> Iterator[str]:
    errors: list[OSError] = []
    seen = set()
    for folder, subfolders, files in os.walk(root, onerror=errors.append, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:  # a link leads back
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)  # noqa: PTH118
            if name.startswith("."):
                passed_over["hidden"] += 1
            elif is_photo_file(path):
                yield path
            else:
                passed_over[os.path.splitext(name)[1].lower() or "without a suffix"] += 1  # noqa: PTH122
    yield from (error.filename for error in errors)


def passed_over_line(passed_over: Counter[str]) -> str:
    """Say how many files were passed over, and what they are; nothing if there were none."""
    if not passed_over:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common(8))
    return f"files passed over, because they are no photos: {passed_over.total()} ({kinds})"


def classify_files(
    model: Model, paths: Iterable[str], *, threads: int, top: int | None = None
) -> Iterator[Record]:
    """Classify photos in several threads.

    Pillow's decoders and ONNX Runtime release the GIL. Each photo goes through the network by
    itself: on a CPU a batch takes longer per photo, because the activations between layers no
    longer fit in the caches (figures: docs/benchmarks.md).

    Parameters
    ----------
    model : Model
        Opened with one thread.
    paths : iterable of str
        The photos; read only as far ahead as needed.
    threads : int
        Photos that are classified at the same time.
    top : int, optional
        Maximum number of entries in each ranking.

    Yields
    ------
    Record
        In the order of `paths`; one with an error where a photo cannot be used.
    """

    def classify(path: str) -> Record:
        try:
            return prediction_record(path, model.predict(read_image_file(path)), top)
        except ImageError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return {"path": path, "error": NO_SUCH_FILE}
            return error_record(path, error)

    yield from _map_in_order(classify, paths, threads)


def _map_in_order(
    call: Callable[[str], Record], paths: Iterable[str], threads: int
) -> Iterator[Record]:
    """Map in threads with a limited number ahead; ``Executor.map`` would read all paths first."""
    pending: deque[Future[Record]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="predict") as pool:
        try:
            for path in paths:
                pending.append(pool.submit(call, path))
                if len(pending) >= _MAX_PENDING_PER_THREAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def prediction_record(path: str, prediction: Prediction, top: int | None = None) -> Record:
    """Return the record of a classified photo."""
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


def error_record(path: str, error: ImageError) -> Record:
    """Return the record of a photo that cannot be used."""
    return {"path": path, "error": error.words}
