"""The drop zone widget: photos by drag and drop, paste, camera, file chooser and examples."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from icon_classifier.errors import RequestError
from icon_classifier.images import Limits
from icon_classifier.page.examples import Example
from icon_classifier.page.texts import DROP_TEXTS, MAX_PHOTOS

ACCEPT = "image/*,.heic,.heif,.avif"
"""What the file chooser accepts. Most systems do not know that HEIC is a picture."""

_MAX_BYTES = Limits().max_bytes
_MAX_NAME = 200
_HERE = Path(__file__).parent
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dropped:
    """A photo that was dropped, or came in another way.

    Attributes
    ----------
    file : dict
        As a browser sends it to a FileUpload: name (any text), type, size, last_modified, content.
        Of a file that is larger than the limit there is no content.
    index, count : int
        Its index, from 0, among the photos of one drop, and their number.
    """

    file: dict[str, Any]
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
    privacy : str, optional
        What becomes of a photo.
    """

    _esm = (_HERE / "dropzone.js").read_text(encoding="utf-8")
    _css = (_HERE / "dropzone.css").read_text(encoding="utf-8")

    texts = traitlets.Dict().tag(sync=True)
    accept = traitlets.Unicode(ACCEPT).tag(sync=True)
    max_bytes = traitlets.Int(_MAX_BYTES).tag(sync=True)
    max_photos = traitlets.Int(MAX_PHOTOS).tag(sync=True)
    examples: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(
        self,
        take: Callable[[Dropped], None],
        examples: Sequence[Example] = (),
        privacy: str = "",
    ) -> None:
        self._take = take
        self._paths = [example.path for example in examples]
        shown = [{"name": example.name, "thumbnail": example.thumbnail} for example in examples]
        super().__init__(examples=shown, texts=DROP_TEXTS | {"privacy": privacy})
        self.on_msg(self._on_message)

    def _on_message(self, _: object, content: Any, buffers: list[memoryview]) -> None:
        """Handle a message from the browser; whatever happens, reply that it may go on."""
        try:
            self._take(self._dropped(content, buffers))
        except (RequestError, OSError) as error:
            _log.warning("refused a message of the drop zone: %s", error)
        finally:
            # The kernel keeps the last message until the next one comes: not with a photo.
            buffers.clear()
            self.send({"kind": "done"})

    def _dropped(self, content: Any, buffers: list[memoryview]) -> Dropped:
        """Parse a message. Our JavaScript sends what is expected here; others may send anything."""
        match content:
            case {"kind": "example", "index": int(index)} if 0 <= index < len(self._paths):
                path = self._paths[index]
                return Dropped(_file(path.name, memoryview(path.read_bytes())))
            case {"kind": "photo", "name": str(name), "index": int(index), "count": int(count)} if (
                0 <= index < count <= MAX_PHOTOS
            ):
                file = _file(name[:_MAX_NAME], *buffers[:1])
                return Dropped(file, index, count)
        raise RequestError(f"expected a photo or an example, got {content!r:.200}")


def _file(name: str, content: memoryview | None = None) -> dict[str, Any]:
    size = _MAX_BYTES + 1 if content is None else len(content)  # the browser does not send it
    about = {"name": name, "type": "", "size": size, "last_modified": 0}
    return {**about, "content": content or memoryview(b"")}
