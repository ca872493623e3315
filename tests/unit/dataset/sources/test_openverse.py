import pytest

from icon_classifier.dataset.sources import openverse
from icon_classifier.dataset.sources.found import FoundPhoto, Query, RefusedError
from tests.support.photo_searches import SearchApi, answer, openverse_photo, throttled
from tests.support.photo_server import status


@pytest.fixture(name="api")
def _api(apis: tuple[SearchApi, SearchApi]) -> SearchApi:
    return apis[0]


def test_photo_comes_with_its_page_licence_and_author(api: SearchApi) -> None:
    api.found["brown bear & cub"] = [openverse_photo("https://x.example/1.jpg")]

    page = openverse.find(Query("brown bear & cub"))

    assert page.photos == (
        FoundPhoto(
            "https://x.example/1.jpg", "https://x.example/1.jpg/about", "CC BY-SA 2.0", "Anna B"
        ),
    )
    assert page.last


@pytest.mark.parametrize(
    ("code", "version", "name"),
    [
        ("by", "2.0", "CC BY 2.0"),
        ("by-nc-nd", "4.0", "CC BY-NC-ND 4.0"),
        ("cc0", "1.0", "CC0 1.0"),
        ("pdm", "1.0", "Public Domain Mark 1.0"),
        ("by", None, "CC BY"),
        (None, None, ""),
    ],
)
def test_licence_is_named_as_people_write_it(
    api: SearchApi, code: str | None, version: str | None, name: str
) -> None:
    api.found["bear"] = [
        openverse_photo("https://x.example/1", license=code, license_version=version)
    ]

    (photo,) = openverse.find(Query("bear")).photos

    assert photo.licence == name


def test_pages_end_where_a_search_without_a_key_may_not_go_on(api: SearchApi) -> None:
    api.found["bear"] = [openverse_photo(f"https://x.example/{each}") for each in range(300)]

    pages = [openverse.find(Query("bear", number)) for number in range(1, 13)]

    assert [page.last for page in pages] == [False] * 11 + [True]
    assert len({photo.url for page in pages for photo in page.photos}) == 240
    assert [each["page_size"] for each in api.asked] == ["20"] * 12


def test_photos_that_the_other_source_has_are_left_to_it(api: SearchApi) -> None:
    api.found["bear"] = [
        openverse_photo("https://x.example/1", source="wikimedia"),
        openverse_photo("https://x.example/2"),
    ]

    assert [photo.url for photo in openverse.find(Query("bear")).photos] == ["https://x.example/2"]


def test_search_without_results_is_the_last_page(api: SearchApi) -> None:
    page = openverse.find(Query("xyzzy"))

    assert page.photos == ()
    assert page.last


def test_throttled_search_says_how_long_to_wait(api: SearchApi) -> None:
    api.answers = [throttled(37)]

    with pytest.raises(RefusedError, match="HTTP 429 Too Many Requests") as caught:
        openverse.find(Query("bear"))

    assert caught.value.again
    assert caught.value.wait == 37


@pytest.mark.parametrize(
    "content", [{}, {"results": None, "page_count": 1}, {"results": [], "page_count": "1"}, []]
)
def test_answer_of_another_form_is_a_refusal(api: SearchApi, content: object) -> None:
    api.answers = [answer(content)]

    with pytest.raises(RefusedError):
        openverse.find(Query("bear"))


def test_request_that_is_wrong_is_not_worth_a_retry(api: SearchApi) -> None:
    api.answers = [status(400)]

    with pytest.raises(RefusedError, match="HTTP 400 Bad Request") as caught:
        openverse.find(Query("bear"))

    assert not caught.value.again


def test_result_that_is_no_photo_is_left_out(api: SearchApi) -> None:
    odd = [None, "text", openverse_photo("ftp://x.example/1"), openverse_photo("x") | {"url": 7}]
    content = {"page_count": 3, "results": [*odd, openverse_photo("https://x.example/2")]}
    api.answers = [answer(content)]

    page = openverse.find(Query("bear"))

    assert [photo.url for photo in page.photos] == ["https://x.example/2"]
    assert not page.last
