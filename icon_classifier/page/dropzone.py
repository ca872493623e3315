"""The drop zone widget: photos by drag and drop, paste, camera, file chooser and examples."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from icon_classifier.errors import ImageTooLargeError, RequestError, too_many_bytes
from icon_classifier.images import Limits, read_image, read_image_file
from icon_classifier.page.examples import Example
from icon_classifier.page.texts import DROP_TEXTS, MAX_PHOTOS

ACCEPT = "image/*,.heic,.heif,.avif"
"""What the file chooser accepts. Most systems do not know that HEIC is a picture."""

LIMITS = Limits()
"""Limits on a photo that is sent; the same as everywhere else."""

_NAME_LENGTH = 200
_HERE = Path(__file__).parent
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dropped:
    """A photo that was dropped, or came in another way.

    Attributes
    ----------
    name : str
        Its file name, from the visitor's browser: any text.
    read : callable
        Decodes it, or raises an `ImageError`; works only until the callback returns.
    index, count : int
        Its index, from 0, among the photos of one drop, and their number.
    """

    name: str
    read: Callable[[], Image.Image]
    index: int = 0
    count: int = 1


class DropZone(anywidget.AnyWidget):
    """Takes photos by drag and drop, from the clipboard, the camera, a file chooser and examples.

    Photos are shrunk in the browser before they are sent, one by one: the next is sent when the
    last is answered. What the browser cannot decode is sent as it is.

    Parameters
    ----------
    take : callable
        Called with each `Dropped`. Must not raise: it shows errors on the page.
    examples : sequence of Example, optional
        Photos to click.
    """

    _esm = (_HERE / "dropzone.js").read_text(encoding="utf-8")
    _css = (_HERE / "dropzone.css").read_text(encoding="utf-8")

    texts = traitlets.Dict(DROP_TEXTS).tag(sync=True)
    accept = traitlets.Unicode(ACCEPT).tag(sync=True)
    max_bytes = traitlets.Int(LIMITS.max_bytes).tag(sync=True)
    max_photos = traitlets.Int(MAX_PHOTOS).tag(sync=True)
    examples: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, take: Callable[[Dropped], None], examples: Sequence[Example] = ()) -> None:
        self._take = take
        self._paths = [example.path for example in examples]
        shown = [{"name": example.name, "thumbnail": example.thumbnail} for example in examples]
        super().__init__(examples=shown)
        self.on_msg(self._on_message)

    def _on_message(self, _: object, content: dict[str, Any], buffers: list[memoryview]) -> None:
        """Handle a message from the browser; whatever happens, reply that it may go on."""
        try:
            self._take(self._dropped(content, buffers))
        except RequestError as error:
            _log.warning("refused a message of the drop zone: %s", error)
        finally:
            # The kernel keeps the last message until the next one comes: not with a photo.
            buffers.clear()
            self.send({"kind": "done"})

    def _dropped(self, content: dict[str, Any], buffers: list[memoryview]) -> Dropped:
        """Parse a message. Our JavaScript sends what is expected here; others may send anything."""
        match content:
            case {"kind": "example", "index": int(index)} if 0 <= index < len(self._paths):
                path = self._paths[index]
                return Dropped(path.name, functools.partial(read_image_file, path))
            case {"kind": "photo", "name": str(name), "index": int(index), "count": int(count)} if (
                0 <= index < count <= MAX_PHOTOS
            ):
                return Dropped(name[:_NAME_LENGTH], lambda: _decode(buffers), index, count)
        raise RequestError(f"expected a photo or an example, got {content!r:.200}")


def _decode(buffers: list[memoryview]) -> Image.Image:
    """Decode the photo of a message; the browser does not send what is too large."""
    if not buffers:
        raise ImageTooLargeError(
            f"more than {LIMITS.max_bytes} bytes, not sent",
            words=too_many_bytes(LIMITS.max_bytes),
        )
    return read_image(buffers[0], LIMITS)
