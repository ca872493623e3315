"""Search for photos, source after source, and keep each page of results.

The first source is asked until it has no more photos or refuses; then the next one takes over.
``searches.jsonl`` in the data folder holds each page of results, so a later run asks only for what
is missing: after a refusal, for new terms, or if more photos are wanted. ``urls_<label>.txt`` lists
the addresses, one per line, for people: a line that they remove is not used, one that they add is.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from icon_classifier.dataset.json_lines import append_lines, read_lines
from icon_classifier.dataset.sources import ddgs, openverse, wikimedia
from icon_classifier.dataset.sources.download import read_urls
from icon_classifier.dataset.sources.found import FoundPage, Query, RefusedError
from icon_classifier.errors import DownloadError
from icon_classifier.files import decode_text, write_file

RECORD = "searches.jsonl"

SOURCES: dict[str, Callable[[Query], FoundPage]] = {
    "ddgs": ddgs.find,
    "openverse": openverse.find,
    "wikimedia": wikimedia.find,
}
"""How to search each source, in the order in which they are asked."""

_PAUSE = 1.0
"""Seconds between two requests."""

_WAITS = (2.0, 5.0, 15.0)
"""Seconds before each retry of a search that was refused."""

_MAX_WAIT = 90.0
"""Seconds; a source that asks to wait for longer is not waited for."""

_log = logging.getLogger(__name__)


def search_photos(
    label: str,
    terms: Sequence[str],
    count: int,
    root: Path,
    *,
    sources: Sequence[str] = tuple(SOURCES),
    region: str = "us-en",
    contact: str | None = None,
    first_error: bool = False,
    pause: Callable[[float], object] = lambda seconds: time.sleep(seconds),
) -> list[str]:
    """Return addresses of photos of one label, and search for those that are missing.

    Parameters
    ----------
    label : str
        Their label.
    terms : sequence of str
        What to search for. Each term contributes an equal share; where one finds less, the others
        contribute more.
    count : int
        How many addresses to return at most.
    root : Path
        The data folder.
    sources : sequence of str
        Names of the sources, in the order in which they are asked.
    region : str
        Country and language of the search.
    contact : str, optional
        Address of whoever searches, which Wikimedia wants to know.
    first_error : bool
        Raise the first refusal, instead of a retry and the next source.
    pause : callable
        Called with the seconds to wait before a request.

    Returns
    -------
    list of str
        Different addresses: those that people wrote into the list, then those of each term.

    Raises
    ------
    DownloadError
        If every source refuses, or nothing is found.
    """
    terms = list(dict.fromkeys(terms))
    query = Query("", region=region, contact=contact)
    search = _Search(label, root, sources, query, first_error=first_error, pause=pause)
    chosen = search.added[:count]
    spare: list[str] = []
    added, wanted = len(chosen), count - len(chosen)
    for number, term in enumerate(terms, 1):
        share = added + wanted * number // len(terms) - len(chosen)
        found = search.find(term, share)
        chosen += found[:share]
        spare += found[share:]
    for term in terms:
        missing = count - len(chosen) - len(spare)
        if missing > 0:
            known = len(search.known(term))
            spare += search.find(term, known + missing)[known:]
    urls = [*chosen, *spare][:count]
    search.report(terms, len(urls), count)
    return urls


class _Search:
    """The searches for photos of one label, with what earlier runs found.

    Attributes
    ----------
    added : list of str
        Addresses in the list that no search found.
    """

    def __init__(
        self,
        label: str,
        root: Path,
        sources: Sequence[str],
        query: Query,
        *,
        first_error: bool,
        pause: Callable[[float], object],
    ) -> None:
        self._label = label
        self._record = root / RECORD
        self._list = root / f"urls_{label}.txt"
        self._sources = sources
        self._query = query
        self._first_error = first_error
        self._pause = pause
        self._asked: set[str] = set()
        self._refusals: dict[str, RefusedError] = {}
        self._terms: dict[str, str] = {}  # the term that found each address
        self._next_page: dict[tuple[str, str], int | None] = {}  # None: there are no more
        for line in read_lines(self._record):
            if line["label"] == label:
                self._learn(line)
        lines = read_urls(self._list) if self._list.exists() else []
        self.added = [url for url in lines if url not in self._terms]
        self._listed = set(lines).difference(self.added)

    def known(self, term: str) -> list[str]:
        """Return the addresses that a term found and nobody removed from the list."""
        return [url for url, found in self._terms.items() if found == term and url in self._listed]

    def find(self, term: str, count: int) -> list[str]:
        """Search until a term has so many addresses, or there are no more; return all of them."""
        while len(self.known(term)) < count and self._read_page(term):
            pass
        return self.known(term)

    def report(self, terms: Sequence[str], found: int, count: int) -> None:
        """Say that photos are missing, and what helps."""
        asked = ", ".join(map(repr, terms))
        refusals = ", ".join(map(self._reason, self._refusals))
        if not found and refusals:
            raise DownloadError(
                f"the image search was refused for {asked}: {refusals}. Is this machine on the "
                "network? Then wait some minutes and run this again, write addresses into a list "
                "(one per line), or use a folder of photos"
            ) from next(iter(self._refusals.values()))
        if not found:
            raise DownloadError(f"the image search found nothing for {asked}; try other terms")
        if found < count:
            _log.warning(
                "%s: %d of %d addresses were found for %s; %s",
                self._label,
                found,
                count,
                asked,
                f"{refusals}. Run this again to search for the rest"
                if refusals
                else "more or other search terms may find more",
            )

    def _read_page(self, term: str) -> bool:
        """Keep the next page of results of the first source that has one."""
        reasons: list[str] = []
        for source in self._sources:
            number = self._next_page.get((term, source), 1)
            if source not in self._refusals and number is not None:
                if reasons and source not in self._asked:
                    _log.warning("%s: %s takes over: %s", self._label, source, ", ".join(reasons))
                try:
                    page = self._ask(source, replace(self._query, term=term, page=number))
                except RefusedError as error:
                    self._refusals[source] = error
                else:
                    self._keep(term, source, number, page)
                    return True
            reasons.append(self._reason(source) or f"{source} has no more photos of {term!r}")
        return False

    def _reason(self, source: str) -> str:
        error = self._refusals.get(source)
        return f"{source} refuses ({error})" if error else ""

    def _ask(self, source: str, query: Query) -> FoundPage:
        """Ask for a page of results; wait and ask again where the refusal may pass."""
        if source in self._asked:
            self._pause(_PAUSE)
        self._asked.add(source)
        waits = iter(_WAITS)
        while True:
            try:
                return SOURCES[source](query)
            except RefusedError as error:
                if self._first_error:
                    raise DownloadError(f"{source} refuses {query.term!r}: {error}") from error
                seconds = max(error.wait, next(waits, math.inf))
                if not error.again or seconds > _MAX_WAIT:
                    raise
                _log.warning(
                    "%s: %s refuses (%s); asking again in %g seconds",
                    self._label,
                    source,
                    error,
                    seconds,
                )
                self._pause(seconds)

    def _keep(self, term: str, source: str, number: int, page: FoundPage) -> None:
        """Record a page of results, and list its addresses."""
        new = [each.url for each in page.photos if each.url not in self._terms]
        line = {
            "label": self._label,
            "term": term,
            "source": source,
            "page": number,
            "last": page.last or not new,  # some engines repeat their last page without end
            "photos": [asdict(photo) for photo in page.photos],
        }
        # Listed first: an address that is recorded but not listed was removed by people.
        listed = [url for url in dict.fromkeys(new) if url not in self.added]
        _append(self._list, listed)
        append_lines(self._record, [line])
        self._listed.update(listed)
        self._learn(line)

    def _learn(self, line: dict[str, Any]) -> None:
        for photo in line["photos"]:
            self._terms.setdefault(photo["url"], line["term"])
        self._next_page[line["term"], line["source"]] = None if line["last"] else line["page"] + 1


def _append(path: Path, urls: Sequence[str]) -> None:
    """Add addresses to a list, which people may have edited."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = decode_text(path.read_bytes()) if path.exists() else ""
    lines = [*text.splitlines(), *urls]
    if urls:
        write_file(path, "\n".join(lines) + "\n")
