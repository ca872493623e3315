import pytest

from icon_classifier.dataset.sources import wikimedia
from icon_classifier.dataset.sources.found import FoundPhoto, Query, RefusedError
from tests.support import photo_searches
from tests.support.photo_searches import WIKIMEDIA, SearchApi, answer, lagging, wikimedia_photo
from tests.support.photo_server import PhotoServer


@pytest.fixture(name="api")
def _api(apis: tuple[SearchApi, SearchApi]) -> SearchApi:
    return apis[1]


def bears(count: int) -> list[dict[str, object]]:
    return [wikimedia_photo(f"https://x.example/{each}") for each in range(count)]


def test_photo_comes_with_its_page_licence_and_author(api: SearchApi) -> None:
    api.found["bear"] = bears(1)

    page = wikimedia.find(Query("bear"))

    assert page.photos == (
        FoundPhoto(
            "https://x.example/0/960px", "https://x.example/0/about", "CC BY 4.0", "Zoë & Max"
        ),
    )
    assert page.last
    assert api.asked[0]["iiurlwidth"] == "960"
    assert api.asked[0]["maxlag"] == "5"


def test_photo_without_a_smaller_copy_or_details_is_taken_as_it_is(api: SearchApi) -> None:
    plain = wikimedia_photo("https://x.example/0")
    del plain["thumburl"], plain["extmetadata"]
    api.found["bear"] = [plain]

    assert wikimedia.find(Query("bear")).photos == (
        FoundPhoto("https://x.example/0", "https://x.example/0/about"),
    )


def test_file_that_is_no_picture_is_left_out(api: SearchApi) -> None:
    api.found["bear"] = [wikimedia_photo("https://x.example/0", mime="application/pdf"), *bears(1)]

    assert len(wikimedia.find(Query("bear")).photos) == 1


def test_pages_follow_each_other_in_the_order_of_the_search(api: SearchApi) -> None:
    api.found["bear"] = bears(120)

    pages = [wikimedia.find(Query("bear", number)) for number in (1, 2, 3)]

    found = [photo.url for page in pages for photo in page.photos]
    assert found == [f"https://x.example/{each}/960px" for each in range(120)]
    assert [page.last for page in pages] == [False, False, True]


def test_page_that_comes_in_parts_is_read_to_its_end(server: PhotoServer) -> None:
    api = SearchApi({"bear": bears(60)})
    server.routes[WIKIMEDIA] = photo_searches.wikimedia(api, parts=3)

    page = wikimedia.find(Query("bear"))

    assert [photo.url for photo in page.photos] == [
        f"https://x.example/{each}/960px" for each in range(50)
    ]
    assert not page.last
    assert len(api.asked) == 3


def test_search_without_results_is_the_last_page(api: SearchApi) -> None:
    page = wikimedia.find(Query("xyzzy"))

    assert page.photos == ()
    assert page.last


def test_busy_servers_are_a_refusal_although_the_status_is_200(api: SearchApi) -> None:
    api.answers = [lagging(5)]

    with pytest.raises(RefusedError, match="maxlag: Waiting for") as caught:
        wikimedia.find(Query("bear"))

    assert caught.value.again
    assert caught.value.wait == 5


@pytest.mark.parametrize(
    "content",
    [
        {"query": []},
        {"query": {"pages": [{"title": "no id"}]}},
        {"query": {"pages": [{"pageid": 1, "index": 1, "imageinfo": ["text"]}]}},
        {"error": "text"},
    ],
)
def test_answer_of_another_form_is_a_refusal(api: SearchApi, content: object) -> None:
    api.answers = [answer(content)]

    with pytest.raises(RefusedError, match="an answer of an unknown form"):
        wikimedia.find(Query("bear"))


def test_contact_is_sent_and_its_lack_is_explained(server: PhotoServer) -> None:
    api = SearchApi({"bear": bears(1)})
    server.routes[WIKIMEDIA] = photo_searches.wikimedia(api, wants_contact=True)

    assert len(wikimedia.find(Query("bear", contact="zoë@x.example")).photos) == 1
    assert server.requests[0][1]["User-Agent"].startswith("icon-classifier/0.1.0 (zo?@x.example)")
    with pytest.raises(RefusedError, match=r"HTTP 403 Forbidden: .* write your e-mail") as caught:
        wikimedia.find(Query("bear"))
    assert not caught.value.again


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ('<bdi><a href="https://x.example/a?b=1&amp;c">Jürgen  Müller</a></bdi>', "Jürgen Müller"),
        ("<style>.a{b:c}</style><b>NASA</b>/<i>JPL</i>", "NASA / JPL"),
        ("Tom &lt;tom@x.example&gt;", "Tom <tom@x.example>"),
        ("<script>alert(1)</script>", ""),
        ("a < b", "a < b"),
        ("\x1b[31mred\u202e", "\\x1b[31mred\\u202e"),
        (None, ""),
    ],
)
def test_markup_of_an_author_becomes_plain_text(
    api: SearchApi, markup: str | None, text: str
) -> None:
    artist = {"Artist": {"value": markup, "source": "commons-desc-page"}}
    api.found["bear"] = [wikimedia_photo("https://x.example/0", extmetadata=artist)]

    (photo,) = wikimedia.find(Query("bear")).photos

    assert photo.author == text
