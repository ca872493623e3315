import logging
from typing import Any

import pytest

from icon_classifier.errors import ImageError, ImageTooLargeError
from icon_classifier.page.dropzone import Dropped, DropZone
from icon_classifier.page.examples import Example
from icon_classifier.page.texts import MAX_PHOTOS
from tests.support.pictures import encode, gradient

PHOTO = {"kind": "photo", "name": "a.png", "index": 0, "count": 1}


@pytest.fixture
def taken() -> list[Dropped]:
    return []


def zone(taken: list[Dropped], sent: list[Any], *examples: Example) -> DropZone:
    drop = DropZone(taken.append, examples)
    drop.send = lambda content, buffers=None: sent.append(content)
    return drop


def test_dropped_photo_can_be_read_only_during_the_callback() -> None:
    sizes: list[tuple[int, int]] = []
    kept: list[Dropped] = []

    def take(photo: Dropped) -> None:
        sizes.append(photo.read().size)
        kept.append(photo)

    buffers = [memoryview(encode(gradient()))]
    DropZone(take)._handle_custom_msg(PHOTO, buffers)
    assert sizes == [gradient().size]
    assert buffers == []
    with pytest.raises(ImageError):
        kept[0].read()


def test_photo_that_was_too_large_to_send_is_an_error(taken: list[Dropped]) -> None:
    drop = DropZone(taken.append)
    drop._handle_custom_msg(PHOTO, [])
    with pytest.raises(ImageTooLargeError) as caught:
        taken[0].read()
    assert "25 MB" in caught.value.words


def test_example_is_read_from_its_file(taken: list[Dropped], grizzly: Any) -> None:
    sent: list[Any] = []
    drop = zone(taken, sent, Example("grizzly", grizzly, b"small"))
    assert drop.examples == [{"name": "grizzly", "thumbnail": b"small"}]
    drop._handle_custom_msg({"kind": "example", "index": 0}, [])
    assert taken[0].name == "grizzly.jpg"
    assert taken[0].read().size == (846, 1000)
    assert sent == [{"kind": "done"}]


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"kind": "example", "index": 1},
        {"kind": "example", "index": -1},
        {"kind": "photo"},
        PHOTO | {"index": 1},
        PHOTO | {"index": -1},
        PHOTO | {"count": MAX_PHOTOS + 1},
        PHOTO | {"name": 5},
        {"kind": "file", "path": "/etc/passwd"},
    ],
)
def test_malformed_messages_are_refused(
    content: dict[str, Any], taken: list[Dropped], caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []
    with caplog.at_level(logging.WARNING):
        zone(taken, sent)._handle_custom_msg(content, [])
    assert taken == []
    assert "refused" in caplog.text
    assert sent == [{"kind": "done"}]


def test_long_name_is_truncated(taken: list[Dropped]) -> None:
    DropZone(taken.append)._handle_custom_msg(PHOTO | {"name": "x" * 9999}, [])
    assert len(taken[0].name) == 200
