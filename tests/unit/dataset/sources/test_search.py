import json
import logging
from pathlib import Path
from typing import Any

import ddgs
import pytest
from ddgs.engines import ENGINES
from ddgs.engines.bing_images import BingImages
from ddgs.exceptions import DDGSException, RatelimitException, TimeoutException

from icon_classifier.dataset.recipes import SearchSource
from icon_classifier.dataset.sources.search import SOURCES, search_photos
from icon_classifier.errors import DownloadError
from tests.support.photo_searches import (
    OPENVERSE,
    FakeDdgs,
    SearchApi,
    nothing,
    openverse_photo,
    throttled,
    wikimedia_photo,
)
from tests.support.photo_searches import openverse as serve_openverse
from tests.support.photo_server import PhotoHandler, PhotoServer, body, photo_server, status


@pytest.fixture(name="fake")
def _fake(monkeypatch: pytest.MonkeyPatch) -> FakeDdgs:
    fake = FakeDdgs()
    monkeypatch.setattr(ddgs, "DDGS", fake)
    return fake


def urls(start: int, end: int, site: str = "x") -> list[str]:
    return [f"https://{site}.example/{number}.jpg" for number in range(start, end)]


def search(root: Path, *terms: str, count: int = 150, **options: Any) -> list[str]:
    options = {"sources": ["ddgs"], "pause": lambda _: None, **options}
    return search_photos("bear", terms or ["bear"], count, root, **options)


ALL = {"sources": ["ddgs", "openverse", "wikimedia"]}


def test_recipes_name_all_sources_in_their_order() -> None:
    assert SearchSource().sources == tuple(SOURCES)


def test_pages_are_read_until_there_are_enough(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {
        ("bear", 1): urls(0, 100),
        ("bear", 2): urls(90, 190),
        ("bear", 3): urls(190, 290),
    }

    assert search(tmp_path) == urls(0, 150)
    assert fake.asked == [("bear", 1), ("bear", 2)]


def test_each_term_contributes_its_share(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("a", 1): urls(0, 100), ("b", 1): urls(50, 150)}

    found = search(tmp_path, "a", "b", count=100)

    assert found == urls(0, 50) + urls(100, 150)


def test_other_terms_contribute_more_where_one_finds_less(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {
        ("bear", 1): urls(100, 125),
        ("rare", 1): urls(0, 3),
        ("bear", 2): urls(125, 200),
    }

    assert search(tmp_path, "bear", "rare", count=50) == (
        urls(100, 125) + urls(0, 3) + urls(125, 147)
    )


def test_term_that_is_there_twice_counts_once(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("a", 1): urls(0, 100)}

    assert search(tmp_path, "a", "a", count=10) == urls(0, 10)


def test_search_stops_at_the_last_page(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("bear", 1): urls(0, 40)}

    assert search(tmp_path) == urls(0, 40)
    # The first page still has photos, so the second one is truly empty.
    assert fake.asked == [("bear", 1), ("bear", 2), ("bear", 1), ("bear", 2)]


def test_repeated_page_ends_the_search(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("bear", page): urls(0, 10) for page in range(1, 50)}

    assert len(search(tmp_path)) == 10
    assert len(fake.asked) == 2


def test_only_web_addresses_are_returned(fake: FakeDdgs, tmp_path: Path) -> None:
    bad = ["data:image/png;base64,AA", "", "file:///etc/passwd", "https://x.example/a b\nc"]
    fake.pages = {("bear", 1): [*bad, *urls(0, 2)]}

    assert search(tmp_path) == urls(0, 2)


@pytest.mark.parametrize(
    "error",
    [
        RatelimitException("403 Ratelimit"),
        TimeoutException("timed out"),
        DDGSException("DDGSException: could not extract vqd"),
    ],
)
def test_refused_search_is_retried_after_longer_and_longer_waits(
    fake: FakeDdgs, tmp_path: Path, error: DDGSException, caplog: pytest.LogCaptureFixture
) -> None:
    fake.pages = {("bear", 1): urls(0, 200)}
    fake.refusals = [error, error]
    waits: list[float] = []

    assert search(tmp_path, pause=waits.append) == urls(0, 150)
    assert len(waits) == 2
    assert waits[0] < waits[1]
    assert f"bear: ddgs refuses ({error}); asking again in 2 seconds" in caplog.messages


def test_no_results_that_hide_a_refusal_are_waited_for(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("bear", 1): urls(0, 100), ("bear", 2): urls(100, 200)}
    fake.refusals = [nothing(), nothing()]  # neither for bears nor for cats
    waits: list[float] = []

    assert search(tmp_path, pause=waits.append) == urls(0, 150)
    assert fake.asked == [("bear", 1), ("cat", 1), ("bear", 1), ("bear", 2)]
    assert waits == [2, 1]


def test_no_results_for_one_term_are_not_a_refusal(fake: FakeDdgs, tmp_path: Path) -> None:
    waits: list[float] = []

    with pytest.raises(DownloadError, match="found nothing for 'xyzzy'; try other terms"):
        search(tmp_path, "xyzzy", pause=waits.append)

    assert not waits
    assert fake.asked == [("xyzzy", 1), ("cat", 1), ("xyzzy", 1)]


def test_search_that_stays_refused_says_what_to_do(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.refusals = [RatelimitException("403 Ratelimit") for _ in range(10)]
    waits: list[float] = []

    with pytest.raises(
        DownloadError, match=r"refused for 'bear': ddgs refuses \(403 Ratelimit\)\. .* wait some"
    ) as caught:
        search(tmp_path, pause=waits.append)

    assert "403 Ratelimit" in str(caught.value.__cause__)
    assert len(waits) == 3
    assert "folder" in caught.value.words
    assert not list(tmp_path.iterdir())


def test_first_error_is_raised_without_a_retry_when_asked_for(
    fake: FakeDdgs, tmp_path: Path
) -> None:
    fake.refusals = [RatelimitException("403 Ratelimit")]

    with pytest.raises(DownloadError, match=r"ddgs refuses 'bear': 403 Ratelimit"):
        search(tmp_path, first_error=True, **ALL)

    assert len(fake.asked) == 1


def test_missing_network_is_a_refusal_in_one_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with photo_server() as gone:
        monkeypatch.setattr(BingImages, "search_url", gone.url("/images/async"))
    monkeypatch.setitem(ENGINES, "images", {"bing": BingImages})

    with pytest.raises(DownloadError, match=r"ddgs refuses \(\w+Error\)\. Is this machine on"):
        search(tmp_path)


def test_answer_that_ddgs_cannot_read_is_a_refusal(
    server: PhotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BingImages, "search_url", server.url("/images/async"))
    monkeypatch.setitem(ENGINES, "images", {"bing": BingImages})
    server.routes["/images/async"] = bing({"bear": urls(0, 4)}, [], title=None)

    with pytest.raises(DownloadError, match="ddgs could not read the answer"):
        search(tmp_path)


def bing(results: dict[str, list[str]], refuse: list[int], title: str | None = "a photo") -> Any:
    """Answer as the image search of Bing does."""

    def route(handler: PhotoHandler) -> None:
        if refuse:
            return status(refuse.pop(0))(handler)
        term = handler.path.partition("q=")[2].partition("&")[0]
        first = "first=1&" in handler.path + "&"
        found = [json.dumps({"t": title, "murl": url}) for url in results.get(term, []) if first]
        items = "".join(
            f"""<div><div class="imgpt"><a class="iusc" m='{each}'></a></div>
            <div class="infopt"></div></div>"""
            for each in found
        )
        return body(f"<html><body>{items}</body></html>".encode(), "text/html")(handler)

    return route


def test_real_ddgs_hides_refusals_and_the_search_tells(
    server: PhotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BingImages, "search_url", server.url("/images/async"))
    monkeypatch.setitem(ENGINES, "images", {"bing": BingImages})
    results = {"bear": urls(0, 40), "cat": urls(90, 91)}
    waits: list[float] = []
    server.routes["/images/async"] = bing(results, [403, 403])
    with pytest.raises(DDGSException, match=r"^No results found\.$"):
        ddgs.DDGS().images("bear")

    server.routes["/images/async"] = bing(results, [403, 429, 203])
    found = search(tmp_path / "a", count=40, pause=waits.append)
    assert sorted(found) == sorted(urls(0, 40))
    assert waits == [2]
    with pytest.raises(DownloadError, match="found nothing for 'xyzzy'"):
        search(tmp_path / "b", "xyzzy")


def test_next_source_takes_over_and_says_so(
    fake: FakeDdgs,
    apis: tuple[SearchApi, SearchApi],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake.pages = {("bear", 1): urls(0, 10)}
    apis[0].found["bear"] = [openverse_photo(url) for url in urls(0, 30, "ov")]
    apis[1].found["bear"] = [wikimedia_photo(url) for url in urls(0, 90, "wm")]

    found = search(tmp_path, count=100, **ALL)

    copies = [f"{url}/960px" for url in urls(0, 60, "wm")]
    assert found == urls(0, 10) + urls(0, 30, "ov") + copies
    assert [line for line in caplog.messages if "takes over" in line] == [
        "bear: openverse takes over: ddgs has no more photos of 'bear'",
        "bear: wikimedia takes over: ddgs has no more photos of 'bear', openverse has no more "
        "photos of 'bear'",
    ]


def test_source_that_stays_refused_is_replaced_by_the_next(
    fake: FakeDdgs,
    apis: tuple[SearchApi, SearchApi],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake.pages = {("a", 1): urls(0, 5)}
    fake.refusals = [nothing() for _ in range(8)]
    apis[0].found = {term: [openverse_photo(f"https://{term}.example")] * 20 for term in "ab"}
    apis[0].found["a"] = [openverse_photo(url) for url in urls(0, 20, "ov")]

    found = search(tmp_path, "a", "b", count=20, **ALL)

    assert found == [*urls(0, 10, "ov"), "https://b.example", *urls(10, 19, "ov")]
    assert ("b", 1) not in fake.asked
    assert any(
        "openverse takes over: ddgs refuses (no results, not even for 'cat'" in line
        for line in caplog.messages
    )


def test_wait_that_a_source_asks_for_is_kept(
    apis: tuple[SearchApi, SearchApi], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    apis[0].found["bear"] = [openverse_photo(url) for url in urls(0, 20)]
    apis[0].answers = [throttled(12)]
    waits: list[float] = []

    assert search(tmp_path, count=20, sources=["openverse"], pause=waits.append) == urls(0, 20)
    assert waits == [12]
    assert "bear: openverse refuses (HTTP 429 Too Many Requests); asking again in 12 seconds" in (
        caplog.messages
    )


def test_search_keeps_to_twenty_requests_a_minute(server: PhotoServer, tmp_path: Path) -> None:
    waits: list[float] = []
    api = SearchApi()
    server.routes[OPENVERSE] = serve_openverse(api, now=lambda: sum(waits))
    found = 0
    for label in ("cat", "dog", "fox"):
        api.found[label] = [openverse_photo(url) for url in urls(0, 200, label)]
        found += len(
            search_photos(label, [label], 150, tmp_path, sources=["openverse"], pause=waits.append)
        )

    assert found == 450
    assert len(api.asked) == 25  # 8 pages for each, and one request too early
    assert 60 <= sum(waits) < 90


def test_source_that_asks_to_wait_for_hours_is_left_for_the_next(
    apis: tuple[SearchApi, SearchApi], tmp_path: Path
) -> None:
    apis[0].answers = [throttled(40_000)]
    apis[1].found["bear"] = [wikimedia_photo("https://wm.example/1")]
    waits: list[float] = []

    found = search(tmp_path, sources=["openverse", "wikimedia"], pause=waits.append)

    assert found == ["https://wm.example/1/960px"]
    assert not waits


def test_search_cut_short_is_topped_up_by_the_next_run(
    fake: FakeDdgs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.pages = {("a", 1): urls(0, 30), ("a", 2): urls(30, 60), ("b", 1): urls(60, 90)}
    original = fake.images

    def refused_later(query: str, **options: Any) -> list[dict[str, str]]:
        if len(fake.asked) == 1:
            fake.refusals = [RatelimitException("403")] * 10
        return original(query, **options)

    fake.images = refused_later  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        assert search(tmp_path, "a", "b", count=80) == urls(0, 30)
    assert "bear: 30 of 80 addresses were found for 'a', 'b'; ddgs refuses (403). Run this" in (
        caplog.text
    )

    fake.asked, fake.refusals, fake.images = [], [], original  # type: ignore[method-assign]
    assert search(tmp_path, "a", "b", count=80) == urls(0, 40) + urls(60, 90) + urls(40, 50)
    assert fake.asked[:2] == [("a", 2), ("b", 1)]


def test_complete_search_is_not_repeated(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("a", 1): urls(0, 50), ("b", 1): urls(50, 60)}
    first = search(tmp_path, "a", "b", count=70)
    fake.asked.clear()

    assert search(tmp_path, "a", "b", count=70) == first
    assert not fake.asked
    assert search(tmp_path, "a", "b", count=20) == urls(0, 10) + urls(50, 60)
    assert not fake.asked


def test_new_term_is_searched_and_contributes_its_share(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("a", 1): urls(0, 100), ("b", 1): urls(200, 300)}
    assert search(tmp_path, "a", count=100) == urls(0, 100)
    fake.asked.clear()

    assert search(tmp_path, "a", "b", count=100) == urls(0, 50) + urls(200, 250)
    assert fake.asked == [("b", 1)]


def test_list_that_people_wrote_is_used_and_kept(fake: FakeDdgs, tmp_path: Path) -> None:
    file = tmp_path / "urls_bear.txt"
    file.write_text("# mine\nhttps://own.example/1\nhttps://own.example/2")
    fake.pages = {("bear", 1): urls(0, 5)}

    assert search(tmp_path, count=2) == ["https://own.example/1", "https://own.example/2"]
    assert not fake.asked
    assert search(tmp_path, count=5)[2:] == urls(0, 3)
    assert file.read_text().splitlines() == [
        "# mine",
        "https://own.example/1",
        "https://own.example/2",
        *urls(0, 5),
    ]


def test_list_that_windows_wrote_is_continued(fake: FakeDdgs, tmp_path: Path) -> None:
    file = tmp_path / "urls_bear.txt"
    file.write_text("# Bären\r\nhttps://own.example/1\r\n", encoding="utf-16", newline="")
    fake.pages = {("bear", 1): urls(0, 5)}

    assert search(tmp_path, count=3) == ["https://own.example/1", *urls(0, 2)]
    assert file.read_text("utf-8").splitlines() == ["# Bären", "https://own.example/1", *urls(0, 5)]


def test_address_that_people_removed_from_the_list_does_not_come_back(
    fake: FakeDdgs, tmp_path: Path
) -> None:
    fake.pages = {("bear", 1): urls(0, 5), ("bear", 2): urls(0, 3) + urls(5, 9)}
    assert search(tmp_path, count=4) == urls(0, 4)
    file = tmp_path / "urls_bear.txt"
    file.write_text(file.read_text().replace(urls(1, 2)[0] + "\n", ""))

    assert search(tmp_path, count=4) == urls(0, 1) + urls(2, 5)
    assert search(tmp_path, count=6) == urls(0, 1) + urls(2, 7)
    assert urls(1, 2)[0] not in file.read_text()


def test_interrupted_search_keeps_the_pages_that_it_read(fake: FakeDdgs, tmp_path: Path) -> None:
    fake.pages = {("bear", 1): urls(0, 100), ("bear", 2): urls(100, 200)}

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, pause=interrupt)
    fake.asked.clear()

    assert search(tmp_path) == urls(0, 150)
    assert fake.asked == [("bear", 2)]
