import logging
from pathlib import Path
from typing import Any

import pytest

from icon_classifier.images import Limits, read_image
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


def test_photo_is_handed_over_as_a_file_chooser_has_it(taken: list[Dropped]) -> None:
    data = encode(gradient())
    buffers = [memoryview(data)]
    DropZone(taken.append)._handle_custom_msg(PHOTO | {"index": 1, "count": 3}, buffers)
    assert buffers == []
    [photo] = taken
    assert (photo.index, photo.count) == (1, 3)
    assert photo.file.keys() == {"name", "type", "size", "last_modified", "content"}
    assert (photo.file["name"], photo.file["size"]) == ("a.png", len(data))
    assert bytes(photo.file["content"]) == data


def test_photo_that_was_too_large_to_send_has_its_size_only(taken: list[Dropped]) -> None:
    DropZone(taken.append)._handle_custom_msg(PHOTO, [])
    assert taken[0].file["size"] > Limits().max_bytes
    assert len(taken[0].file["content"]) == 0


def test_example_is_read_from_its_file(taken: list[Dropped], grizzly: Any) -> None:
    sent: list[Any] = []
    drop = zone(taken, sent, Example("grizzly", grizzly, b"small"))
    assert drop.examples == [{"name": "grizzly", "thumbnail": b"small"}]
    drop._handle_custom_msg({"kind": "example", "index": 0}, [])
    assert taken[0].file["name"] == "grizzly.jpg"
    assert read_image(taken[0].file["content"]).size == (846, 1000)
    assert sent == [{"kind": "done"}]


def test_example_that_is_gone_is_logged(
    taken: list[Dropped], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []
    drop = zone(taken, sent, Example("gone", tmp_path / "gone.jpg", b"small"))
    with caplog.at_level(logging.WARNING):
        drop._handle_custom_msg({"kind": "example", "index": 0}, [])
    assert "gone.jpg" in caplog.text
    assert (taken, sent) == ([], [{"kind": "done"}])


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
    assert len(taken[0].file["name"]) == 200
