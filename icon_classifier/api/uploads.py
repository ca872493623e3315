"""The photos of a request: read within limits of size, number, memory and time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import (
    EmptyImageError,
    SlowUploadError,
    UploadError,
    UploadTooLargeError,
)

_MAX_FIELDS = 8
_MAX_FIELD_BYTES = 4096


@dataclass(frozen=True)
class Photo:
    """A file as it came.

    Attributes
    ----------
    name : str
        What the client calls it; empty if it does not say. Never to be used as a path.
    data : bytes
        Its content.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class Upload:
    """What a request brought: photos, and the plain fields of a form."""

    photos: tuple[Photo, ...]
    fields: dict[str, str]


async def read_upload(
    request: Request, settings: ApiSettings, take: Callable[[int], None]
) -> Upload:
    """Read the body of a request: a form with files, or one photo as it is.

    Parameters
    ----------
    request : Request
        Its body has not been touched.
    settings : ApiSettings
        The limits.
    take : callable
        Takes bytes from the budget of all requests, see :meth:`.limits.Budget.hold`.

    Raises
    ------
    UploadError
        If there is no photo, too much, or too slowly.
    BusyError
        If all requests together would hold too much memory.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > 2 * settings.max_body:
        raise UploadTooLargeError(f"{declared} bytes were announced")
    body = _Body(request.receive, settings, take)
    limited = Request(request.scope, body.receive)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            return await _read_form(limited, settings)
        # Whatever else the type says (curl's own is that of a plain form), the bytes decide.
        data = await limited.body()
    except ClientDisconnect as error:
        raise UploadError("the client went away while sending") from error
    if not data:
        raise EmptyImageError("the body of the request is empty")
    return Upload((Photo("", data),), {})


async def _read_form(request: Request, settings: ApiSettings) -> Upload:
    parser = _InMemoryParser(
        request.headers,
        request.stream(),
        # One more than allowed is told apart from a broken form below.
        max_files=settings.max_files + 1,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_FIELD_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise UploadTooLargeError(error.message) from error
        raise UploadError(
            f"not a form that can be read: {error.message}",
            words="This form cannot be read; please check how it is put together.",
        ) from error
    photos, fields = [], {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields[name] = value
        elif value.filename or value.size:  # browsers send an empty part for no file chosen
            photos.append(Photo(value.filename or "", await value.read()))
    await form.close()
    if not photos:
        raise UploadError("the form has no file")
    if len(photos) > settings.max_files:
        raise UploadTooLargeError(f"expected at most {settings.max_files} photos in one request")
    return Upload(tuple(photos), fields)


class _InMemoryParser(MultiPartParser):
    """Keeps photos in memory, which the budget watches, instead of in temporary files."""

    spool_max_size = 2**62


class _Body:
    """Wraps ASGI's receive: counts bytes and seconds."""

    def __init__(
        self, receive: Receive, settings: ApiSettings, take: Callable[[int], None]
    ) -> None:
        self._receive = receive
        self._settings = settings
        self._take = take
        self._size = 0
        self._deadline = time.monotonic() + settings.body_seconds

    async def receive(self) -> Message:
        message = await self._next()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self._size += size
            if self._size > self._settings.max_body:
                await self._drain(message)
                raise UploadTooLargeError(
                    f"expected at most {self._settings.max_body} bytes, got more",
                    words=f"This is more than {self._settings.max_body // 2**20} MB; "
                    "please send fewer or smaller photos.",
                )
            self._take(size)
        return message

    async def _next(self) -> Message:
        left = self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(self._settings.idle_seconds, left)):
                return await self._receive()
        except TimeoutError as error:
            raise SlowUploadError(f"only {self._size} bytes came in time") from error

    async def _drain(self, message: Message) -> None:
        """Read on a little and forget it: a client still sending would never see the answer."""
        while message.get("more_body") and self._size <= 2 * self._settings.max_body:
            message = await self._next()
            self._size += len(message.get("body", b""))
