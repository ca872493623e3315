"""The photos that a visitor may click: those of fastbook that fit, and those in ``examples/``."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from icon_classifier.errors import ImageError
from icon_classifier.formats import SUFFIXES
from icon_classifier.page.texts import plain

FOLDER = "examples"
"""Name of the maintainer's folder, in the notebook's folder."""

MAX_EXAMPLES = 12
"""How many examples are shown at most."""

_FASTBOOK = {
    "grizzly.jpg": {"bear", "bears", "grizzly", "grizzly bear", "grizzlies"},
    "cat.jpg": {"cat", "cats"},
}
"""fastbook's photographs, with the classes that they are examples of."""

_SIDE = 96

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """A photo that a visitor may click.

    Attributes
    ----------
    name : str
        What it is called on the page.
    path : pathlib.Path
        Where it lies.
    thumbnail : bytes
        A small JPEG of it.
    """

    name: str
    path: Path
    thumbnail: bytes


def find_examples(labels: Iterable[str], folder: str | Path = ".") -> tuple[Example, ...]:
    """Find the examples of a page.

    Parameters
    ----------
    labels : iterable of str
        The classes of the model.
    folder : str or pathlib.Path, optional
        The project folder; its ``examples/`` is looked into, by name, without sub-folders.

    Returns
    -------
    tuple of Example
        Those of fastbook that show one of the classes first, where fastbook is installed. A file
        that cannot be read is left out, and the log says why.
    """
    paths = example_files(labels, folder)
    examples = (_example(path.resolve(), path.stat().st_mtime_ns) for path in paths)
    return tuple(itertools.islice(filter(None, examples), MAX_EXAMPLES))


def example_files(labels: Iterable[str], folder: str | Path = ".") -> list[Path]:
    """Find the files of a page's examples, without reading them; see :func:`find_examples`."""
    classes = {plain(label).lower() for label in labels}
    fitting = (name for name, shown in _FASTBOOK.items() if shown & classes)
    fastbook = [path for name in fitting if (path := fastbook_photo(name))]
    return [*fastbook, *_of_maintainer(Path(folder) / FOLDER)]


def fastbook_photo(name: str) -> Path | None:
    """Find a photograph of fastbook without importing it: that would load half of fastai.

    Returns
    -------
    pathlib.Path or None
        None where fastbook is not installed, or lacks it.
    """
    spec = importlib.util.find_spec("fastbook")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "images" / name
    return path if path.is_file() else None


def _of_maintainer(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)


@functools.lru_cache(maxsize=4 * MAX_EXAMPLES)
def _example(path: Path, _changed: int) -> Example | None:
    """Read an example once a process, and again when its file has changed."""
    # Imported here: the server asks only whether there are examples, and needs no Pillow.
    from icon_classifier.images import read_image_file, thumbnail

    try:
        small = thumbnail(read_image_file(path), _SIDE)
    except ImageError as error:
        _log.warning("the example %s is left out: %s", path, error)
        return None
    return Example(path.stem.replace("_", " ").replace("-", " "), path, small)
