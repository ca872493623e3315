"""A Learner's transforms are read from its parsed pickle; unsupported ones are refused."""

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
from icon_classifier.model.pipeline import CropPad, Pipeline, Resize
from tests.support import learners


@pytest.fixture(scope="session")
def fastai() -> types.ModuleType:
    """Return fastai.vision.all."""
    learners.import_fastai()
    import fastai.vision.all

    return fastai.vision.all


def read(learn: Any, folder: Path) -> Any:
    """Export a Learner and read it."""
    return read_learner(open_archive(learners.export(learn, folder)))


def test_a_plain_learner_is_read(tiny_export):
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
def test_item_transforms_become_steps(fastai, photos, tmp_path, make, steps):
    learn = learners.make_learner(photos, item_tfms=make(fastai))
    assert read(learn, tmp_path).pipeline.steps == steps


def test_without_normalize_mean_is_0_and_std_is_1(photos, tmp_path):
    learner = read(learners.make_learner(photos, batch_tfms=[]), tmp_path)
    assert (learner.mean, learner.std) == ((0, 0, 0), (1, 1, 1))


def test_labels_that_are_numbers_become_strings(photos, tmp_path):
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
    "multi-label": (multi_label, "got BCEWithLogitsLossFlat"),
    "regression": (regression, "got BaseLoss"),
    "gray photos": (gray, "expected photos and one label each, got .*TensorImageBW"),
    "a loss without softmax": (
        lambda fastai: {"loss_func": fastai.nn.CrossEntropyLoss()},
        "got CrossEntropyLoss",
    ),
    "aug_transforms with a size": (
        lambda fastai: {"batch_tfms": fastai.aug_transforms(size=48)},
        "resizes .*use aug_transforms without size",
    ),
    "RandomResizedCropGPU": (
        lambda fastai: {"batch_tfms": fastai.aug_transforms(size=48, min_scale=0.75)},
        "batch transform RandomResizedCropGPU cannot be reproduced",
    ),
    "a custom item transform": (
        lambda fastai: {"item_tfms": [fastai.Resize(64), fastai.Transform(lambda x: x)]},
        "item transform Transform cannot be reproduced",
    ),
    "RatioResize": (
        lambda fastai: {"item_tfms": [fastai.RatioResize(64), fastai.Resize(64)]},
        "item transform RatioResize cannot be reproduced",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_learner_is_refused_with_the_reason(fastai, photos, tmp_path, name):
    make, message = UNSUPPORTED[name]
    learn = learners.make_learner(photos, **make(fastai))
    with pytest.raises(UnsupportedLearnerError, match=message):
        read(learn, tmp_path)


def test_a_learner_that_does_not_resize_is_refused(photos, tmp_path, fastai):
    learn = learners.make_learner(photos)
    learn.dls.valid.after_item = fastai.Pipeline([fastai.ToTensor()])
    with pytest.raises(UnsupportedLearnerError, match="do not resize photos to one size"):
        read(learn, tmp_path)


def test_a_transform_before_the_batch_is_refused(photos, tmp_path, fastai):
    learn = learners.make_learner(photos)
    learn.dls.valid.before_batch = fastai.Pipeline([fastai.Transform(lambda x: x)])
    with pytest.raises(UnsupportedLearnerError, match="before_batch"):
        read(learn, tmp_path)


def test_a_custom_callback_is_refused(photos, tmp_path, fastai):
    # A class of a notebook is stored by value.
    callback = type("Brighter", (fastai.Callback,), {"__module__": "__main__"})
    learn = learners.make_learner(photos, cbs=callback())
    with pytest.raises(UnsupportedLearnerError, match="callback that is not fastai's own"):
        read(learn, tmp_path)


def test_a_custom_layer_is_refused(photos, tmp_path, fastai):
    head = type("Head", (fastai.nn.Linear,), {"__module__": "__main__"})
    learn = learners.make_learner(photos, custom_head=fastai.nn.Sequential(head(3, 3)))
    path = learners.export(learn, tmp_path)
    with pytest.raises(UnsupportedLearnerError, match="not a layer"):
        convert(path)


def test_an_object_of_another_package_is_refused(photos, tmp_path):
    learn = learners.make_learner(photos)
    learn.note = UnsupportedLearnerError("by reference")
    with pytest.raises(UntrustedExportError, match=r"names icon_classifier\.errors"):
        read(learn, tmp_path)


def test_a_state_dict_is_refused(tmp_path):
    import torch

    torch.save({"weight": torch.ones(2)}, tmp_path / "export.pkl")
    with pytest.raises(UnsupportedLearnerError, match="expected a fastai Learner"):
        read_learner(open_archive(tmp_path / "export.pkl"))


@pytest.mark.parametrize("name", ["loss_func", "cbs", "dls", "model", "icon_classifier"])
@pytest.mark.parametrize("value", [None, 3, [], {"items": 3}, "x" * 300])
def test_invalid_parts_raise_conversion_errors(tiny_export, tmp_path, name, value):
    archive = open_archive(shutil.copy(tiny_export, tmp_path / "export.pkl"))
    archive.root.state[name] = value
    if (name, value) in [("icon_classifier", {"items": 3}), ("cbs", [])]:
        assert read_learner(archive).labels == ("blue", "green", "red")
    else:
        with pytest.raises(ConversionError):
            read_learner(archive)
