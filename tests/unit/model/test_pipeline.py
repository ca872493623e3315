"""The steps give fastai's pixels; the pipeline is written as JSON and read from it."""

import warnings

import numpy as np
import pytest
from PIL import Image

from icon_classifier.errors import ImageTooLargeError, ModelDamagedError
from icon_classifier.model import pipeline as module
from icon_classifier.model.pipeline import CropPad, Pipeline, Resize, Step
from icon_classifier.system.torch_setup import import_fastai

SIZES = [(64, 64), (97, 61), (61, 97), (200, 30), (17, 150), (8, 9), (225, 224), (9, 300)]
"""Widths and heights of photos, in pixels: smaller and larger than the targets, odd, long."""

TARGETS = [(64, 64), (48, 80), (20, 90)]


def photo(size: tuple[int, int]) -> Image.Image:
    """Return a picture of noise, so that every pixel matters."""
    width, height = size
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def fastai_pixels(transform: object, image: Image.Image) -> np.ndarray:
    """Return the pixels of a validation photo after an item transform of fastai."""
    from fastai.vision.core import PILImage

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(transform(PILImage.create(image), split_idx=1))  # type: ignore[operator]


def assert_pixels_of_fastai(ours: object, theirs: object, image: Image.Image) -> None:
    pixels = np.asarray(ours(image))  # type: ignore[operator]
    np.testing.assert_array_equal(pixels, fastai_pixels(theirs, image), f"{image.size}")


@pytest.fixture(scope="module")
def augment():
    """Return fastai's module of transforms."""
    import_fastai()
    import fastai.vision.augment

    return fastai.vision.augment


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
def test_resize_gives_the_pixels_of_fastai(augment, target, method, pad_mode):
    theirs = augment.Resize(target[::-1], method=method, pad_mode=pad_mode)
    for size in SIZES:
        assert_pixels_of_fastai(Resize(target, method, pad_mode), theirs, photo(size))


@pytest.mark.parametrize("method", ["crop", "pad", "squish"])
def test_resize_uses_the_given_filter(augment, method):
    bicubic = Image.Resampling.BICUBIC
    theirs = augment.Resize(40, method=method, resamples=(bicubic, Image.Resampling.NEAREST))
    ours = Resize((40, 40), method, resample=int(bicubic))
    assert_pixels_of_fastai(ours, theirs, photo((90, 70)))


@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
def test_padding_in_strips_gives_the_pixels_of_fastai(augment, monkeypatch, pad_mode):
    monkeypatch.setattr(module, "MAX_STRIP_PIXELS", 1000)
    theirs = augment.Resize(64, method="pad", pad_mode=pad_mode)
    assert_pixels_of_fastai(Resize((64, 64), "pad", pad_mode), theirs, photo((50, 220)))


@pytest.mark.parametrize("size", [(90, 220), (220, 90)])
def test_crop_in_strips_gives_the_pixels_of_fastai(augment, monkeypatch, size):
    monkeypatch.setattr(module, "MAX_STRIP_PIXELS", 1000)
    assert_pixels_of_fastai(Resize((64, 64)), augment.Resize(64), photo(size))


def test_crop_without_width_gives_the_pixels_of_fastai(augment):
    theirs = augment.Resize((166, 1))
    assert_pixels_of_fastai(Resize((1, 166)), theirs, photo((4, 24)))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
def test_crop_pad_gives_the_pixels_of_fastai(augment, target, pad_mode):
    theirs = augment.CropPad(target[::-1], pad_mode=pad_mode)
    for size in SIZES:
        assert_pixels_of_fastai(CropPad(target, pad_mode), theirs, photo(size))


@pytest.mark.parametrize("pad_mode", ["zeros", "border", "reflection"])
def test_grey_pictures_are_padded_as_by_fastai(augment, pad_mode):
    resize = augment.Resize(64, method="pad", pad_mode=pad_mode)
    crop_pad = augment.CropPad(64, pad_mode=pad_mode)
    for size in SIZES:
        grey = photo(size).convert("L")
        assert_pixels_of_fastai(Resize((64, 64), "pad", pad_mode), resize, grey)
        assert_pixels_of_fastai(CropPad((64, 64), pad_mode), crop_pad, grey)


@pytest.mark.parametrize("target", TARGETS)
def test_squish_and_crop_pad_give_the_pixels_of_random_resized_crop(augment, target):
    theirs = augment.RandomResizedCrop(target[::-1])
    xtra = 16  # 14 % of 64 or 80 pixels, up to the next multiple of 8
    ours = Pipeline((Resize((target[0] + xtra, target[1] + xtra), "squish"), CropPad(target)))
    for size in SIZES:
        assert_pixels_of_fastai(ours, theirs, photo(size))


def test_the_input_is_not_changed():
    image = photo((30, 20))
    before = np.array(image)
    Pipeline((Resize((16, 16), "pad"), CropPad((20, 20))))(image)
    np.testing.assert_array_equal(np.asarray(image), before)


def test_a_picture_that_is_too_large_after_padding_is_refused():
    with pytest.raises(ImageTooLargeError, match="got 30000 x 30000 from 8 x 30000") as caught:
        Resize((64, 64), "pad")(Image.new("RGB", (8, 30_000)))
    assert "long and narrow" in caught.value.words


def test_the_size_is_that_of_the_last_step():
    assert Pipeline((Resize((80, 80)), CropPad((64, 32)))).size == (64, 32)


def test_from_json_returns_the_pipeline_of_to_json():
    pipeline = Pipeline((Resize((80, 96), "pad", "border", 3), CropPad((64, 32), "zeros")))
    assert Pipeline.from_json(pipeline.to_json()) == pipeline


CROP_PAD = {"op": "crop_pad", "size": [8, 8], "pad_mode": "zeros"}
RESIZE = {"op": "resize", "size": [8, 8], "method": "crop", "pad_mode": "zeros", "resample": 2}


@pytest.mark.parametrize(
    "steps",
    [
        [],
        None,
        "resize",
        ["resize"],
        [{}],
        [{**CROP_PAD, "op": "rotate"}],
        [{**CROP_PAD, "op": ["resize"]}],
        [{**CROP_PAD, "angle": 3}],
        [{**CROP_PAD, "size": 8}],
        [{**CROP_PAD, "size": [8]}],
        [{**CROP_PAD, "size": [8, 0]}],
        [{**CROP_PAD, "size": [8, 1e3]}],
        [{**CROP_PAD, "size": [8, 1_000_000]}],
        [{**CROP_PAD, "pad_mode": "edge"}],
        [{**CROP_PAD, "pad_mode": ["zeros"]}],
        [{**RESIZE, "method": "stretch"}],
        [{**RESIZE, "resample": 99}],
        [{**RESIZE, "resample": "2"}],
        [{"op": "resize", "size": [8, 8]}],
    ],
)
def test_invalid_steps_are_refused(steps):
    with pytest.raises(ModelDamagedError, match="expected"):
        Pipeline.from_json(steps)


@pytest.mark.parametrize("size", [(640, 400), (400, 640), (500, 500)])
@pytest.mark.parametrize(
    "steps",
    [
        (Resize((200, 200), "squish"),),
        (Resize((200, 200), "crop"),),
        (Resize((200, 100), "crop"),),
        (Resize((200, 200), "pad", "zeros"),),
        (Resize((240, 240), "squish"), CropPad((200, 200))),
        (Resize((240, 240), "crop"), CropPad((200, 160))),
    ],
)
def test_view_returns_the_part_that_the_pixels_come_from(
    steps: tuple[Step, ...], size: tuple[int, int]
) -> None:
    """The colour of each pixel is its position, so that the result shows where it is from."""
    pipeline, (width, height) = Pipeline(steps), size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = (np.arange(width) / width * 250 + 5)[None, :]
    ramp[..., 1] = (np.arange(height) / height * 250 + 5)[:, None]
    seen = np.asarray(pipeline(Image.fromarray(ramp)), float)  # (H, W, 3)
    left, top, right, bottom = pipeline.view(size)
    h, w, _ = seen.shape
    x = left + (np.arange(w) + 0.5) / w * (right - left)
    y = top + (np.arange(h) + 0.5) / h * (bottom - top)
    inside = (x > 9) & (x < width - 9), (y > 9) & (y < height - 9)
    reds = (seen[h // 2, inside[0], 0] - 5) / 250 * width
    greens = (seen[inside[1], w // 2, 1] - 5) / 250 * height
    assert np.abs(reds - x[inside[0]]).max() < 0.02 * width
    assert np.abs(greens - y[inside[1]]).max() < 0.02 * height
