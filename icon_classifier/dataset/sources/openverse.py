"""Photos under free licences, found by Openverse (https://api.openverse.org), without a key."""

from icon_classifier.dataset.sources.found import FoundPage, Query, RefusedError, found_photo
from icon_classifier.dataset.sources.json_api import get_json

HOST = "https://api.openverse.org"

# Limits for whoever has no key. There are two more, 20 requests a minute and 200 a day, which the
# answer 429 tells.
_PAGE_SIZE = 20
_MAX_PAGES = 12


def find(query: Query) -> FoundPage:
    """Return one page of results.

    Raises
    ------
    RefusedError
        If the search is refused.
    """
    params = {
        "q": query.term[:200],
        "page": str(query.page),
        "page_size": str(_PAGE_SIZE),
        # Searched by wikimedia.py, which gets them in a size to train on.
        "excluded_source": "wikimedia",
    }
    answer, _ = get_json(f"{HOST}/v1/images/", params, query.contact)
    results, pages = answer.get("results"), answer.get("page_count")
    if not isinstance(results, list) or not isinstance(pages, int):
        raise RefusedError("an answer without results")
    photos = (
        found_photo(
            each.get("url"), each.get("foreign_landing_url"), _licence(each), each.get("creator")
        )
        for each in results
        if isinstance(each, dict)
    )
    last = not results or query.page >= min(pages, _MAX_PAGES)
    return FoundPage(tuple(filter(None, photos)), last)


def _licence(result: dict[str, object]) -> str:
    """Return the name of a licence as people write it: ``by-sa`` 4.0 is CC BY-SA 4.0."""
    code, version = str(result.get("license") or ""), str(result.get("license_version") or "")
    if code == "pdm":
        return "Public Domain Mark 1.0"
    if code == "cc0":
        return f"CC0 {version}".rstrip()
    return f"CC {code.upper()} {version}".rstrip() if code else ""
