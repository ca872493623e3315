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
def test_predict_returns_the_dominant_colour(model: Model, colour: str) -> None:
    prediction = model.predict(Image.new("RGB", (40, 30), COLOURS[colour]))
    assert prediction.label == colour
    assert prediction.probability > 0.9
    assert prediction.known
    assert prediction.ranking[0][0] == colour
    assert sum(probability for _, probability in prediction.ranking) == pytest.approx(1)


def test_a_photo_below_the_threshold_is_not_known(model: Model) -> None:
    assert not model.predict(Image.new("RGB", (40, 30), "black")).known


def test_without_a_threshold_every_photo_is_known() -> None:
    assert Model(model_bytes(unsure=None)).predict(Image.new("RGB", (40, 30), "black")).known


def test_a_higher_temperature_lowers_the_probability() -> None:
    photo = Image.new("RGB", (8, 8), COLOURS["red"])
    hot, cold = (Model(model_bytes(temperature=t)).predict(photo) for t in (5.0, 0.5))
    assert hot.label == cold.label
    assert hot.probability < cold.probability


def test_str_of_a_prediction() -> None:
    prediction = Prediction("grizzly", 0.99871, (("grizzly", 0.99871), ("teddy", 0.00129)), True, 3)
    assert str(prediction) == "Prediction: grizzly; Probability: 0.9987"


def test_transform_returns_normalised_float32(model: Model) -> None:
    array = model.transform(Image.new("RGB", (40, 30), (255, 0, 127)))
    assert (array.shape, array.dtype) == ((3, 8, 8), np.float32)
    assert array[:, 0, 0] == pytest.approx([1, -1, -0.0039], abs=1e-3)


def test_transform_makes_a_photo_grey_before_it_resizes_it() -> None:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))
    grey = np.asarray(photo.convert("L").resize((8, 8), Image.Resampling.BILINEAR), np.float32)
    one, three = (
        Model(model_bytes(mode="L", mean=[0.5] * channels, std=[0.5] * channels)).transform(photo)
        for channels in (1, 3)
    )
    assert (one.shape, three.shape) == ((1, 8, 8), (3, 8, 8))
    np.testing.assert_allclose(one[0], grey / 127.5 - 1, atol=1e-6)
    assert (three == one).all()


def test_a_model_of_grey_photos_predicts_and_explains() -> None:
    model = Model(model_bytes(mode="L"))
    prediction = model.predict(Image.new("RGB", (40, 30), "white"), explain=True)
    assert prediction.probability == pytest.approx(1 / 3)
    assert prediction.evidence is not None


def test_evidence_is_returned_only_if_asked_for(model: Model) -> None:
    photo = Image.new("RGB", (20, 30), "red")
    plain, explained = model.predict(photo), model.predict(photo, explain=True)
    assert plain.evidence is None
    assert explained == plain
    assert explained.evidence is not None
    assert explained.evidence.shape[0] == len(model.labels)


def test_photos_of_one_batch_are_answered_like_single_ones(model: Model) -> None:
    photos = [Image.new("RGB", (20, 30), colour) for colour in COLOURS.values()]
    predictions = model.predict_arrays(np.stack([model.transform(photo) for photo in photos]))
    assert [p.label for p in predictions] == LABELS
    for photo, prediction in zip(photos, predictions, strict=True):
        assert model.predict(photo).probability == pytest.approx(prediction.probability, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "ONNX Runtime", id="empty"),
        pytest.param(b"not a model", "ONNX Runtime", id="text"),
        pytest.param(model_bytes()[:200], "ONNX Runtime", id="truncated"),
        pytest.param(
            model_bytes().replace(b'"format"', b'"form\xffat'), "ONNX Runtime", id="no UTF-8"
        ),
    ],
)
def test_bytes_that_are_not_an_onnx_model_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelDamagedError, match=message):
        Model(data)


def test_a_model_without_our_metadata_is_refused() -> None:
    proto = onnx.load_from_string(model_bytes())
    del proto.metadata_props[:]
    with pytest.raises(ModelDamagedError, match="no entry 'icon_classifier'"):
        Model(proto.SerializeToString())


def test_load_raises_for_a_missing_file_and_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"export\.onnx"):
        Model.load(tmp_path / "export.onnx")
    with pytest.raises(ModelDamagedError):
        Model.load(tmp_path)


def test_a_tensor_in_another_file_is_refused(tmp_path: Path) -> None:
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


def test_raw_metadata_is_json(model: Model) -> None:
    assert json.loads(json.dumps(model.info.raw)) == model.info.raw
