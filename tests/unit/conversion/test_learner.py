"""A Learner is read from its parsed pickle; one that is not supported is refused."""

from __future__ import annotations

import operator
import os
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.convert import convert
from icon_classifier.conversion.learner import read_learner
from icon_classifier.errors import ConversionError, UnsupportedLearnerError
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


def own(made: Any) -> Any:
    """Let a class or function be of a notebook: it is stored by value."""
    made.__module__ = "__main__"
    return made


def test_a_plain_learner_is_read(tiny_export):
    learner = read_learner(open_archive(tiny_export))
    assert learner.labels == ("blue", "green", "red")
    assert learner.transforms.pipeline.size == (64, 64)
    assert learner.notes == {}
    assert learner.loss == "CrossEntropyLossFlat"
    assert learner.fastai_version == "2.8 or later"
    assert learner.left_out == ("metric error_rate",)
    assert learner.assumed == ()


def initial(name: str) -> bool:
    """Return whether a name is in upper case, as in the first lesson."""
    return name[0].isupper()


def vocab(fastai: Any, labels: Any) -> dict[str, Any]:
    return {"blocks": (fastai.ImageBlock, fastai.CategoryBlock(vocab=labels, sort=False))}


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        (lambda _: {"get_y": lambda path: len(path.parent.name)}, ("3", "4", "5")),
        (lambda _: {"get_y": lambda path: np.int32(len(path.parent.name))}, ("3", "4", "5")),
        (lambda _: {"get_y": lambda path: len(path.parent.name) / 2}, ("1.5", "2.0", "2.5")),
        (lambda _: {"get_y": lambda path: path.parent.name == "red"}, ("False", "True")),
        (lambda _: {"get_y": lambda path: path.parent.name[3:]}, ("(no name)", "e", "en")),
        (lambda _: {"get_y": lambda path: Path(path.parent.name)}, ("blue", "green", "red")),
        (lambda fastai: vocab(fastai, ["red", "green", "blue"]), ("red", "green", "blue")),
        (lambda fastai: vocab(fastai, np.array(learners.LABELS)), ("blue", "green", "red")),
        (
            lambda fastai: vocab(fastai, [*learners.LABELS, "__init__"]),
            ("blue", "green", "red", "__init__"),
        ),
        (
            lambda fastai: {"blocks": (fastai.ImageBlock, fastai.CategoryBlock(add_na=True))},
            ("#na#", "blue", "green", "red"),
        ),
    ],
)
def test_labels_become_strings(fastai, photos, tmp_path, make, labels):
    learn = learners.make_learner(photos, **make(fastai))
    assert read(learn, tmp_path).labels == labels


def test_two_classes_of_one_name_are_refused(fastai, photos, tmp_path):
    learn = learners.make_learner(photos, **vocab(fastai, [*learners.LABELS, 1, "1"]))
    with pytest.raises(UnsupportedLearnerError, match="two of its classes are called '1'"):
        read(learn, tmp_path)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda fastai: fastai.CrossEntropyLossFlat(weight=fastai.tensor([1.0, 2.0, 3.0])), None),
        (lambda fastai: fastai.FocalLossFlat(), None),
        (lambda fastai: fastai.LabelSmoothingCrossEntropyFlat(), None),
        (lambda fastai: fastai.LabelSmoothingCrossEntropy(), None),
        (lambda fastai: fastai.FocalLoss(), "FocalLoss"),
        (lambda fastai: fastai.nn.CrossEntropyLoss(), "CrossEntropyLoss"),
        (lambda fastai: fastai.BCEWithLogitsLossFlat(), "BCEWithLogitsLossFlat"),
        (lambda fastai: fastai.F.cross_entropy, "cross_entropy"),
        (
            lambda fastai: fastai.partial(fastai.F.cross_entropy, label_smoothing=0.1),
            "cross_entropy",
        ),
        (
            lambda fastai: own(type("MyFocal", (fastai.nn.Module,), {}))(),
            "MyFocal of the notebook",
        ),
        (lambda _: own(types.FunctionType(initial.__code__, {}, "mine")), "mine of the notebook"),
    ],
)
def test_any_loss_of_one_label_gives_the_softmax(fastai, photos, tmp_path, make, name):
    learner = read(learners.make_learner(photos, loss_func=make(fastai)), tmp_path)
    if name is None:
        assert learner.assumed == ()
    else:
        assert learner.loss == name
        assert learner.assumed == (
            f"The loss {name} is not one of fastai's for one label a photo; the probabilities are "
            "the softmax of the network's outputs"
            + (", where learn.predict shows sigmoids." if name.startswith("BCE") else "."),
        )


def test_what_is_left_out_is_listed(fastai, photos, tmp_path):
    callback = own(type("Brighter", (fastai.Callback,), {}))()
    score = own(types.FunctionType(initial.__code__, {}, "score"))
    learn = learners.make_learner(
        photos,
        get_y=fastai.using_attr(own(types.FunctionType(initial.__code__, {}, "is_cat")), "name"),
        metrics=[fastai.accuracy, score, fastai.F1Score(), fastai.partial(fastai.accuracy, axis=1)],
        cbs=[callback, fastai.MixUp(), fastai.SaveModelCallback()],
    )
    learner = read(learn, tmp_path)
    assert learner.labels == ("False",)
    assert learner.left_out == (
        "metric accuracy",
        "metric score of the notebook",
        "metric f1_score of sklearn",
        "callback Brighter of the notebook",
        "callback MixUp",
        "callback SaveModelCallback",
        "function is_cat of the notebook",
    )
    assert learner.assumed == (
        "The callback Brighter of the notebook is not run; if it changes photos or outputs when "
        "predicting, the answers differ from learn.predict.",
    )


def test_a_function_of_the_notebook_before_opening_is_named(fastai, photos, tmp_path):
    find = own(types.FunctionType((lambda path: path).__code__, {}, "find"))
    learn = learners.make_learner(photos)
    learn.dls.valid_ds.tls[0].tfms.fs[0] = fastai.Transform(find)
    learner = read(learn, tmp_path)
    assert "function find of the notebook" in learner.left_out
    assert learner.assumed == (
        "The function find of the notebook (get_x) is assumed to return a photo's path.",
    )


@pytest.mark.parametrize("function", [Path, str, os.fspath, operator.attrgetter("parent.parent")])
def test_a_function_of_python_before_opening_needs_no_words(fastai, photos, tmp_path, function):
    learn = learners.make_learner(photos)
    learn.dls.valid_ds.tls[0].tfms.fs[0] = fastai.Transform(function)
    assert read(learn, tmp_path).assumed == ()


def test_photos_opened_by_a_class_method_of_the_notebook_are_refused(fastai, photos, tmp_path):
    opener = own(type("Opener", (fastai.PILImage,), {"create": classmethod(initial)}))
    learn = learners.make_learner(photos)
    learn.dls.valid_ds.tls[0].tfms.fs[-1] = fastai.Transform(opener.create)
    with pytest.raises(UnsupportedLearnerError, match=r"opened by initial of .*PILImage"):
        read(learn, tmp_path)


def test_a_learner_class_of_the_notebook_is_read(photos, tmp_path):
    learn = learners.make_learner(photos)
    learn.__class__ = own(type("MyLearner", (type(learn),), {}))
    assert read(learn, tmp_path).labels == ("blue", "green", "red")


def blocks(*kinds: Any, **options: Any) -> dict[str, Any]:
    return {"blocks": kinds, "metrics": None, **options}


def opened_by(fastai: Any, *transforms: Any) -> dict[str, Any]:
    """Return options of photos that go through more transforms when they are opened."""
    photos = fastai.TransformBlock(
        type_tfms=[fastai.PILImage.create, *transforms], batch_tfms=fastai.IntToFloatTensor
    )
    return {"blocks": (photos, fastai.CategoryBlock)}


UNSUPPORTED: dict[str, tuple[Callable[[Any], dict[str, Any]], str]] = {
    "several labels": (
        lambda fastai: blocks(
            fastai.ImageBlock, fastai.MultiCategoryBlock, get_y=lambda path: [path.parent.name]
        ),
        "takes photos and gives several labels a photo; this project is for one label a photo",
    ),
    "regression": (
        lambda fastai: blocks(
            fastai.ImageBlock, fastai.RegressionBlock(n_out=1), get_y=lambda path: len(path.name)
        ),
        r"gives numbers \(regression\)",
    ),
    "points": (
        lambda fastai: blocks(
            fastai.ImageBlock, fastai.PointBlock, get_y=lambda _: fastai.tensor([[1, 2]]), n_out=2
        ),
        "gives points",
    ),
    "segmentation": (
        lambda fastai: blocks(
            fastai.ImageBlock, fastai.MaskBlock(["a"]), get_y=lambda path: path, n_out=2
        ),
        r"gives masks \(segmentation\)",
    ),
    "photos to photos": (
        lambda fastai: blocks(
            fastai.ImageBlock,
            fastai.ImageBlock,
            get_y=lambda path: path,
            n_out=2,
            loss_func=fastai.MSELossFlat(),
        ),
        "gives photos",
    ),
    "a class of photos of the notebook": (
        lambda fastai: {
            "blocks": (
                fastai.ImageBlock(own(type("Scan", (fastai.PILImage,), {}))),
                fastai.CategoryBlock,
            )
        },
        "takes Scan of the notebook and gives labels",
    ),
    "a function on opened photos": (
        lambda fastai: opened_by(
            fastai, own(types.FunctionType((lambda x: x).__code__, {}, "crop_border"))
        ),
        "its transform crop_border of the notebook changes photos when they are opened",
    ),
    "a Transform on opened photos": (
        lambda fastai: opened_by(fastai, own(type("Enhance", (fastai.Transform,), {}))()),
        "its transform Enhance of the notebook changes photos when they are opened",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_an_unsupported_learner_is_refused_with_the_reason(fastai, photos, tmp_path, name):
    make, message = UNSUPPORTED[name]
    learn = learners.make_learner(photos, **make(fastai))
    with pytest.raises(UnsupportedLearnerError, match=message):
        read(learn, tmp_path)


def test_two_photos_are_refused(fastai, photos, tmp_path):
    with learners.quiet():
        loaders = fastai.DataBlock(
            blocks=(fastai.ImageBlock, fastai.ImageBlock, fastai.CategoryBlock),
            n_inp=2,
            get_items=fastai.get_image_files,
            get_x=[fastai.noop, fastai.noop],
            get_y=fastai.parent_label,
            item_tfms=fastai.Resize(64),
        ).dataloaders(photos, bs=4, num_workers=0)
        learn = fastai.Learner(loaders, fastai.nn.Linear(1, 1))
    with pytest.raises(UnsupportedLearnerError, match="takes photos and gives photos and labels"):
        read(learn, tmp_path)


def test_items_of_the_notebook_are_refused(fastai, tmp_path):
    pairs = own(type("SiameseTransform", (fastai.Transform,), {}))()
    with learners.quiet():
        lists = fastai.TfmdLists([fastai.tensor(0.0)] * 4, [pairs], splits=[[0, 1], [2, 3]])
        loaders = lists.dataloaders(bs=1, num_workers=0)
        learn = fastai.Learner(loaders, fastai.nn.Linear(1, 1), loss_func=fastai.noop)
    with pytest.raises(UnsupportedLearnerError, match="it takes TfmdLists; this project is"):
        read(learn, tmp_path)


def test_a_table_is_refused(fastai, tmp_path):
    import pandas as pd
    from fastai.tabular.all import Categorify, TabularDataLoaders, tabular_learner

    table = pd.DataFrame({"x": list("abab") * 4, "y": [0.0, 1.0] * 8})
    with learners.quiet():
        loaders = TabularDataLoaders.from_df(
            table, procs=[Categorify], cat_names=["x"], y_names="y"
        )
        learn = tabular_learner(loaders, path=tmp_path)
    with pytest.raises(UnsupportedLearnerError, match="it takes a table; this project"):
        read(learn, tmp_path)


def test_a_custom_layer_is_refused(photos, tmp_path, fastai):
    head = own(type("Head", (fastai.nn.Linear,), {}))
    learn = learners.make_learner(photos, custom_head=fastai.nn.Sequential(head(3, 3)))
    path = learners.export(learn, tmp_path)
    with pytest.raises(UnsupportedLearnerError, match="not a layer"):
        convert(path)


class Call:
    """Pickles as a call of os.system, wherever it is."""

    order = 0

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


INERT: dict[str, tuple[Callable[[Any, Call], None], str]] = {
    "a metric": (lambda learn, call: learn.metrics.append(call), "metric system of posix"),
    "a callback": (lambda learn, call: learn.cbs.append(call), "callback system of posix"),
    "the loss": (lambda learn, call: setattr(learn, "loss_func", call), "The loss system of posix"),
    "the logger": (lambda learn, call: setattr(learn, "logger", call), ""),
    "get_y": (
        lambda learn, call: setattr(learn.dls.valid_ds.tls[1].tfms[0], "encodes", call),
        "",
    ),
}


@pytest.mark.parametrize("name", INERT)
def test_a_call_that_no_prediction_needs_is_not_made(photos, tmp_path, name):
    place, said = INERT[name]
    learn, canary = learners.make_learner(photos), tmp_path / "canary"
    place(learn, Call(canary))
    learner = read(learn, tmp_path)
    assert learner.labels == ("blue", "green", "red")
    assert said in "\n".join(learner.left_out + learner.assumed)
    assert convert(tmp_path / "export.pkl").exists()
    assert not canary.exists()


REFUSED: dict[str, tuple[Callable[[Any, Call], None], str]] = {
    "the network": (
        lambda learn, call: setattr(learn, "model", call),
        "the network uses posix.system, which is not a layer",
    ),
    "a layer": (
        lambda learn, call: learn.model[1]._modules.update({"8": call}),
        "the network uses posix.system, which is not a layer",
    ),
    "a parameter": (
        lambda learn, call: learn.model[1][8]._parameters.update(weight=call),
        "the network is damaged",
    ),
    "a label": (
        lambda learn, call: learn.dls.vocab.items.append(call),
        "expected labels that are strings or numbers, got <posix.system>; let get_y",
    ),
    "an item transform": (
        lambda learn, call: learn.dls.valid.after_item.fs.append(call),
        "item transform system of posix",
    ),
    "a batch transform": (
        lambda learn, call: learn.dls.valid.after_batch.fs.append(call),
        "batch transform system of posix",
    ),
    "the mean": (
        lambda learn, call: setattr(learn.dls.valid.after_batch.fs[1], "mean", call),
        "expected a Normalize",
    ),
    "the loaders": (
        lambda learn, call: setattr(learn.dls, "loaders", call),
        "expected a list, got <posix.system>",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_call_that_a_prediction_needs_is_refused_and_not_made(photos, tmp_path, name):
    place, message = REFUSED[name]
    learn, canary = learners.make_learner(photos), tmp_path / "canary"
    place(learn, Call(canary))
    path = tmp_path / "export.pkl"
    with learners.quiet():  # as learn.export() does, which would use what is replaced
        torch.save(learn, path, pickle_module=cloudpickle)
    with pytest.raises(ConversionError, match=message):
        convert(path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["cbs", "dls", "model", "icon_classifier"])
@pytest.mark.parametrize("value", [None, 3, [], {"items": 3}, "x" * 300])
def test_invalid_parts_raise_conversion_errors(tiny_export, tmp_path, name, value):
    archive = open_archive(shutil.copy(tiny_export, tmp_path / "export.pkl"))
    archive.root.state[name] = value
    if (name, value) in [("icon_classifier", {"items": 3}), ("cbs", [])]:
        assert read_learner(archive).labels == ("blue", "green", "red")
    else:
        with pytest.raises(ConversionError):
            read_learner(archive)


@pytest.mark.slow
def test_shared_parts_of_the_notes_are_counted_each_time(tiny_export):
    archive = open_archive(tiny_export)
    notes: list[Any] = ["x"]
    for _ in range(40):
        notes = [notes, notes]
    archive.root.state["icon_classifier"] = {"figures": notes}
    with pytest.raises(UnsupportedLearnerError, match="at most 1,000,000 characters"):
        read_learner(archive)
