"""The row of steps: what part it sees, there and back as JSON, and what makes no sense."""

import numpy as np
import pytest
from PIL import Image

from icon_classifier.errors import ModelDamagedError
from icon_classifier.model.pipeline import Pipeline
from icon_classifier.model.steps import CropPad, Resize, Step


def test_size_is_that_of_the_last_step():
    assert Pipeline((Resize((80, 80)), CropPad((64, 32)))).size == (64, 32)


def test_json_there_and_back():
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
def test_damaged_steps_are_refused(steps):
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
def test_view_tells_what_part_is_seen(steps: tuple[Step, ...], size: tuple[int, int]) -> None:
    """The colour of each pixel is its place, so that what comes out says where it is from."""
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
