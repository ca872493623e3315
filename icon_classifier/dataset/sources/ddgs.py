"""Photos found by the image search of ``ddgs``: no key, no account, no licences."""

import re

from icon_classifier.dataset.sources.found import FoundPage, Query, RefusedError, found_photo

_MAX_PAGES = 10
_COMMON_TERM = "cat"
"""There are always photos of it."""


def find(query: Query) -> FoundPage:
    """Return one page of results.

    Raises
    ------
    RefusedError
        If the search is refused.
    """
    # ddgs says "No results found." also when every engine answered 403 or timed out. So it is asked
    # for something that it has, the first page of this search or of a common term, and then again.
    known = Query(query.term if query.page > 1 else _COMMON_TERM, region=query.region)
    if page := _ask(query):
        return page
    if not _ask(known):
        raise RefusedError(f"no results, not even for {known.term!r}, of which there are some")
    return _ask(query) or FoundPage((), last=True)


def _ask(query: Query) -> FoundPage | None:
    """Return one page of results, or None if ddgs says that there are none."""
    import ddgs
    from ddgs.exceptions import DDGSException

    try:
        results = ddgs.DDGS(timeout=10).images(
            query.term, region=query.region, safesearch="on", max_results=None, page=query.page
        )
    except DDGSException as error:
        if "no results" in str(error).lower():
            return None
        raise RefusedError(_reason(str(error)) or type(error).__name__) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedError(f"ddgs could not read the answer ({error!r})") from error
    if not results:
        return None
    photos = (found_photo(each.get("image"), each.get("url")) for each in results)
    return FoundPage(tuple(filter(None, photos)), last=query.page >= _MAX_PAGES)


def _reason(text: str) -> str:
    """Shorten a message; where there is no connection, it holds the whole request."""
    error_of_client = re.match(r"(\w+): \1\(", text)
    return error_of_client[1] if error_of_client else text[:100]
