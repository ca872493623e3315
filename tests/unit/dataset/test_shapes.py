import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icon_classifier.dataset.shapes import SHAPES, draw_shape, write_shapes
from icon_classifier.errors import DatasetError


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_can_be_seen(shape: str) -> None:
    image = draw_shape(shape, 64, random.Random(1))
    pixels = np.asarray(image, float).reshape(-1, 3)

    assert image.mode == "RGB"
    assert image.size == (64, 64)
    # Somewhere a colour at least 64 levels from the most common one covers a good part.
    far = np.abs(pixels - np.median(pixels, axis=0)).max(axis=1) > 40
    assert 0.03 < far.mean() < 0.6


def test_same_seed_same_pictures(tmp_path: Path) -> None:
    first = write_shapes(tmp_path / "a", ("circle", "square"), per_class=3, side=32, seed=5)
    second = write_shapes(tmp_path / "b", ("circle", "square"), per_class=3, side=32, seed=5)
    other = write_shapes(tmp_path / "c", ("circle", "square"), per_class=3, side=32, seed=6)

    assert [each.read_bytes() for each in first] == [each.read_bytes() for each in second]
    assert [each.read_bytes() for each in first] != [each.read_bytes() for each in other]
    assert len({each.read_bytes() for each in first}) == 6
    assert {each.parent.name for each in first} == {"circle", "square"}
    with Image.open(first[0]) as image:
        assert image.size == (32, 32)


def test_unknown_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot draw 'bear'; there are: circle, square"):
        write_shapes(tmp_path, ("bear",))
