from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from icon_classifier.images import read_image_file
from icon_classifier.model.heatmap import relevance
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


def test_relevance_is_between_0_and_255() -> None:
    evidence = np.array([[[-5.0, 3.0], [-1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]], np.float32)
    assert relevance(evidence, 0).tolist() == [[0, 255], [128, 191]]
    assert not relevance(evidence, 1).any(), "constant evidence gives an empty map"


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
