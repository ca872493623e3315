from typing import Any

import ddgs
import pytest
from ddgs.exceptions import DDGSException, RatelimitException, TimeoutException

from icon_classifier.dataset.sources.search import search_photos
from icon_classifier.errors import DownloadError

Pages = dict[tuple[str, int], list[str | Exception]]


class FakeSearch:
    """In place of ddgs.DDGS: answers page by page, and raises the errors it was given."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.asked: list[tuple[str, int]] = []

    def __call__(self, **_: Any) -> "FakeSearch":
        return self

    def images(self, query: str, *, page: int = 1, **_: Any) -> list[dict[str, str]]:
        self.asked.append((query, page))
        answer = self.pages.get((query, page), [])
        if answer and isinstance(answer[0], Exception):
            raise answer.pop(0)  # type: ignore[misc]
        if not answer:
            raise DDGSException("No results found.")
        return [{"title": "a bear", "image": str(url)} for url in answer]


@pytest.fixture(name="fake")
def _fake(monkeypatch: pytest.MonkeyPatch) -> FakeSearch:
    fake = FakeSearch({})
    monkeypatch.setattr(ddgs, "DDGS", fake)
    return fake


def urls(start: int, end: int) -> list[str | Exception]:
    return [f"https://x.example/{number}.jpg" for number in range(start, end)]


def test_pages_are_read_until_there_are_enough(fake: FakeSearch) -> None:
    fake.pages = {
        ("bear", 1): urls(0, 100),
        ("bear", 2): urls(90, 190),
        ("bear", 3): urls(190, 290),
    }

    found = search_photos(["bear"], 150)

    assert found == urls(0, 150)
    assert fake.asked == [("bear", 1), ("bear", 2)]


def test_each_term_contributes_its_share(fake: FakeSearch) -> None:
    fake.pages = {("a", 1): urls(0, 100), ("b", 1): urls(50, 150)}

    found = search_photos(["a", "b"], 100)

    assert len(set(found)) == 100
    assert found[:50] == urls(0, 50)
    assert "https://x.example/110.jpg" in found


def test_later_terms_contribute_more_where_one_finds_less(fake: FakeSearch) -> None:
    fake.pages = {("rare", 1): urls(0, 3), ("bear", 1): urls(100, 200)}

    assert len(search_photos(["rare", "bear"], 50)) == 50


def test_search_stops_at_the_last_page(fake: FakeSearch) -> None:
    fake.pages = {("bear", 1): urls(0, 40)}

    assert search_photos(["bear"], 150) == urls(0, 40)
    assert fake.asked == [("bear", 1), ("bear", 2)]


def test_repeated_page_ends_the_search(fake: FakeSearch) -> None:
    fake.pages = {("bear", page): urls(0, 10) for page in range(1, 50)}

    assert len(search_photos(["bear"], 150)) == 10
    assert len(fake.asked) == 2


@pytest.mark.parametrize("error", [RatelimitException, TimeoutException, DDGSException])
def test_refused_search_is_retried_after_a_pause(
    fake: FakeSearch, error: type[DDGSException]
) -> None:
    fake.pages = {("bear", 1): [error("403 Ratelimit"), error("403 Ratelimit"), *urls(0, 200)]}
    waits: list[float] = []

    assert len(search_photos(["bear"], 150, pause=waits.append)) == 150
    assert waits == sorted(waits)
    assert len(waits) == 2


def test_search_that_stays_refused_says_what_to_do(fake: FakeSearch) -> None:
    fake.pages = {("bear", 1): [RatelimitException("403 Ratelimit") for _ in range(10)]}
    waits: list[float] = []

    with pytest.raises(
        DownloadError, match=r"refused for 'bear' \(403 Ratelimit\)\. .* wait some min"
    ) as caught:
        search_photos(["bear"], 150, pause=waits.append)

    assert isinstance(caught.value.__cause__, RatelimitException)
    assert len(waits) == 3
    assert "folder" in caught.value.words


def test_refusal_in_between_returns_what_was_found(fake: FakeSearch) -> None:
    refusals: list[str | Exception] = [RatelimitException("403") for _ in range(10)]
    fake.pages = {("a", 1): urls(0, 30), ("a", 2): refusals, ("b", 1): urls(30, 90)}

    assert search_photos(["a", "b"], 100, pause=lambda _: None) == urls(0, 30)
    assert ("b", 1) not in fake.asked


def test_empty_search_is_reported(fake: FakeSearch) -> None:
    with pytest.raises(DownloadError, match="found nothing for 'xyzzy'; try other terms"):
        search_photos(["xyzzy"])


def test_only_web_addresses_are_returned(fake: FakeSearch) -> None:
    fake.pages = {("bear", 1): ["data:image/png;base64,AA", "", *urls(0, 2), "file:///etc/passwd"]}

    assert search_photos(["bear"]) == urls(0, 2)
