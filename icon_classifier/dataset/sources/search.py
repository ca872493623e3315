"""Find addresses of photos by an image search (``ddgs``: no key, no account)."""

import time
from collections.abc import Callable, Sequence

from icon_classifier.errors import DownloadError

_WAITS = (2.0, 5.0, 15.0)
"""Seconds before each retry of a search that was refused."""

_MAX_PAGES = 10


def search_photos(
    terms: Sequence[str],
    count: int = 150,
    *,
    region: str = "us-en",
    pause: Callable[[float], object] = time.sleep,
) -> list[str]:
    """Search for photos, term by term and page by page.

    Parameters
    ----------
    terms : sequence of str
        What to search for. Each term contributes an equal share; where one finds less, the later
        ones contribute more.
    count : int
        How many addresses to return at most.
    region : str
        Country and language of the search.
    pause : callable
        Called with the seconds to wait before a refused search is retried.

    Returns
    -------
    list of str
        Different addresses, in the order of the search.

    Raises
    ------
    DownloadError
        If the search is refused, or finds nothing.
    """
    chosen: dict[str, None] = {}
    spare: dict[str, None] = {}
    refusal: Exception | None = None
    for number, term in enumerate(terms, 1):
        share = count * number // len(terms)
        for page in range(1, _MAX_PAGES + 1):
            results, refusal = _page(term, page, count, region, pause)
            new = [url for url in dict.fromkeys(results) if url not in chosen and url not in spare]
            left = share - len(chosen)
            chosen.update(dict.fromkeys(new[:left]))
            spare.update(dict.fromkeys(new[left:]))
            if not new or len(chosen) >= share:
                break
        if refusal is not None and chosen:
            break  # better fewer photos than to be refused for longer
    if not chosen:
        asked = ", ".join(map(repr, terms))
        if refusal is None:
            raise DownloadError(f"the image search found nothing for {asked}; try other terms")
        raise DownloadError(
            f"the image search was refused for {asked} ({str(refusal)[:100]}). Is this machine "
            "on the network? Then wait some minutes and run this again, write addresses into a "
            "list (one per line), or use a folder of photos"
        ) from refusal
    return [*chosen, *spare][:count]


def _page(
    term: str, page: int, count: int, region: str, pause: Callable[[float], object]
) -> tuple[list[str], Exception | None]:
    """Return one page of results, and the last error if the search was refused at every try."""
    import ddgs
    from ddgs.exceptions import DDGSException

    refusal: Exception | None = None
    for wait in (*_WAITS, None):
        try:
            results = ddgs.DDGS(timeout=10).images(
                term, region=region, safesearch="on", max_results=count, page=page
            )
        except DDGSException as error:
            # ddgs has no exception of its own for "there are no (more) results".
            if "no results" in str(error).lower():
                return [], None
            refusal = error
            if wait is not None:
                pause(wait)
            continue
        urls = (str(each.get("image") or "") for each in results)
        return [url for url in urls if url.startswith(("http://", "https://"))], None
    return [], refusal
