import gzip

import httpx
import pytest

from icon_classifier.dataset.sources import json_api
from icon_classifier.dataset.sources.found import RefusedError
from icon_classifier.dataset.sources.json_api import get_json, retry_after
from tests.support.photo_searches import answer
from tests.support.photo_server import (
    PhotoHandler,
    PhotoServer,
    Route,
    body,
    endless,
    photo_server,
    redirect,
    silent,
    status,
    truncated,
)


def test_parameters_are_encoded_and_the_answer_is_decoded(server: PhotoServer) -> None:
    server.routes["/api"] = answer({"name": "Zoë"}, X_Left="3")

    content, headers = get_json(server.url("/api"), {"q": "Zoë & a|b"})

    assert content == {"name": "Zoë"}
    assert headers["x-left"] == "3"
    assert server.requests[0][0] == "/api?q=Zo%C3%AB+%26+a%7Cb"


def test_redirect_is_followed(server: PhotoServer) -> None:
    server.routes = {"/api": redirect("/api/"), "/api/": answer({"a": 1})}

    assert get_json(server.url("/api"), {})[0] == {"a": 1}


def bomb(handler: PhotoHandler) -> None:
    data = gzip.compress(bytes(1_000_000))
    handler.head(Content_Encoding="gzip", Content_Length=str(len(data)))
    handler.wfile.write(data)


REFUSALS: dict[str, tuple[Route, str, bool]] = {
    "forbidden": (status(403), "HTTP 403 Forbidden", True),
    "too many": (status(429), "HTTP 429 Too Many Requests", True),
    "busy": (status(503), "HTTP 503 Service Unavailable", True),
    "unknown": (status(404), "HTTP 404 Not Found", False),
    "log-in page": (body(b"<html>Welcome</html>", "text/html"), "expected JSON", True),
    "list": (answer([1]), "expected a JSON object, got list", True),
    "nested": (body(b"[" * 50_000, "application/json"), "expected JSON", True),
    "cut off": (truncated(b'{"a": 1}'), "closed connection without", True),
    "silent": (silent(), r"no answer in time \(ReadTimeout\)", True),
    "endless": (endless(b"{"), "larger than 200000 bytes", False),
    "bomb": (bomb, "larger than 200000 bytes", False),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_anything_but_an_answer_is_a_refusal(
    server: PhotoServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server.routes["/api"], message, again = REFUSALS[name]
    monkeypatch.setattr(json_api, "_MAX_BYTES", 200_000)
    if name == "silent":
        monkeypatch.setattr(json_api, "_TIMEOUT", httpx.Timeout(0.2, connect=10))

    with pytest.raises(RefusedError, match=message) as caught:
        get_json(server.url("/api"), {})

    assert caught.value.again is again


def test_missing_network_is_a_refusal_that_may_pass() -> None:
    with photo_server() as gone:
        url = gone.url("/api")

    with pytest.raises(RefusedError) as caught:
        get_json(url, {})

    assert caught.value.again


NOON = "Sun, 06 Nov 1994 12:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 120 "}, 120),
        ({"retry-after": "Sun, 06 Nov 1994 12:01:30 GMT", "date": NOON}, 90),
        ({"retry-after": "Sun, 06 Nov 1994 11:00:00 GMT", "date": NOON}, 0),
        ({"retry-after": "Sun, 06 Nov 1994 12:01:30 GMT"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "soon", "date": NOON}, 0),
        ({"retry-after": "9" * 400}, float("inf")),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds
