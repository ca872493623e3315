"""Every mode, depth and orientation, through the one door that photos come by."""

import numpy as np
import pytest
from PIL import Image

from icon_classifier import images
from icon_classifier.images import read_image
from tests.support.pictures import SIZE, difference, encode, gradient, turned


@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGBA", "I;16"])
def test_modes_of_png(mode: str) -> None:
    image = read_image(encode(gradient(mode)))
    assert (image.mode, image.size) == ("RGB", SIZE)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("TIFF", "CMYK"), ("TIFF", "F")])
def test_other_modes(kind: str, mode: str) -> None:
    assert read_image(encode(gradient(mode), kind)).mode == "RGB"


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_grey_is_scaled_not_clipped(mode: str) -> None:
    image = read_image(encode(gradient(mode), "TIFF"))
    expected = np.linspace(0, 255, SIZE[0])
    assert np.abs(np.asarray(image)[0, :, 0] - expected).max() <= 1


def test_float_grey_without_sense() -> None:
    values = np.full((16, 16), np.nan, np.float32)
    values[0] = np.inf
    assert read_image(encode(Image.fromarray(values), "TIFF")).mode == "RGB"


def test_transparency_on_white() -> None:
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert read_image(encode(picture)).getpixel((3, 3)) == (255, 255, 255)
    picture.putalpha(128)
    red, green, blue = np.asarray(read_image(encode(picture)))[3, 3]
    assert red == 255
    assert abs(int(green) - 127) <= 1
    assert green == blue


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(orientation: int) -> None:
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
