"""What a link to the page shows elsewhere, in a chat or a feed: its title, a sentence, an example.

It is served without a kernel.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tornado.web import HTTPError, RequestHandler

from icon_classifier.errors import ImageError, ModelError
from icon_classifier.model.info import read_labels, read_metadata
from icon_classifier.page import feedback, texts
from icon_classifier.page.examples import example_files
from icon_classifier.page.title import page_title

IMAGE = "example.jpg"
"""The address of the example, below the page's."""

_SIDE = 640
_DAY = "public, max-age=86400"
# ui.Classifier(), as the page's notebook has it: the model of its folder.
_OPENS_MODEL = re.compile(rb"\bClassifier\(\s*\)")


def head(title: str, description: str, image: str = "") -> str:
    """Return the elements of an HTML head that describe the page.

    Parameters
    ----------
    title, description : str
        Any text; it is escaped.
    image : str, optional
        The address of the example, where the page has one. Not all who ask understand an address
        without a host.
    """
    title, description, image = map(html.escape, (title, description, image))
    picture = f'<meta property="og:image" content="{image}">\n' if image else ""
    return (
        f"<title>{title}</title>\n"
        f'<meta name="description" content="{description}">\n'
        f'<meta property="og:type" content="website">\n'
        f'<meta property="og:title" content="{title}">\n'
        f'<meta property="og:description" content="{description}">\n'
        f"{picture}"
    )


def page(elements: str) -> str:
    """Return a page of these elements of a head alone, for whoever shows links."""
    return f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n{elements}'


class Page(NamedTuple):
    """What a page says of itself: its title, a sentence, the classes, whether it has an example."""

    title: str = ""
    description: str = ""
    labels: Sequence[str] = ()
    has_example: bool = False

    def head(self, base_url: str) -> str:
        """Return the elements of the HTML head; empty where the page has no title."""
        image = f"{base_url}{IMAGE}" if self.has_example else ""
        return head(self.title, self.description, image) if self.title else ""


def describe(folder: str | Path, notebook: str) -> Page:
    """Describe the page of a notebook.

    Parameters
    ----------
    folder : str or pathlib.Path
        Where export.onnx and the notebook lie.
    notebook : str
        The notebook's path in it.

    Returns
    -------
    Page
        Empty where there is no model, or the notebook does not open it: it is another page, and has
        a title of its own.
    """
    model, source = Path(folder, "export.onnx"), Path(folder, notebook)
    try:
        if not _opens_model(source, source.stat().st_mtime_ns):
            return Page()
        title, labels = _title_and_labels(model, model.stat().st_mtime_ns)
    except (OSError, ModelError):
        # The kernel reports what is wrong with the file; the page only leaves them out.
        return Page()
    privacy = texts.privacy(asks=bool(os.environ.get(feedback.FOLDER)))
    return Page(
        title,
        texts.description(labels, privacy),
        list(map(texts.plain, labels)),
        bool(example_files(labels, folder)),
    )


@lru_cache(maxsize=4)
def _opens_model(notebook: Path, _changed: int) -> bool:
    return _OPENS_MODEL.search(notebook.read_bytes()) is not None


@lru_cache(maxsize=4)
def _title_and_labels(model: Path, _changed: int) -> tuple[str, list[str]]:
    """Read them without ONNX Runtime, which the server does not import."""
    labels, recipe = read_labels(model), read_metadata(model).get("recipe")
    title = page_title(labels, recipe if isinstance(recipe, str) else None, model.parent)
    return title, list(labels)


class ExampleHandler(RequestHandler):
    """Serves the first of the page's examples."""

    def initialize(self, folder: str) -> None:
        """Set the folder of the project."""
        self.folder = folder

    def get(self) -> None:
        """Answer with a JPEG, or 404 where the page has no example."""
        photo = _example(Path(self.folder))
        if photo is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "image/jpeg")
        self.set_header("Cache-Control", _DAY)
        self.finish(photo)


def _example(folder: Path) -> bytes | None:
    model = folder / "export.onnx"
    try:
        _, labels = _title_and_labels(model, model.stat().st_mtime_ns)
        for path in example_files(labels, folder):
            with contextlib.suppress(ImageError):
                return _jpeg(path, path.stat().st_mtime_ns)
    except (OSError, ModelError):
        pass
    return None


@lru_cache(maxsize=1)
def _jpeg(path: Path, _changed: int) -> bytes:
    # Imported here: most servers are never asked for it, and need no Pillow.
    from icon_classifier.images import read_image_file, thumbnail

    return thumbnail(read_image_file(path), _SIDE)
