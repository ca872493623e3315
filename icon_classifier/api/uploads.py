"""Read the photos of a request, with limits on size, number, memory and time."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import (
    EmptyImageError,
    SlowUploadError,
    UnsupportedImageError,
    UploadError,
    UploadTooLargeError,
    megabytes,
)

_MAX_FIELDS = 8
_MAX_FIELD_BYTES = 4096


@dataclass(frozen=True)
class Photo:
    """An uploaded file.

    Attributes
    ----------
    name : str
        The client's name for it; empty if there is none. Never use it as a path.
    data : bytes
        Its content.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class Upload:
    """The content of a request: photos, and the text fields of a form."""

    photos: tuple[Photo, ...]
    fields: dict[str, str]


async def read_upload(
    request: Request, settings: ApiSettings, reserve: Callable[[int], None]
) -> Upload:
    """Read the body of a request: a form with files, or the bytes of one photo.

    Parameters
    ----------
    request : Request
        Its body has not been read yet.
    settings : ApiSettings
        The limits.
    reserve : callable
        Reserves a number of bytes, see :meth:`.limits.Budget.reservation`.

    Raises
    ------
    UploadError
        If there is no photo, or the body is too large or too slow.
    EmptyImageError
        If the body is empty.
    UnsupportedImageError
        If it is JSON.
    BusyError
        If all requests together would take too much memory.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > 2 * settings.max_body:
        raise UploadTooLargeError(f"expected at most {settings.max_body} bytes, got {declared}")
    body = _LimitedBody(request.receive, settings, reserve)
    limited = Request(request.scope, body.receive)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media_type == "multipart/form-data":
            return await _read_form(limited, settings)
        # Any other type is ignored (curl sends that of a plain form); the bytes decide.
        file = _PhotoFile(settings.max_bytes)
        async for chunk in limited.stream():
            file.write(chunk)
    except ClientDisconnect as error:
        raise UploadError("the client disconnected while sending") from error
    if not file.tell():
        raise EmptyImageError("expected a photo, got an empty body")
    if media_type == "application/json":
        raise UnsupportedImageError(
            "expected a photo, got JSON",
            words="Please send the photo itself as the body, or a form with files, not JSON.",
        )
    return Upload((Photo("", file.getvalue()),), {})


async def _read_form(request: Request, settings: ApiSettings) -> Upload:
    _, options = parse_options_header(request.headers["content-type"])
    boundary = options.get(b"boundary", b"").decode("latin-1")
    parser = _PhotoParser(
        # Without a charset, which browsers never send: Python would keep each name that is none,
        # and some codecs fail or decode to something other than text.
        Headers({"content-type": f'multipart/form-data; boundary="{boundary}"'}),
        request.stream(),
        settings.max_bytes,
        max_files=settings.max_files,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise UploadTooLargeError(error.message) from error
        raise UploadError(
            f"expected a valid form: {error.message}",
            words="This form cannot be read; please send a valid multipart/form-data body.",
        ) from error
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    # Browsers send an empty part if no file is chosen.
    photos = tuple(photo for photo in parser.photos if photo.name or photo.data)
    if not photos:
        raise UploadError("expected a file in the form, got none")
    return Upload(photos, fields)


class _PhotoFile(io.BytesIO):
    """Keeps a photo: one byte more than allowed at most, which shows that it is too large.

    Unlike pieces that are joined, it needs no memory for a second copy.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        return super().write(data[: self._max_bytes + 1 - self.tell()])


class _PhotoParser(MultiPartParser):
    """Keeps photos in memory, which the memory budget limits, not in temporary files."""

    def __init__(
        self, headers: Headers, stream: AsyncGenerator[bytes], max_bytes: int, **limits: int
    ) -> None:
        super().__init__(headers, stream, **limits)
        self._max_bytes = max_bytes
        self.photos: list[Photo] = []

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        if file := self._current_part.file:
            file.file.close()
            self._photo = _PhotoFile(self._max_bytes)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file:
            self._photo.write(memoryview(data)[start:end])
        else:
            super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        if file := self._current_part.file:
            self.photos.append(Photo(file.filename or "", self._photo.getvalue()))
        else:
            super().on_part_end()


class _LimitedBody:
    """Wraps ASGI's receive and enforces the limits on bytes and seconds."""

    def __init__(
        self, receive: Receive, settings: ApiSettings, reserve: Callable[[int], None]
    ) -> None:
        self._receive = receive
        self._settings = settings
        self._reserve = reserve
        self._size = 0
        self._deadline = time.monotonic() + settings.body_seconds

    async def receive(self) -> Message:
        message = await self._next()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._size += size
            max_body = self._settings.max_body
            if self._size > max_body:
                await self._drain(message)
                raise UploadTooLargeError(
                    f"expected at most {max_body} bytes, got more",
                    words=f"This upload is larger than {megabytes(max_body)}; "
                    "please send fewer or smaller photos.",
                )
            self._reserve(size)
        return message

    async def _next(self) -> Message:
        remaining = self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(self._settings.idle_seconds, remaining)):
                return await self._receive()
        except TimeoutError as error:
            raise SlowUploadError(f"only {self._size} bytes were received in time") from error

    async def _drain(self, message: Message) -> None:
        """Read on a little and discard it: a client that is still sending reads no response."""
        while message.get("more_body") and self._size <= 2 * self._settings.max_body:
            message = await self._next()
            self._size += len(message.get("body", b""))
