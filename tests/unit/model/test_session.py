import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from icon_classifier.errors import ModelDamagedError, ModelMissingError
from icon_classifier.model.session import Model, Prediction
from tests.support.models import LABELS, model_bytes

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(model_bytes())


@pytest.mark.parametrize("colour", LABELS)
def test_predict(model: Model, colour: str) -> None:
    prediction = model.predict(Image.new("RGB", (40, 30), COLOURS[colour]))
    assert prediction.label == colour
    assert prediction.probability > 0.9
    assert prediction.known
    assert prediction.ranking[0][0] == colour
    assert sum(probability for _, probability in prediction.ranking) == pytest.approx(1)


def test_what_is_unlike_the_training_photos_is_not_known(model: Model) -> None:
    assert not model.predict(Image.new("RGB", (40, 30), "black")).known


def test_a_model_without_threshold_knows_everything() -> None:
    assert Model(model_bytes(unsure=None)).predict(Image.new("RGB", (40, 30), "black")).known


def test_temperature_softens() -> None:
    photo = Image.new("RGB", (8, 8), COLOURS["red"])
    hot, cold = (Model(model_bytes(temperature=t)).predict(photo) for t in (5.0, 0.5))
    assert hot.label == cold.label
    assert hot.probability < cold.probability


def test_words_of_a_prediction() -> None:
    prediction = Prediction("grizzly", 0.99871, (("grizzly", 0.99871), ("teddy", 0.00129)), True, 3)
    assert str(prediction) == "Prediction: grizzly; Probability: 0.9987"


def test_transform(model: Model) -> None:
    array = model.transform(Image.new("RGB", (40, 30), (255, 0, 127)))
    assert (array.shape, array.dtype) == ((3, 8, 8), np.float32)
    assert array[:, 0, 0] == pytest.approx([1, -1, -0.0039], abs=1e-3)


def test_evidence_comes_where_it_is_asked_for(model: Model) -> None:
    photo = Image.new("RGB", (20, 30), "red")
    plain, explained = model.predict(photo), model.predict(photo, explain=True)
    assert plain.evidence is None
    assert explained == plain
    assert explained.evidence is not None
    assert explained.evidence.shape[0] == len(model.labels)


def test_many_are_as_one_by_one(model: Model) -> None:
    photos = [Image.new("RGB", (20, 30), colour) for colour in COLOURS.values()]
    together = model.predict_many(photos)
    assert [p.label for p in together] == LABELS
    for photo, prediction in zip(photos, together, strict=True):
        assert model.predict(photo).probability == pytest.approx(prediction.probability, abs=1e-6)
    assert model.predict_many([]) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "ONNX Runtime", id="empty"),
        pytest.param(b"not a model", "ONNX Runtime", id="text"),
        pytest.param(model_bytes()[:200], "ONNX Runtime", id="truncated"),
    ],
)
def test_damaged(data: bytes, words: str) -> None:
    with pytest.raises(ModelDamagedError, match=words):
        Model(data)


def test_a_foreign_model_is_refused() -> None:
    proto = onnx.load_from_string(model_bytes())
    del proto.metadata_props[:]
    with pytest.raises(ModelDamagedError, match="not one of ours"):
        Model(proto.SerializeToString())


def test_load_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"export\.onnx"):
        Model.load(tmp_path / "export.onnx")
    with pytest.raises(ModelDamagedError):
        Model.load(tmp_path)


def test_a_model_cannot_read_another_file(tmp_path: Path) -> None:
    """A tensor kept in another file is refused, wherever that file lies."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(36))
    proto = onnx.load_from_string(model_bytes())
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": str(secret), "offset": "0", "length": "36"}.items():
        tensor.external_data.add(key=key, value=value)
    with pytest.raises(ModelDamagedError):
        Model(proto.SerializeToString())


def test_metadata_is_json_of_builtins(model: Model) -> None:
    assert json.loads(json.dumps(model.info.raw)) == model.info.raw
