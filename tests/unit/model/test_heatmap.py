import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icon_classifier.images import read_image_file
from icon_classifier.model.heatmap import overlay, relevance
from icon_classifier.model.session import Model
from tests.support.models import model_bytes


def evidence(model: Model, picture: Image.Image) -> np.ndarray:
    found = model.predict(picture, explain=True).evidence
    assert found is not None
    return found


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_maximum_is_in_the_corner_with_the_object(x: int, y: int) -> None:
    picture = Image.new("RGB", (200, 120), "blue")
    picture.paste("red", (120 * x, 72 * y, 120 * x + 80, 72 * y + 48))
    model = Model(model_bytes())
    heat = relevance(evidence(model, picture), model.labels.index("red"))  # (h, w)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (column >= heat.shape[1] / 2, row >= heat.shape[0] / 2) == (bool(x), bool(y))


def test_relevance_is_between_0_and_1() -> None:
    evidence = np.array([[[-5.0, 3.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]], np.float32)
    heat = relevance(evidence, 0)
    assert (heat.min(), heat.max()) == (0.0, 1.0)
    assert not relevance(evidence, 1).any(), "constant evidence gives an empty map"


def test_overlay_is_transparent_where_there_is_no_evidence() -> None:
    heat = np.zeros((7, 14))
    heat[:, 10:] = 1.0
    picture = Image.open(io.BytesIO(overlay(heat)))
    assert (picture.mode, picture.size) == ("RGBA", (64, 32))
    assert picture.getpixel((2, 16))[3] == 0
    assert picture.getpixel((61, 16))[3] > 150


@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_the_project_model_finds_the_bear(
    project_model: Model, grizzly: Path, x: int, y: int
) -> None:
    bear = read_image_file(grizzly).crop((150, 0, 800, 650)).resize((300, 300))
    picture = Image.new("RGB", (600, 600), (120, 140, 110))
    picture.paste(bear, (300 * x, 300 * y))
    heat = relevance(evidence(project_model, picture), project_model.labels.index("grizzly"))
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert (column >= heat.shape[1] / 2, row >= heat.shape[0] / 2) == (bool(x), bool(y))
