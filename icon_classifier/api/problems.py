"""Errors as a client sees them: RFC 9457, ``application/problem+json``, with our words."""

from __future__ import annotations

import http
import re
from collections.abc import Iterator
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from icon_classifier import errors
from icon_classifier.errors import BusyError, IconClassifierError

STATUS: dict[type[IconClassifierError], int] = {
    errors.IconClassifierError: 500,
    errors.ImageError: 422,
    errors.UnsupportedImageError: 415,
    errors.ImageTooLargeError: 413,
    errors.ModelError: 503,
    errors.RequestError: 400,
    errors.FetchError: 422,
    errors.UploadError: 400,
    errors.UploadTooLargeError: 413,
    errors.SlowUploadError: 408,
    errors.ApiKeyError: 401,
    errors.BusyError: 503,
    errors.RateLimitError: 429,
}
"""The HTTP status of each kind of error; others have that of their nearest base."""


class ProblemResponse(JSONResponse):
    """A problem as JSON."""

    media_type = "application/problem+json"


def problem(error: IconClassifierError) -> dict[str, Any]:
    """Describe an error for a client.

    Returns
    -------
    dict
        ``type`` (a place on the page of the API), ``title``, ``status`` and ``detail``: the words
        for a visitor. The text of the error is for the log and is not told.
    """
    kind = type(error)
    return {
        "type": f"/docs#{slug(kind)}",
        "title": title(kind),
        "status": status_of(kind),
        "detail": error.words,
    }


def status_of(kind: type[IconClassifierError]) -> int:
    """Find the HTTP status of a kind of error."""
    return next(STATUS[base] for base in kind.__mro__ if base in STATUS)


def slug(kind: type[IconClassifierError]) -> str:
    """Write the name of a kind as in ``damaged-image``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__.removesuffix("Error")).lower()


def title(kind: type[IconClassifierError]) -> str:
    """Take the first line that the kind says of itself."""
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0].rstrip(".")


def kinds() -> Iterator[type[IconClassifierError]]:
    """Yield the kinds of errors that a client can meet."""
    for base in (errors.ImageError, errors.RequestError):
        yield from _below(base)


def _below(kind: type[IconClassifierError]) -> Iterator[type[IconClassifierError]]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _below(sub)


def respond(error: IconClassifierError) -> Response:
    """Answer by an error, with the headers that belong to its kind."""
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.ApiKeyError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.UploadError):
        headers["Connection"] = "close"  # the rest of the body is not wanted
    described = problem(error)
    return ProblemResponse(described, described["status"], headers)


async def _on_error(_: Request, error: Exception) -> Response:
    return respond(cast(IconClassifierError, error))  # Starlette's signature is wider


async def _on_http_error(_: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    return _plain(error.status_code, error.headers)


async def _on_crash(_: Request, __: Exception) -> Response:
    return _plain(500)  # the traceback is logged by Starlette and the server


def _plain(status: int, headers: Any = None) -> Response:
    described = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": http.HTTPStatus(status).description or IconClassifierError.words,
    }
    return ProblemResponse(described, status, headers)


HANDLERS: dict[Any, Any] = {
    IconClassifierError: _on_error,
    HTTPException: _on_http_error,
    Exception: _on_crash,
}
"""What Starlette calls for each kind of exception."""
