"""export.onnx answers as its Learner does; invalid Learners are refused."""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from icon_classifier.conversion import convert as module
from icon_classifier.conversion.convert import convert
from icon_classifier.errors import ConversionError, UnsupportedLearnerError
from icon_classifier.files import sha256_of
from icon_classifier.images import read_image
from icon_classifier.model.info import METADATA_KEY, compiler_sha256
from icon_classifier.model.session import Model
from tests.support import learners
from tests.support.models import model_bytes
from tests.support.pictures import encode, gradient, turned

PICTURES = {
    "RGB": lambda: encode(gradient()),
    "JPEG": lambda: encode(gradient(), "JPEG"),
    "L": lambda: encode(gradient("L")),
    "LA": lambda: encode(gradient("LA")),
    "P with transparency": lambda: encode(gradient("P")),
    "RGBA": lambda: encode(gradient("RGBA")),
    "CMYK": lambda: encode(gradient("CMYK"), "JPEG"),
    "16-bit": lambda: encode(gradient("I;16")),
    "turned": lambda: turned(6),
    "large": lambda: encode(gradient(size=(900, 300))),
    "small": lambda: encode(gradient(size=(20, 31))),
}


def augmented(photos: Path) -> Any:
    """Return a Learner with all that training usually leaves in it."""
    learners.import_fastai()
    from fastai.vision.all import (
        EarlyStoppingCallback,
        LabelSmoothingCrossEntropyFlat,
        Normalize,
        RandomResizedCrop,
        SaveModelCallback,
        accuracy,
        aug_transforms,
        error_rate,
        imagenet_stats,
    )

    learn = learners.make_learner(
        photos,
        item_tfms=RandomResizedCrop(64, min_scale=0.4),
        batch_tfms=[*aug_transforms(mult=2), Normalize.from_stats(*imagenet_stats)],
        loss_func=LabelSmoothingCrossEntropyFlat(),
        metrics=[error_rate, accuracy],
        cbs=[SaveModelCallback(every_epoch=True), EarlyStoppingCallback()],
        get_y=lambda path: path.parent.name,  # by value in the pickle, as from a notebook
        epochs=1,
    )
    return learn.to_fp16()


def resnet(photos: Path) -> Any:
    learners.import_fastai()
    from fastai.vision.all import Resize, resnet18

    return learners.make_learner(photos, resnet18, item_tfms=Resize(48, "squish"))


def padded(photos: Path) -> Any:
    learners.import_fastai()
    from fastai.vision.all import FlipItem, Resize

    return learners.make_learner(
        photos,
        "tf_efficientnet_lite0",
        item_tfms=[Resize((64, 96), "pad", pad_mode="zeros"), FlipItem()],
        concat_pool=False,
    )


SLOW = [pytest.param(make, marks=pytest.mark.slow) for make in (augmented, resnet, padded)]


@pytest.fixture(scope="module", params=[learners.make_learner, *SLOW])
def converted(request, photos, tmp_path_factory) -> Path:
    """Return the export.pkl of a Learner, with its export.onnx beside it."""
    folder = tmp_path_factory.mktemp("converted")
    convert(learners.export(request.param(photos), folder))
    return folder / "export.pkl"


@pytest.fixture
def export(tiny_export, tmp_path) -> Path:
    """Return a copy of the tiny export.pkl."""
    return shutil.copy(tiny_export, tmp_path / "export.pkl")


def test_predictions_are_those_of_the_learner(converted):
    model = Model.load(converted.with_suffix(".onnx"))
    images = [read_image(make()) for make in PICTURES.values()]
    theirs = learners.predict_all(converted, images)
    for name, image, (label, probabilities) in zip(PICTURES, images, theirs, strict=True):
        ours = model.predict(image)
        ranking = dict(ours.ranking)
        assert ours.label == label, name
        assert [ranking[each] for each in model.labels] == pytest.approx(probabilities, abs=1e-4)


def test_the_metadata_describes_the_model(converted):
    info = Model.load(converted.with_suffix(".onnx")).info
    assert info.labels == tuple(learners.LABELS)
    assert info.export_sha256 == sha256_of(converted)
    assert info.raw["compiler_sha256"] == compiler_sha256()
    assert info.temperature == 1
    assert info.score is None
    assert info.raw["evidence"] is True
    assert info.versions["torch"].startswith("2.")


def test_evidence_is_a_heat_map_for_each_class(converted):
    path = converted.with_suffix(".onnx")
    session = onnxruntime.InferenceSession(path.read_bytes())
    width, height = Model.load(path).info.pipeline.size
    batch = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    (evidence,) = session.run(["evidence"], {"image": batch})
    assert evidence.shape == (2, 3, math.ceil(height / 32), math.ceil(width / 32))
    assert evidence.std() > 0


def test_notes_of_the_training_become_metadata(photos, tmp_path):
    learn = learners.make_learner(photos)
    learn.icon_classifier = {
        "format": 1,
        "temperature": 1.5,
        "unsure": {"score": "max_logit", "threshold": -0.5},
        "recipe": "colours",
        "figures": {"error": 0.25},
        "versions": {"torch": "2.0"},
        "date": "2026-01-02T03:04:05+00:00",
    }
    info = Model.load(convert(learners.export(learn, tmp_path))).info
    assert (info.temperature, info.score, info.threshold) == (1.5, "max_logit", -0.5)
    assert (info.recipe, info.figures) == ("colours", {"error": 0.25})
    assert info.raw["trained_with"] == {"torch": "2.0"}
    assert info.raw["trained"] == "2026-01-02T03:04:05+00:00"


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"temperature": 0}, "temperature above 0"),
        ({"temperature": True}, "temperature above 0"),
        ({"unsure": {"score": "energy"}}, "unsure with a threshold"),
        ({"unsure": {"score": "luck", "threshold": 1.0}}, "expected a score of"),
        (
            {"unsure": {"score": "knn", "threshold": 1.0, "k": 3, "bank": [[1.0]]}},
            "k of 1 to 1, got 3",
        ),
        ({"figures": float("nan")}, "to be plain values"),
        ({"path": Path("somewhere")}, "to be plain values"),
        (["temperature"], "to be a dict"),
    ],
)
def test_invalid_notes_are_refused(photos, tmp_path, notes, message):
    learn = learners.make_learner(photos)
    learn.icon_classifier = notes
    with pytest.raises(UnsupportedLearnerError, match=message):
        convert(learners.export(learn, tmp_path))
    assert not (tmp_path / "export.onnx").exists()


@pytest.mark.slow
def test_a_network_without_maps_converts_without_evidence(photos, tmp_path):
    learners.import_fastai()
    from fastai.vision.all import Resize

    learn = learners.make_learner(photos, "test_vit", item_tfms=Resize(160))
    model = Model.load(convert(learners.export(learn, tmp_path)))
    assert "4 dimensions" in model.info.raw["evidence"]
    image = gradient()
    label, _ = learners.predict(tmp_path / "export.pkl", image)
    assert model.predict(image).label == label


def add_difference(monkeypatch, output: str, difference: float) -> None:
    """Add a difference to one output of ONNX Runtime in `convert`."""

    class Session(onnxruntime.InferenceSession):
        def run(self, names: Any, feed: Any) -> Any:
            outputs = super().run(names, feed)
            for i, each in enumerate(self.get_outputs()):
                if each.name == output:
                    outputs[i] = outputs[i] + difference * max(1.0, np.abs(outputs[i]).max())
            return outputs

    monkeypatch.setattr(module.onnxruntime, "InferenceSession", Session)


def test_a_model_whose_evidence_differs_goes_without(export, monkeypatch):
    add_difference(monkeypatch, "evidence", 0.01)
    model = Model.load(convert(export))
    assert "differ" in model.info.raw["evidence"]
    assert not model.can_explain


def test_evidence_may_differ_by_what_nobody_sees(export, monkeypatch):
    add_difference(monkeypatch, "evidence", 5e-4)
    assert Model.load(convert(export)).info.raw["evidence"] is True


@pytest.mark.parametrize(("output", "difference"), [("logits", 1e-3), ("score", 1e-3)])
def test_a_model_whose_answers_differ_is_refused(export, monkeypatch, output, difference):
    add_difference(monkeypatch, output, difference)
    with pytest.raises(UnsupportedLearnerError, match=f"differ by .* in {output}, expected at"):
        convert(export)


def test_a_diverged_network_is_refused(photos, tmp_path):
    learn = learners.make_learner(photos)
    learn.model[1][-1].weight.data.fill_(math.nan)
    with pytest.raises(UnsupportedLearnerError, match="smaller learning rate"):
        convert(learners.export(learn, tmp_path))


class TestFailures:
    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(
            ConversionError, match=r"there is no .*; in the notebook .* learn.export"
        ):
            convert(tmp_path / "export.pkl")

    @pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
    def test_a_truncated_file_is_refused(self, export, keep):
        data = export.read_bytes()
        export.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
        with pytest.raises(ConversionError, match=r"an empty file|cut off"):
            convert(export)

    def test_damaged_tensors_are_refused(self, export):
        data = bytearray(export.read_bytes())
        data[len(data) // 2] ^= 0xFF
        export.write_bytes(data)
        with pytest.raises(ConversionError, match="Bad CRC-32") as refusal:
            convert(export)
        assert str(refusal.value).count(str(export)) == 1

    def test_a_learner_named_like_its_target_is_kept(self, export):
        learner = export.rename(export.with_suffix(".onnx"))
        content = learner.read_bytes()
        with pytest.raises(ConversionError, match=r"another file .* rename it export\.pkl"):
            convert(learner)
        assert learner.read_bytes() == content

    def test_a_target_that_cannot_be_written_is_reported(self, export, tmp_path):
        with pytest.raises(ConversionError, match="cannot write"):
            convert(export, tmp_path / "missing" / "export.onnx")

    def test_a_failure_keeps_the_old_model(self, export, monkeypatch):
        target = export.with_suffix(".onnx")
        target.write_bytes(b"old")
        monkeypatch.setattr(module, "TOLERANCE", -1.0)
        with pytest.raises(UnsupportedLearnerError, match="ONNX Runtime and torch differ"):
            convert(export)
        assert target.read_bytes() == b"old"
        assert sorted(path.name for path in export.parent.iterdir()) == [
            "export.onnx",
            "export.pkl",
        ]

    def test_a_process_that_waited_keeps_the_model_of_the_other(self, export, caplog, monkeypatch):
        target = export.with_suffix(".onnx")
        converted = model_bytes(export_sha256=sha256_of(export))
        waiting = threading.Event()
        # All tests of the session share the handler: monkeypatch restores it.
        monkeypatch.setattr(
            caplog.handler, "emit", lambda record: "waiting" in record.msg and waiting.set()
        )
        with export.open("rb") as other, caplog.at_level("INFO"):
            fcntl.flock(other, fcntl.LOCK_EX)
            thread = threading.Thread(target=convert, args=(export,))
            thread.start()
            assert waiting.wait(30)
            target.write_bytes(converted)
            fcntl.flock(other, fcntl.LOCK_UN)
        thread.join(30)
        assert target.read_bytes() == converted

    def test_a_process_that_waited_converts_if_the_other_did_not(self, export):
        with export.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            thread = threading.Thread(target=convert, args=(export,))
            thread.start()
            fcntl.flock(other, fcntl.LOCK_UN)
        thread.join(60)
        assert Model.load(export.with_suffix(".onnx")).labels == tuple(learners.LABELS)


def test_the_metadata_is_one_entry(converted):
    session = onnxruntime.InferenceSession(converted.with_suffix(".onnx").read_bytes())
    entries = session.get_modelmeta().custom_metadata_map
    assert list(entries) == [METADATA_KEY]
    assert json.loads(entries[METADATA_KEY])["opset"] == 17
