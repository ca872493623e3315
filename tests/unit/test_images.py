import io
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from icon_classifier.errors import (
    DamagedImageError,
    EmptyImageError,
    ImageError,
    ImageTooLargeError,
    ImageTooSmallError,
    UnsupportedImageError,
)
from icon_classifier.images import Limits, read_image, read_image_file, shrink, thumbnail
from tests.support.pictures import SIZE, difference, encode, gradient, turned


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_formats(kind: str) -> None:
    image = read_image(encode(gradient(), kind))
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert difference(image, gradient()) < 12  # GIF has 256 colours, the others lose less


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert difference(read_image(data), frames[0]) < 4


def test_memoryview_and_bytearray() -> None:
    data = encode(gradient())
    assert read_image(memoryview(data)).size == SIZE
    assert read_image(bytearray(data)).size == SIZE


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose data holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(1000))),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"", EmptyImageError, id="empty"),
        pytest.param(b"just some words, named photo.jpg", UnsupportedImageError, id="text"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedImageError, id="svg"),
        pytest.param(b"%PDF-1.7\n1 0 obj\n", UnsupportedImageError, id="pdf"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n", UnsupportedImageError, id="eps"),
        pytest.param(b"\x80\x04\x95cos\nsystem\n.", UnsupportedImageError, id="pickle"),
        pytest.param(bytes(25 * 2**20 + 1), ImageTooLargeError, id="26 MB"),
        pytest.param(png_of(10_000, 6_000), ImageTooLargeError, id="60 megapixels"),
        pytest.param(png_of(60_000, 60_000), ImageTooLargeError, id="bomb"),
        pytest.param(png_of(100, 100), DamagedImageError, id="missing data"),
        pytest.param(png_of(6_000_000, 8), ImageTooLargeError, id="a thin line"),
        pytest.param(encode(gradient("RGB", (7, 90))), ImageTooSmallError, id="7 pixels wide"),
        pytest.param(encode(gradient(), "JPEG")[:900], DamagedImageError, id="truncated"),
    ],
)
def test_what_is_wrong(data: bytes, kind: type[ImageError]) -> None:
    with pytest.raises(kind) as caught:
        read_image(data)
    assert caught.value.words.endswith(".")
    assert "/" not in caught.value.words


def test_limits_are_the_callers() -> None:
    data = encode(gradient())
    with pytest.raises(ImageTooLargeError):
        read_image(data, Limits(max_bytes=100))
    with pytest.raises(ImageTooLargeError):
        read_image(data, Limits(max_pixels=100))
    with pytest.raises(ImageTooSmallError):
        read_image(data, Limits(min_side=65))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_nothing_else_escapes(kind: str) -> None:
    """Mutated files give a picture or one of our errors."""
    chance = random.Random(kind)
    good = encode(gradient(), kind)
    outcomes = set()
    for _ in range(150):
        data = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(min(len(data), 400))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            assert read_image(data).mode == "RGB"
            outcomes.add("picture")
        except ImageError:
            outcomes.add("error")
    assert outcomes == {"picture", "error"}


@pytest.mark.parametrize("name", ["missing.jpg", ".", "nul\0.jpg"])
def test_files_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError):
        read_image_file(tmp_path / name)


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.txt"
    path.write_bytes(encode(gradient()))
    assert read_image_file(str(path)).size == SIZE
    with pytest.raises(ImageTooLargeError):
        read_image_file(path, Limits(max_bytes=100))


def test_thumbnail_keeps_nothing_but_the_picture() -> None:
    photo = read_image(turned(6))
    small = Image.open(io.BytesIO(thumbnail(photo, 48)))
    assert small.format == "JPEG"
    assert small.size == (32, 48)
    assert not small.getexif()
    assert photo.size == (SIZE[1], SIZE[0])


def test_shrink_keeps_the_shape_and_never_enlarges() -> None:
    photo = Image.new("RGB", (400, 200))
    photo.info["exif"] = b"a secret"
    assert shrink(photo, 100).size == (100, 50)
    small = shrink(photo, 1000)
    assert small.size == photo.size
    assert small is not photo
    assert small.info == {}
