"""Photos under free licences, found on Wikimedia Commons by the API of MediaWiki, without a key."""

import html
import re
from typing import Any

import httpx

from icon_classifier.dataset.sources.found import (
    FoundPage,
    FoundPhoto,
    Query,
    RefusedError,
    found_photo,
)
from icon_classifier.dataset.sources.json_api import get_json, retry_after

HOST = "https://commons.wikimedia.org"

_PAGE_SIZE = 50  # of more photos, it scales none
_MAX_PAGES = 20
_WIDTH = 960
"""Width in pixels of the copy to download, one of the sizes that Wikimedia keeps ready."""

_MAX_PARTS = 10


def find(query: Query) -> FoundPage:
    """Return one page of results.

    Raises
    ------
    RefusedError
        If the search is refused.
    """
    params = {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "maxlag": "5",  # refuse when the servers are busy: nobody waits for this answer
        "generator": "search",
        "gsrsearch": f"{query.term} filetype:bitmap",  # no drawings in SVG, no PDF
        "gsrnamespace": "6",
        "gsrlimit": str(_PAGE_SIZE),
        "gsroffset": str(_PAGE_SIZE * (query.page - 1)),
        "prop": "imageinfo",
        "iiprop": "url|mime|size|extmetadata",
        "iiextmetadatafilter": "LicenseShortName|Artist",
        "iiurlwidth": str(_WIDTH),
    }
    files: dict[int, dict[str, Any]] = {}
    more: dict[str, Any] = {}
    # One page of the search may come in several parts, until "batchcomplete".
    try:
        for _ in range(_MAX_PARTS):
            answer = _ask({**params, **more}, query.contact)
            for each in answer.get("query", {}).get("pages", ()):
                files.setdefault(each["pageid"], {}).update(each)
            more = {name: str(value) for name, value in answer.get("continue", {}).items()}
            if "batchcomplete" in answer or not more:
                break
        ranked = sorted(files.values(), key=lambda each: each["index"])
        photos = tuple(photo for each in ranked if (photo := _photo(each)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"an answer of an unknown form ({error!r})") from error
    return FoundPage(photos, last="gsroffset" not in more or query.page >= _MAX_PAGES)


def _ask(params: dict[str, str], contact: str | None) -> dict[str, Any]:
    try:
        answer, headers = get_json(f"{HOST}/w/api.php", params, contact)
    except RefusedError as error:
        if error.status == httpx.codes.FORBIDDEN and not contact:
            raise RefusedError(
                f"{error}: Wikimedia wants a way to contact you; write your e-mail address as "
                "contact under [search] of the recipe",
                again=False,
            ) from error
        raise
    if refusal := answer.get("error"):  # with status 200: maxlag, ratelimited, readonly, ...
        raise RefusedError(f"{refusal['code']}: {refusal['info']}", wait=retry_after(headers))
    return answer


def _photo(file: dict[str, Any]) -> FoundPhoto | None:
    (info, *_) = file.get("imageinfo") or [{}]
    if not str(info.get("mime")).startswith("image/"):
        return None
    about = {name: each.get("value") for name, each in info.get("extmetadata", {}).items()}
    return found_photo(
        info.get("thumburl") or info.get("url"),
        info.get("descriptionurl"),
        _plain(about.get("LicenseShortName")),
        _plain(about.get("Artist")),
    )


def _plain(markup: object) -> str:
    """Return the text of a piece of HTML, which is how the API writes licences and authors."""
    text = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", str(markup or ""), flags=re.S | re.I)
    return " ".join(html.unescape(text).split())
