"""What a link to the page shows elsewhere, in a chat or a feed: its title, a sentence, an example.

Whoever asks for that gets it without a kernel.
"""

from __future__ import annotations

import html
from functools import lru_cache
from pathlib import Path

from tornado.web import HTTPError, RequestHandler

IMAGE = "example.jpg"
"""The address of the example, below the page's."""

_SIDE = 640
_DAY = "public, max-age=86400"


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


class ExampleHandler(RequestHandler):
    """Serves the first of the page's examples."""

    def initialize(self, folder: str) -> None:
        """Set the folder of the project."""
        self.folder = folder

    def get(self) -> None:
        """Answer with a JPEG, or 404 where the page has no example."""
        photo = _example(self.folder)
        if photo is None:
            raise HTTPError(404)
        self.set_header("Content-Type", "image/jpeg")
        self.set_header("Cache-Control", _DAY)
        self.finish(photo)


@lru_cache(maxsize=1)
def _example(folder: str) -> bytes | None:
    # Imported at the first request: most servers get none, and need no Pillow.
    from icon_classifier.images import read_image_file, thumbnail
    from icon_classifier.model.info import read_labels
    from icon_classifier.page.examples import find_examples

    examples = find_examples(read_labels(Path(folder) / "export.onnx"), folder)
    return thumbnail(read_image_file(examples[0].path), _SIDE) if examples else None
