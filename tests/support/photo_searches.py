"""Searches for photos that a test chooses: ddgs in this process, two web APIs on a local server.

The web APIs answer with the forms, pages and limits of Openverse and Wikimedia Commons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ddgs.exceptions import DDGSException

from tests.support.photo_server import PhotoHandler, PhotoServer, Route

OPENVERSE = "/v1/images/"
WIKIMEDIA = "/w/api.php"


class FakeDdgs:
    """In place of ``ddgs.DDGS``: pages of addresses for each term, or refusals before them.

    Attributes
    ----------
    pages : dict
        Addresses for a term and the number of a page, from 1. There is always a photo of a cat.
    refusals : list of Exception
        Raised by the next calls, one each.
    asked : list
        The term and page of each call.
    """

    def __init__(self, pages: dict[tuple[str, int], list[str]] | None = None) -> None:
        self.pages = pages or {}
        self.refusals: list[Exception] = []
        self.asked: list[tuple[str, int]] = []

    def __call__(self, **_: Any) -> FakeDdgs:
        return self

    def images(self, query: str, *, page: int = 1, **_: Any) -> list[dict[str, str]]:
        self.asked.append((query, page))
        if self.refusals:
            raise self.refusals.pop(0)
        urls = self.pages.get((query, page)) or (["https://x.example/cat"] * (query == "cat"))
        if not urls:
            raise nothing()
        return [{"title": query, "image": url, "url": f"{url}?page"} for url in urls]


def nothing() -> DDGSException:
    """Return what ddgs raises when it finds nothing, and when its engines refuse."""
    return DDGSException("No results found.")


@dataclass
class SearchApi:
    """One web API: what it finds, and what it answers before that.

    Attributes
    ----------
    found : dict
        For each term the photos, as the API describes them.
    answers : list of Route
        Played by the next requests, one each.
    asked : list of dict
        The parameters of each request that was answered with photos or refused.
    """

    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answers: list[Route] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)

    def next_answer(self, handler: PhotoHandler) -> dict[str, str] | None:
        """Return the parameters of a request, or None if one of ``answers`` was played."""
        query = {name: value[0] for name, value in parse_qs(urlsplit(handler.path).query).items()}
        self.asked.append(query)
        if self.answers:
            self.answers.pop(0)(handler)
            return None
        return query


def answer(content: object, code: int = 200, **headers: str) -> Route:
    """Answer with JSON."""

    def route(handler: PhotoHandler) -> None:
        data = json.dumps(content).encode()
        length = str(len(data))
        handler.head(code, Content_Type="application/json", Content_Length=length, **headers)
        handler.wfile.write(data)

    return route


def throttled(seconds: int = 12) -> Route:
    """Answer as Openverse does to whoever asks too often."""
    detail = f"Request was throttled. Expected available in {seconds} seconds."
    headers = {
        "Retry_After": str(seconds),
        "X_RateLimit_Limit_anon_burst": "20/min",
        "X_RateLimit_Available_anon_burst": "0",
    }
    return answer({"detail": detail}, 429, **headers)


def lagging(seconds: int = 5) -> Route:
    """Answer as MediaWiki does when its databases lag behind: an error with status 200."""
    error = {"code": "maxlag", "info": "Waiting for 10.64.16.12: 7.2 seconds lagged.", "lag": 7.2}
    return answer({"error": error}, 200, Retry_After=str(seconds), X_Database_Lag="7")


def openverse_photo(url: str, **changes: object) -> dict[str, Any]:
    return {
        "id": "4bc43a04-ef46-4544-a0c1-63c63f56e276",
        "title": "A bear",
        "foreign_landing_url": f"{url}/about",
        "url": url,
        "creator": "Anna B",
        "license": "by-sa",
        "license_version": "2.0",
        "source": "flickr",
        "filetype": "jpg",
        "attribution": '"A bear" by Anna B is licensed under CC BY-SA 2.0.',
        "mature": False,
        **changes,
    }


def openverse(api: SearchApi, now: Callable[[], float] | None = None) -> Route:
    """Serve the API of Openverse to whoever has no key.

    Parameters
    ----------
    api : SearchApi
        What it finds.
    now : callable, optional
        A clock, in seconds; with one, 20 requests a minute are answered.
    """
    answered: list[float] = []

    def route(handler: PhotoHandler) -> None:
        if (query := api.next_answer(handler)) is None:
            return
        if now is not None:
            time = now()
            answered[:] = [each for each in answered if each > time - 60]
            if len(answered) >= 20:
                return throttled(math.ceil(answered[0] + 60 - time))(handler)
            answered.append(time)
        page, size = int(query["page"]), int(query["page_size"])
        if size > 20:
            detail = "Ensure this value is less than or equal to 20."
            return answer({"detail": detail}, 401)(handler)
        if page * size > 240:
            return answer({"detail": "pagination depth may not exceed 240"}, 401)(handler)
        excluded = query.get("excluded_source")
        found = [each for each in api.found.get(query["q"], ()) if each["source"] != excluded]
        content = {
            "result_count": len(found),
            "page_count": -(-len(found) // size),
            "page_size": size,
            "page": page,
            "results": found[(page - 1) * size : page * size],
        }
        return answer(content)(handler)

    return route


def wikimedia_photo(url: str, **changes: object) -> dict[str, Any]:
    """Return an item of ``imageinfo``."""
    return {
        "size": 3485760,
        "width": 4000,
        "height": 3000,
        "thumburl": f"{url}/960px",
        "thumbwidth": 960,
        "thumbheight": 720,
        "url": url,
        "descriptionurl": f"{url}/about",
        "mime": "image/jpeg",
        "extmetadata": {
            "LicenseShortName": {"value": "CC BY 4.0", "source": "commons-desc-page"},
            "Artist": {
                "value": '<a href="//x.example/u" title="User:Zoë">Zoë &amp; Max</a>',
                "source": "commons-desc-page",
            },
        },
        **changes,
    }


def wikimedia(api: SearchApi, *, parts: int = 1, wants_contact: bool = False) -> Route:
    """Serve the API of Wikimedia Commons.

    Parameters
    ----------
    api : SearchApi
        What it finds.
    parts : int
        In how many answers each page of results comes: the first ones lack the details of some.
    wants_contact : bool
        Refuse programs that do not name a way to contact their user.
    """

    def route(handler: PhotoHandler) -> None:
        if (query := api.next_answer(handler)) is None:
            return
        if wants_contact and "@" not in handler.headers["User-Agent"]:
            text = b"Please set a user-agent and respect our robot policy."
            handler.head(403, Content_Type="text/plain", Content_Length=str(len(text)))
            handler.wfile.write(text)
            return
        assert query["gsrnamespace"] == "6"
        assert query["formatversion"] == "2"
        start, size = int(query["gsroffset"]), int(query["gsrlimit"])
        part = int(query.get("iistart", "1"))
        found = api.found.get(query["gsrsearch"].removesuffix(" filetype:bitmap"), [])
        page = list(enumerate(found, 1))[start : start + size]
        pages = [
            {"pageid": 7000 + index, "ns": 6, "title": f"File:{index}.jpg", "index": index}
            | ({"imageinfo": [info]} if index % parts == part - 1 else {})
            for index, info in reversed(page)  # in the order of ids, not of ranks
        ]
        content: dict[str, Any] = {"query": {"pages": pages}} if pages else {}
        if part < parts:
            content["continue"] = {"iistart": str(part + 1), "continue": "||"}
        else:
            content["batchcomplete"] = True
            if start + size < len(found):
                content["continue"] = {"gsroffset": start + size, "continue": "gsroffset||"}
        answer(content)(handler)

    return route


def serve(server: PhotoServer) -> tuple[SearchApi, SearchApi]:
    """Serve both APIs, which find nothing yet."""
    one, two = SearchApi(), SearchApi()
    server.routes.update({OPENVERSE: openverse(one), WIKIMEDIA: wikimedia(two)})
    return one, two
