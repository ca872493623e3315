"""Errors as clients receive them: RFC 9457, ``application/problem+json``."""

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

_STATUS_CODES: dict[type[IconClassifierError], int] = {
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
"""HTTP status of each class of error; the others have that of their nearest base class."""


class ProblemResponse(JSONResponse):
    """A JSON response with the media type of a problem."""

    media_type = "application/problem+json"


def problem(error: IconClassifierError, request: Request) -> dict[str, Any]:
    """Describe an error for a client.

    Parameters
    ----------
    error : IconClassifierError
        The error.
    request : starlette.requests.Request
        The request that it answers; a proxy's prefix of it is that of the documentation.

    Returns
    -------
    dict
        ``type`` (an anchor on the page of the documentation), ``title``, ``status`` and ``detail``:
        the sentence for a person. The error's own message is for the log and is not included.
    """
    kind = type(error)
    return {
        "type": f"{root_path(request)}/docs#{slug(kind)}",
        "title": title(kind),
        "status": status_code(kind),
        "detail": error.words,
    }


def root_path(request: Request) -> str:
    """Return the prefix under which a proxy serves the API; mostly empty."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def status_code(kind: type[IconClassifierError]) -> int:
    """Return the HTTP status of a class of error."""
    return next(_STATUS_CODES[base] for base in kind.__mro__ if base in _STATUS_CODES)


def slug(kind: type[IconClassifierError]) -> str:
    """Return the name of a class of error as in ``damaged-image``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__.removesuffix("Error")).lower()


def title(kind: type[IconClassifierError]) -> str:
    """Return the first line of the docstring of a class of error."""
    return (kind.__doc__ or kind.__name__).strip().splitlines()[0].rstrip(".")


def client_errors() -> Iterator[type[IconClassifierError]]:
    """Yield the classes of errors that a client can receive."""
    for base in (errors.ImageError, errors.RequestError):
        yield from _subtree(base)


def _subtree(kind: type[IconClassifierError]) -> Iterator[type[IconClassifierError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _subtree(subclass)


def error_headers(error: IconClassifierError) -> dict[str, str]:
    """Return the headers of a response to an error."""
    headers = {}
    if isinstance(error, BusyError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.ApiKeyError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.UploadError):
        headers["Connection"] = "close"  # the rest of the body is not read
    return headers


def error_response(error: IconClassifierError, request: Request) -> Response:
    """Return the response for an error."""
    content = problem(error, request)
    return ProblemResponse(content, content["status"], error_headers(error))


async def _on_error(request: Request, error: Exception) -> Response:
    # Starlette's signature is wider
    return error_response(cast(IconClassifierError, error), request)


async def _on_http_error(request: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    methods = (error.headers or {}).get("Allow", "").replace(", ", " or ")
    docs = f"{root_path(request)}/docs"
    detail = f"Please send this request with {methods}; {docs} shows how." if methods else ""
    return _http_problem(error.status_code, error.headers, detail)


async def _on_crash(_: Request, __: Exception) -> Response:
    return _http_problem(500)  # Starlette and uvicorn log the traceback


def _http_problem(code: int, headers: Any = None, detail: str = "") -> Response:
    status = http.HTTPStatus(code)
    content = {
        "type": "about:blank",
        "title": status.phrase,
        "status": code,
        "detail": detail or status.description or IconClassifierError.words,
    }
    return ProblemResponse(content, code, headers)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    IconClassifierError: _on_error,
    HTTPException: _on_http_error,
    Exception: _on_crash,
}
"""Starlette calls these for each class of exception."""
