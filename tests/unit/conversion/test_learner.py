"""What a Learner does to a photo is read off its records; what cannot be repeated is refused."""

from __future__ import annotations

import shutil
import types
from pathlib import Path
from typing import Any

import pytest

from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.convert import convert
from icon_classifier.conversion.learner import read_learner
from icon_classifier.errors import ConversionError, UnsupportedLearnerError, UntrustedExportError
from icon_classifier.model.pipeline import Pipeline
from icon_classifier.model.steps import CropPad, Resize
from tests.support import learners


@pytest.fixture(scope="session")
def fastai() -> types.ModuleType:
    """Give fastai.vision.all."""
    learners.import_fastai()
    import fastai.vision.all

    return fastai.vision.all


def read(learn: Any, folder: Path) -> Any:
    """Export a Learner and read it."""
    return read_learner(open_archive(learners.export(learn, folder)))


def test_the_usual_learner(tiny_export):
    learner = read_learner(open_archive(tiny_export))
    assert learner.labels == ("blue", "green", "red")
    assert learner.pipeline == Pipeline((Resize((64, 64), "crop", "reflection", 2),))
    assert learner.mean == pytest.approx((0.485, 0.456, 0.406))
    assert learner.std == pytest.approx((0.229, 0.224, 0.225))
    assert learner.notes == {}


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (
            lambda fastai: fastai.Resize((48, 80), fastai.ResizeMethod.Pad, pad_mode="border"),
            (Resize((80, 48), "pad", "border"),),
        ),
        (
            lambda fastai: fastai.RandomResizedCrop(64, min_scale=0.5),
            (Resize((80, 80), "squish"), CropPad((64, 64))),
        ),
        (
            lambda fastai: fastai.RandomResizedCrop(64, val_xtra=0),
            (Resize((64, 64), "squish"),),
        ),
        (
            lambda fastai: [fastai.Resize(80), fastai.FlipItem(), fastai.RandomCrop(64)],
            (Resize((80, 80)), CropPad((64, 64))),
        ),
        (
            lambda fastai: [fastai.DihedralItem(), fastai.CropPad((96, 64), pad_mode="border")],
            (CropPad((64, 96), "border"),),
        ),
    ],
)
def test_item_transforms(fastai, photos, tmp_path, make, steps):
    learn = learners.make_learner(photos, item_tfms=make(fastai))
    assert read(learn, tmp_path).pipeline.steps == steps


def test_without_normalize_pixels_stay_as_they_are(photos, tmp_path):
    learner = read(learners.make_learner(photos, batch_tfms=[]), tmp_path)
    assert (learner.mean, learner.std) == ((0, 0, 0), (1, 1, 1))


def test_labels_that_are_numbers_become_text(photos, tmp_path):
    learn = learners.make_learner(photos, get_y=lambda path: len(path.parent.name))
    assert read(learn, tmp_path).labels == ("3", "4", "5")


def multi_label(fastai: Any) -> dict[str, Any]:
    blocks = fastai.ImageBlock, fastai.MultiCategoryBlock
    return {"blocks": blocks, "get_y": lambda path: [path.parent.name], "metrics": None}


def regression(fastai: Any) -> dict[str, Any]:
    blocks = fastai.ImageBlock, fastai.RegressionBlock(n_out=1)
    return {"blocks": blocks, "get_y": lambda path: len(path.parent.name) / 3, "metrics": None}


def gray(fastai: Any) -> dict[str, Any]:
    blocks = fastai.ImageBlock(fastai.PILImageBW), fastai.CategoryBlock
    return {"blocks": blocks, "n_in": 1, "batch_tfms": []}


UNSUPPORTED = {
    "multi-label": (multi_label, "loss is BCEWithLogitsLossFlat"),
    "regression": (regression, "loss is BaseLoss"),
    "gray photos": (gray, "expected photos and one label each, found .*TensorImageBW"),
    "a loss without softmax": (
        lambda fastai: {"loss_func": fastai.nn.CrossEntropyLoss()},
        "loss is CrossEntropyLoss",
    ),
    "aug_transforms with a size": (
        lambda fastai: {"batch_tfms": fastai.aug_transforms(size=48)},
        "resizes .*use aug_transforms without size",
    ),
    "RandomResizedCropGPU": (
        lambda fastai: {"batch_tfms": fastai.aug_transforms(size=48, min_scale=0.75)},
        "batch transform RandomResizedCropGPU cannot be repeated",
    ),
    "an item transform of one's own": (
        lambda fastai: {"item_tfms": [fastai.Resize(64), fastai.Transform(lambda x: x)]},
        "item transform Transform cannot be repeated",
    ),
    "RatioResize": (
        lambda fastai: {"item_tfms": [fastai.RatioResize(64), fastai.Resize(64)]},
        "item transform RatioResize cannot be repeated",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_cannot_be_repeated_is_refused(fastai, photos, tmp_path, name):
    make, message = UNSUPPORTED[name]
    learn = learners.make_learner(photos, **make(fastai))
    with pytest.raises(UnsupportedLearnerError, match=message) as caught:
        read(learn, tmp_path)
    assert "cannot be repeated" in caught.value.words


def test_a_learner_without_one_size_is_refused(photos, tmp_path, fastai):
    learn = learners.make_learner(photos)
    learn.dls.valid.after_item = fastai.Pipeline([fastai.ToTensor()])
    with pytest.raises(UnsupportedLearnerError, match="no item transform brings photos to one"):
        read(learn, tmp_path)


def test_a_change_before_the_batch_is_refused(photos, tmp_path, fastai):
    learn = learners.make_learner(photos)
    learn.dls.valid.before_batch = fastai.Pipeline([fastai.Transform(lambda x: x)])
    with pytest.raises(UnsupportedLearnerError, match="before_batch"):
        read(learn, tmp_path)


def test_a_callback_of_ones_own_is_refused(photos, tmp_path, fastai):
    # As from a notebook: a class that is stored by value.
    callback = type("Brighter", (fastai.Callback,), {"__module__": "__main__"})
    learn = learners.make_learner(photos, cbs=callback())
    with pytest.raises(UnsupportedLearnerError, match="callback that is not fastai's own"):
        read(learn, tmp_path)


def test_a_network_of_ones_own_is_refused(photos, tmp_path, fastai):
    head = type("Head", (fastai.nn.Linear,), {"__module__": "__main__"})
    learn = learners.make_learner(photos, custom_head=fastai.nn.Sequential(head(3, 3)))
    path = learners.export(learn, tmp_path)
    with pytest.raises(UnsupportedLearnerError, match="not a layer"):
        convert(path, trust=True)


def test_a_class_of_another_package_is_refused(photos, tmp_path):
    learn = learners.make_learner(photos)
    learn.note = UnsupportedLearnerError("by reference")
    with pytest.raises(UntrustedExportError, match=r"names icon_classifier\.errors"):
        read(learn, tmp_path)


def test_weights_alone_are_no_learner(tmp_path):
    import torch

    torch.save({"weight": torch.ones(2)}, tmp_path / "export.pkl")
    with pytest.raises(UnsupportedLearnerError, match="not a fastai Learner"):
        read_learner(open_archive(tmp_path / "export.pkl"))


@pytest.mark.parametrize("name", ["loss_func", "cbs", "dls", "model", "icon_classifier"])
@pytest.mark.parametrize("value", [None, 3, [], {"items": 3}, "x" * 300])
def test_senseless_parts_raise_nothing_but_ours(tiny_export, tmp_path, name, value):
    archive = open_archive(shutil.copy(tiny_export, tmp_path / "export.pkl"))
    archive.root.state[name] = value
    if (name, value) in [("icon_classifier", {"items": 3}), ("cbs", [])]:
        assert read_learner(archive).labels == ("blue", "green", "red")
    else:
        with pytest.raises(ConversionError):
            read_learner(archive)
