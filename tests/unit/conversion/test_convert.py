"""export.onnx gives the Learner's own answers; what cannot be trusted or repeated is refused."""

from __future__ import annotations

import fcntl
import json
import math
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from icon_classifier.conversion import convert as module
from icon_classifier.conversion.convert import convert
from icon_classifier.conversion.trust import record_hash, sha256
from icon_classifier.errors import (
    ConversionError,
    UnsupportedLearnerError,
    UntrustedExportError,
)
from icon_classifier.images import read_image
from icon_classifier.model.info import METADATA_KEY
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
    """A Learner with all that a training usually leaves in it."""
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
    """The export.pkl of a Learner, with its export.onnx beside it."""
    folder = tmp_path_factory.mktemp("converted")
    convert(learners.export(request.param(photos), folder), trust=True)
    return folder / "export.pkl"


@pytest.fixture
def export(tiny_export, tmp_path) -> Path:
    """An export.pkl of one's own, without a recorded SHA-256."""
    return shutil.copy(tiny_export, tmp_path / "export.pkl")


def test_answers_are_the_learners(converted):
    model = Model.load(converted.with_suffix(".onnx"))
    images = [read_image(make()) for make in PICTURES.values()]
    theirs = learners.predict_all(converted, images)
    for name, image, (label, probabilities) in zip(PICTURES, images, theirs, strict=True):
        ours = model.predict(image)
        ranking = dict(ours.ranking)
        assert ours.label == label, name
        assert [ranking[each] for each in model.labels] == pytest.approx(probabilities, abs=1e-4)


def test_what_the_model_says_of_itself(converted):
    info = Model.load(converted.with_suffix(".onnx")).info
    assert info.labels == tuple(learners.LABELS)
    assert info.export_sha256 == sha256(converted)
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


def test_notes_of_the_training_are_carried(photos, tmp_path):
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
    info = Model.load(convert(learners.export(learn, tmp_path), trust=True)).info
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
        ({"unsure": {"score": "knn", "threshold": 1.0, "k": 3, "bank": [[1.0]]}}, "k is 3"),
        ({"figures": float("nan")}, "more than plain values"),
        ({"path": Path("somewhere")}, "more than plain values"),
        (["temperature"], "is no dict"),
    ],
)
def test_senseless_notes_are_refused(photos, tmp_path, notes, message):
    learn = learners.make_learner(photos)
    learn.icon_classifier = notes
    with pytest.raises(UnsupportedLearnerError, match=message):
        convert(learners.export(learn, tmp_path), trust=True)
    assert not (tmp_path / "export.onnx").exists()


def test_a_network_without_maps_converts_without_evidence(photos, tmp_path):
    learners.import_fastai()
    from fastai.vision.all import Resize

    learn = learners.make_learner(photos, "test_vit", item_tfms=Resize(160))
    model = Model.load(convert(learners.export(learn, tmp_path), trust=True))
    assert "dimensions, not 4" in model.info.raw["evidence"]
    image = gradient()
    label, _ = learners.predict(tmp_path / "export.pkl", image)
    assert model.predict(image).label == label


class TestTrust:
    def test_an_unrecorded_file_is_refused_with_the_way_to_consent(self, export):
        with pytest.raises(UntrustedExportError, match=r"no SHA-256 is recorded.*convert --trust"):
            convert(export)
        assert not export.with_suffix(".onnx").exists()

    def test_consent_is_recorded_as_sha256sum_writes_it(self, export):
        convert(export, trust=True)
        record = export.with_name("export.pkl.sha256").read_text()
        assert record == f"{sha256(export)}  export.pkl\n"
        assert convert(export) == export.with_suffix(".onnx")

    def test_another_file_than_the_recorded_one_is_refused(self, export):
        record_hash(export)
        export.write_bytes(export.read_bytes() + b"\0")
        with pytest.raises(UntrustedExportError, match="names another file"):
            convert(export)


class TestBadDays:
    def test_missing_file(self, tmp_path):
        with pytest.raises(ConversionError, match="there is no") as caught:
            convert(tmp_path / "export.pkl", trust=True)
        assert "no export.pkl here" in caught.value.words

    @pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
    def test_damaged_file(self, export, keep):
        data = export.read_bytes()
        export.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
        with pytest.raises(ConversionError, match=r"not a file of torch\.save") as caught:
            convert(export, trust=True)
        assert "damaged" in caught.value.words

    def test_damaged_numbers(self, export):
        data = bytearray(export.read_bytes())
        data[len(data) // 2] ^= 0xFF
        export.write_bytes(data)
        with pytest.raises(ConversionError, match="Bad CRC-32"):
            convert(export, trust=True)

    def test_a_folder_that_cannot_be_written_to(self, export, tmp_path):
        record_hash(export)
        with pytest.raises(ConversionError, match="cannot write") as caught:
            convert(export, tmp_path / "missing" / "export.onnx")
        assert "permissions" in caught.value.words

    def test_the_old_model_stays_where_the_new_one_fails(self, export, monkeypatch):
        record_hash(export)
        target = export.with_suffix(".onnx")
        target.write_bytes(b"old")
        monkeypatch.setattr(module, "TOLERANCE", -1.0)
        with pytest.raises(UnsupportedLearnerError, match="ONNX Runtime and torch differ"):
            convert(export)
        assert target.read_bytes() == b"old"
        assert sorted(path.name for path in export.parent.iterdir()) == [
            "export.onnx",
            "export.pkl",
            "export.pkl.sha256",
        ]

    def test_who_waited_takes_what_the_other_process_made(self, export, caplog, monkeypatch):
        record_hash(export)
        target, made = (
            export.with_suffix(".onnx"),
            model_bytes(export_sha256=sha256(export)),
        )
        waiting = threading.Event()
        # The handler serves all tests of the session: what is changed must be put back.
        monkeypatch.setattr(
            caplog.handler, "emit", lambda record: "waiting" in record.msg and waiting.set()
        )
        with export.open("rb") as other, caplog.at_level("INFO"):
            fcntl.flock(other, fcntl.LOCK_EX)
            thread = threading.Thread(target=convert, args=(export,))
            thread.start()
            assert waiting.wait(30)
            target.write_bytes(made)
            fcntl.flock(other, fcntl.LOCK_UN)
        thread.join(30)
        assert target.read_bytes() == made

    def test_who_waited_for_nothing_compiles(self, export):
        with export.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            thread = threading.Thread(target=partial(convert, export, trust=True))
            thread.start()
            fcntl.flock(other, fcntl.LOCK_UN)
        thread.join(60)
        assert Model.load(export.with_suffix(".onnx")).labels == tuple(learners.LABELS)


def test_metadata_is_one_entry(converted):
    session = onnxruntime.InferenceSession(converted.with_suffix(".onnx").read_bytes())
    entries = session.get_modelmeta().custom_metadata_map
    assert list(entries) == [METADATA_KEY]
    assert json.loads(entries[METADATA_KEY])["opset"] == 17
