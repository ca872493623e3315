"""The steps give fastai's pixels, bit for bit."""

import warnings

import numpy as np
import pytest
from PIL import Image

from icon_classifier.conversion.torch_setup import import_fastai
from icon_classifier.errors import ImageTooLargeError
from icon_classifier.model import steps
from icon_classifier.model.pipeline import Pipeline
from icon_classifier.model.steps import CropPad, Resize

SIZES = [(64, 64), (97, 61), (61, 97), (200, 30), (17, 150), (8, 9), (225, 224), (9, 300)]
"""Widths and heights of photos, in pixels: smaller and larger than the targets, odd, long."""

TARGETS = [(64, 64), (48, 80)]


def photo(size: tuple[int, int]) -> Image.Image:
    """Make a picture of noise: each pixel counts."""
    width, height = size
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def fastai_pixels(transform: object, image: Image.Image) -> np.ndarray:
    """Give what a fastai item transform makes of a validation photo."""
    from fastai.vision.core import PILImage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(transform(PILImage.create(image), split_idx=1))  # type: ignore[operator]


@pytest.fixture(scope="module")
def augment():
    """Give fastai's module of transforms."""
    import_fastai()
    import fastai.vision.augment

    return fastai.vision.augment


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("method", "pad_mode"),
    [
        ("squish", "reflection"),
        ("crop", "reflection"),
        ("pad", "zeros"),
        ("pad", "border"),
        ("pad", "reflection"),
    ],
)
def test_resize_is_fastais(augment, size, target, method, pad_mode):
    theirs = augment.Resize(target[::-1], method=method, pad_mode=pad_mode)
    ours = Resize(target, method, pad_mode)(photo(size))
    np.testing.assert_array_equal(np.asarray(ours), fastai_pixels(theirs, photo(size)))


@pytest.mark.parametrize("method", ["crop", "pad", "squish"])
def test_resize_uses_the_filter_it_is_told(augment, method):
    bicubic = Image.Resampling.BICUBIC
    theirs = augment.Resize(40, method=method, resamples=(bicubic, Image.Resampling.NEAREST))
    ours = Resize((40, 40), method, resample=int(bicubic))(photo((90, 70)))
    np.testing.assert_array_equal(np.asarray(ours), fastai_pixels(theirs, photo((90, 70))))


@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
def test_padding_in_strips_changes_no_pixel(augment, monkeypatch, pad_mode):
    monkeypatch.setattr(steps, "STRIP_PIXELS", 1000)
    theirs = augment.Resize(64, method="pad", pad_mode=pad_mode)
    ours = Resize((64, 64), "pad", pad_mode)(photo((50, 220)))
    np.testing.assert_array_equal(np.asarray(ours), fastai_pixels(theirs, photo((50, 220))))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
def test_crop_pad_is_fastais(augment, size, target, pad_mode):
    theirs = augment.CropPad(target[::-1], pad_mode=pad_mode)
    ours = CropPad(target, pad_mode)(photo(size))
    np.testing.assert_array_equal(np.asarray(ours), fastai_pixels(theirs, photo(size)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
def test_squish_and_crop_is_fastais_random_resized_crop(augment, size, target):
    theirs = augment.RandomResizedCrop(target[::-1])
    xtra = 16  # 14 % of 64 or 80 pixels, up to the next multiple of 8
    ours = Pipeline((Resize((target[0] + xtra, target[1] + xtra), "squish"), CropPad(target)))
    np.testing.assert_array_equal(np.asarray(ours(photo(size))), fastai_pixels(theirs, photo(size)))


def test_the_photo_given_is_left_as_it_is():
    image = photo((30, 20))
    before = np.array(image)
    Pipeline((Resize((16, 16), "pad"), CropPad((20, 20))))(image)
    np.testing.assert_array_equal(np.asarray(image), before)


def test_a_gigantic_padded_picture_is_refused():
    with pytest.raises(ImageTooLargeError, match="8 x 30000 pixels 30000 x 30000") as caught:
        Resize((64, 64), "pad")(Image.new("RGB", (8, 30_000)))
    assert "long and narrow" in caught.value.words
