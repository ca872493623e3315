"""A Learner is read from its parsed pickle; one that is not supported is refused."""

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
    assert learner.transforms.pipeline.size == (64, 64)
    assert learner.notes == {}


def test_labels_that_are_numbers_become_strings(photos, tmp_path):
    learn = learners.make_learner(photos, get_y=lambda path: len(path.parent.name))
    assert read(learn, tmp_path).labels == ("3", "4", "5")


def multi_label(fastai: Any) -> dict[str, Any]:
    blocks = fastai.ImageBlock, fastai.MultiCategoryBlock
    return {"blocks": blocks, "get_y": lambda path: [path.parent.name], "metrics": None}


def regression(fastai: Any) -> dict[str, Any]:
    blocks = fastai.ImageBlock, fastai.RegressionBlock(n_out=1)
    return {"blocks": blocks, "get_y": lambda path: len(path.parent.name) / 3, "metrics": None}


UNSUPPORTED = {
    "multi-label": (multi_label, "got BCEWithLogitsLossFlat"),
    "regression": (regression, "got BaseLoss"),
    "a loss without softmax": (
        lambda fastai: {"loss_func": fastai.nn.CrossEntropyLoss()},
        "got CrossEntropyLoss",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_learner_is_refused_with_the_reason(fastai, photos, tmp_path, name):
    make, message = UNSUPPORTED[name]
    learn = learners.make_learner(photos, **make(fastai))
    with pytest.raises(UnsupportedLearnerError, match=message):
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
