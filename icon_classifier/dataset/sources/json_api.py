"""Ask a web API for JSON, with limits on time and size."""

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from icon_classifier import __version__
from icon_classifier.dataset.sources.found import RefusedError

_TIMEOUT = httpx.Timeout(20, connect=10)
_MAX_SECONDS = 60.0
_MAX_BYTES = 20_000_000

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed later."""


def user_agent(contact: str | None) -> str:
    """Return the name of this program as Wikimedia wants it: with a way to contact its user."""
    about = " ".join((contact or "contact unknown").encode("ascii", "replace").decode().split())
    return f"icon-classifier/{__version__} ({about}) httpx/{httpx.__version__}"


def get_json(
    url: str, params: Mapping[str, str], contact: str | None = None
) -> tuple[dict[str, Any], httpx.Headers]:
    """Ask an API.

    Returns
    -------
    answer : dict
        The JSON object of its answer.
    headers : httpx.Headers
        The headers of its answer.

    Raises
    ------
    RefusedError
        If there is no answer, its status is not 200, or it is not a JSON object.
    """
    headers = {"User-Agent": user_agent(contact), "Accept": "application/json"}
    try:
        with (
            httpx.Client(headers=headers, timeout=_TIMEOUT, follow_redirects=True) as client,
            client.stream("GET", url, params=dict(params)) as response,
        ):
            data = _read(response)
    except httpx.TimeoutException as error:
        raise RefusedError(f"no answer in time ({type(error).__name__})") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RefusedError(str(error) or type(error).__name__) from error
    status = response.status_code
    if status != httpx.codes.OK:
        raise RefusedError(
            status_line(response),
            again=status
            in TRANSIENT | {httpx.codes.FORBIDDEN},  # of an API that is asked too often
            wait=retry_after(response.headers),
            status=status,
        )
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError) as error:  # a network's log-in page, say
        raise RefusedError("expected JSON, got something else") from error
    if not isinstance(answer, dict):
        raise RefusedError(f"expected a JSON object, got {type(answer).__name__}")
    return answer, response.headers


def _read(response: httpx.Response) -> bytes:
    deadline = time.monotonic() + _MAX_SECONDS
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > _MAX_BYTES:
            raise RefusedError(f"an answer larger than {_MAX_BYTES} bytes", again=False)
        if time.monotonic() > deadline:
            raise RefusedError(f"an answer not complete after {_MAX_SECONDS:g} seconds")
    return bytes(data)


def status_line(response: httpx.Response) -> str:
    """Return the status of an answer for people, as ``HTTP 404 Not Found``."""
    return f"HTTP {response.status_code} {response.reason_phrase}".rstrip()


def retry_after(headers: Mapping[str, str]) -> float:
    """Return how many seconds to wait as the header ``Retry-After`` says, 0 if it does not.

    It holds seconds or a date; a date is compared with that of the answer, not with this machine's
    clock (RFC 9110, section 10.2.3).
    """
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text).timestamp()
        answered = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return 0.0
    return max(0.0, until - answered)
