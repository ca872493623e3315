import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icon_classifier import images
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
def test_every_format_is_read(kind: str) -> None:
    image = read_image(encode(gradient(), kind))
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert difference(image, gradient()) < 12  # GIF has 256 colours, the others lose less


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_an_animation_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert difference(read_image(data), frames[0]) < 4


def test_memoryview_and_bytearray_are_read() -> None:
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
def test_each_fault_has_its_error(data: bytes, kind: type[ImageError]) -> None:
    with pytest.raises(kind) as caught:
        read_image(data)
    assert caught.value.words.endswith(".")
    assert "/" not in caught.value.words


def test_limits_of_the_caller_are_kept() -> None:
    data = encode(gradient())
    with pytest.raises(ImageTooLargeError):
        read_image(data, Limits(max_bytes=100))
    with pytest.raises(ImageTooLargeError):
        read_image(data, Limits(max_pixels=100))
    with pytest.raises(ImageTooSmallError):
        read_image(data, Limits(min_side=65))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_random_bytes_raise_only_our_errors(kind: str) -> None:
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
def test_file_that_cannot_be_opened_is_an_image_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError):
        read_image_file(tmp_path / name)


def test_read_image_file_reads_a_file(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "I;16"])
def test_modes_of_png_become_rgb(mode: str) -> None:
    image = read_image(encode(gradient(mode)))
    assert (image.mode, image.size) == ("RGB", SIZE)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "F")])
def test_other_modes_become_rgb(kind: str, mode: str) -> None:
    assert read_image(encode(gradient(mode), kind)).mode == "RGB"


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_is_scaled_not_clipped(mode: str) -> None:
    image = read_image(encode(gradient(mode), "TIFF"))
    expected = np.linspace(0, 255, SIZE[0])
    assert np.abs(np.asarray(image)[0, :, 0] - expected).max() <= 1


def test_float_grey_of_nan_and_infinity_is_read() -> None:
    values = np.full((16, 16), np.nan, np.float32)
    values[0] = np.inf
    assert read_image(encode(Image.fromarray(values), "TIFF")).mode == "RGB"


def test_transparency_becomes_white() -> None:
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert read_image(encode(picture)).getpixel((3, 3)) == (255, 255, 255)
    picture.putalpha(128)
    red, green, blue = np.asarray(read_image(encode(picture)))[3, 3]
    assert red == 255
    assert abs(int(green) - 127) <= 1
    assert green == blue


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_undone(orientation: int) -> None:
    upright = gradient()
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    lying = upright if undo is None else upright.transpose(Image.Transpose(undo))
    image = read_image(turned(orientation, lying))
    assert image.size == SIZE
    assert difference(image, upright) < 4


def test_broken_exif_turns_nothing() -> None:
    data = encode(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(data).size == SIZE


def test_large_pictures_are_halved_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = read_image(turned(6, gradient("RGB", (801, 643))))
    monkeypatch.setattr(images, "_LARGE", 1000)
    monkeypatch.setattr(images, "_ROWS", 64)
    halved = read_image(turned(6, gradient("RGB", (801, 643))))
    assert halved.size == (322, 401)
    assert difference(halved, plain.resize(halved.size)) < 2


@pytest.mark.parametrize("mode", ["RGBA", "P", "I;16", "L"])
def test_large_pictures_of_other_modes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(gradient(mode, (300, 200)))
    plain = read_image(data)
    monkeypatch.setattr(images, "_LARGE", 1000)
    monkeypatch.setattr(images, "_ROWS", 64)
    assert difference(read_image(data), plain.reduce(2)) < 1.5
