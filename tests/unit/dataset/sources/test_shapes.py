import random

import numpy as np
import pytest

from icon_classifier.dataset.sources.shapes import SHAPES, draw_shape, draw_shapes
from icon_classifier.errors import DatasetError


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_visible(shape: str) -> None:
    image = draw_shape(shape, 64, random.Random(1))
    pixels = np.asarray(image, float).reshape(-1, 3)

    assert image.mode == "RGB"
    assert image.size == (64, 64)
    # Somewhere a colour at least 64 levels from the most common one covers a good part.
    far = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1) > 40
    assert 0.03 < far.mean() < 0.6


def test_same_seed_draws_the_same_pictures() -> None:
    def draw(seed: int) -> list[tuple[str, bytes]]:
        drawn = draw_shapes(("circle", "square"), per_class=3, side=32, seed=seed)
        return [(label, image.tobytes()) for label, image in drawn]

    first = draw(5)

    assert first == draw(5)
    assert first != draw(6)
    assert len({pixels for _, pixels in first}) == 6
    assert [label for label, _ in first] == ["circle"] * 3 + ["square"] * 3


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"expected a shape of circle, square, .* got 'bear'"):
        next(draw_shapes(("bear",)))
