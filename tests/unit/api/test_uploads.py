from __future__ import annotations

import codecs
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.types import Message

from icon_classifier.api.settings import ApiSettings
from icon_classifier.api.uploads import Photo, Upload, read_upload
from icon_classifier.errors import UploadError
from tests.support.processes import allocating_less_than

SETTINGS = ApiSettings(max_bytes=20_000_000, max_body=50_000_000)
PIECE = 2**16
HEAD = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n'
FORM = "multipart/form-data; boundary=x"


async def read(pieces: Iterator[bytes], media_type: str) -> Upload:
    async def receive() -> Message:
        piece = next(pieces, b"")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    headers = [(b"content-type", media_type.encode())]
    request = Request({"type": "http", "headers": headers}, receive)
    return await read_upload(request, SETTINGS, lambda size: None)


def pieces(size: int) -> Iterator[bytes]:
    return (bytes(PIECE) for _ in range(size // PIECE))


def form(*sizes: int) -> Iterator[bytes]:
    for size in sizes:
        yield HEAD
        yield from pieces(size)
        yield b"\r\n"
    yield b"--x--\r\n"


@pytest.mark.parametrize(
    ("body", "media_type", "expected"),
    [
        (pieces(19_000_000), "image/jpeg", 19_000_000),
        (pieces(48_000_000), "image/jpeg", 20_000_000),
        (form(19_000_000, 19_000_000), FORM, 38_000_000),
        (form(48_000_000), FORM, 20_000_000),
    ],
)
async def test_photos_take_no_more_memory_than_their_bytes(
    body: Iterator[bytes], media_type: str, expected: int
) -> None:
    """Of a photo that is too large one byte more than allowed is kept."""
    with allocating_less_than(1.25 * expected):
        upload = await read(body, media_type)
    assert sum(len(photo.data) for photo in upload.photos) == pytest.approx(expected, rel=0.01)


async def test_photo_that_is_cut_off_is_refused() -> None:
    with pytest.raises(UploadError):
        await read(iter([HEAD, b"photo"]), FORM)


@pytest.mark.parametrize(
    ("name", "shown"), [("é.jpg".encode(), "é.jpg"), ("é.jpg".encode("latin-1"), "é.jpg")]
)
@pytest.mark.parametrize("charset", ["iso-8859-1", "undefined", "punycode", "utf-16", "no codec"])
async def test_charset_of_a_form_is_ignored(charset: str, name: bytes, shown: str) -> None:
    """Python would keep a name that it does not know, and some codecs fail, or decode to bytes."""
    looked_up: list[str] = []
    search = looked_up.append
    codecs.register(search)
    try:
        body = [HEAD.replace(b'"b"', b'"%s"' % name), b"photo\r\n--x--\r\n"]
        upload = await read(iter(body), f'{FORM}; charset="{charset}"')
    finally:
        codecs.unregister(search)
    assert upload.photos == (Photo(shown, b"photo"),)
    assert not looked_up
