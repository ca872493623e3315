"""Learners that no page of this project can show; each must be refused in words."""

from __future__ import annotations

from typing import Any

from tests.support.exports.kinds import Kind, Notebook


def several_labels(nb: Notebook) -> Any:
    blocks = (nb.ImageBlock, nb.MultiCategoryBlock)
    dls = nb.block(blocks=blocks, get_y=lambda path: [path.parent.name, "photo"])
    return nb.cnn(dls, metrics=nb.accuracy_multi)


def several_labels_of_a_table(nb: Notebook) -> Any:
    dls = nb.load("from_df", nb.table, nb.photos, label_delim=" ", y_block=nb.MultiCategoryBlock)
    return nb.cnn(dls, metrics=nb.accuracy_multi)


def number(nb: Notebook) -> Any:
    dls = nb.block(blocks=(nb.ImageBlock, nb.RegressionBlock), get_y=lambda path: float(path.stem))
    return nb.cnn(dls, metrics=nb.mse, y_range=(0, 6))


def points(nb: Notebook) -> Any:
    dls = nb.block(
        blocks=(nb.ImageBlock, nb.PointBlock), get_y=lambda path: nb.tensor([[10.0, 10.0]])
    )
    return nb.cnn(dls, metrics=nb.mse)


def boxes(nb: Notebook) -> Any:
    dls = nb.block(
        blocks=(nb.ImageBlock, nb.BBoxBlock, nb.BBoxLblBlock),
        get_y=[lambda path: [[1, 1, 9, 9]], lambda path: [path.parent.name]],
        n_inp=1,
    )
    return nb.Learner(dls, nb.nn.Sequential(nb.nn.Linear(4, 4)), loss_func=nb.MSELossFlat())


def masks(nb: Notebook) -> Any:
    dls = nb.block(
        blocks=(nb.ImageBlock, nb.MaskBlock(codes=["sky", "ground"])),
        get_y=lambda path: nb.PILMask.create(path),
        batch_tfms=None,
    )
    net = nb.nn.Sequential(nb.ConvLayer(3, 8), nb.nn.Conv2d(8, 2, 1))
    return nb.Learner(dls, net, loss_func=nb.CrossEntropyLossFlat(axis=1))


def two_photos(nb: Notebook) -> Any:
    dls = nb.block(
        blocks=(nb.ImageBlock, nb.ImageBlock, nb.CategoryBlock),
        getters=[nb.noop, nb.noop, nb.parent_label],
        get_y=None,
        n_inp=2,
    )
    return nb.Learner(
        dls, nb.nn.Sequential(nb.nn.Linear(4, 4)), loss_func=nb.CrossEntropyLossFlat()
    )


def photo_and_number(nb: Notebook) -> Any:
    dls = nb.block(
        blocks=(nb.ImageBlock, nb.CategoryBlock, nb.RegressionBlock),
        getters=[nb.noop, nb.parent_label, lambda path: float(path.stem)],
        get_y=None,
        n_inp=1,
    )
    return nb.Learner(
        dls, nb.nn.Sequential(nb.nn.Linear(4, 4)), loss_func=nb.CrossEntropyLossFlat()
    )


def text(nb: Notebook) -> Any:
    from fastai.text.all import (
        AWD_LSTM,
        TextDataLoaders,
        awd_lstm_clas_config,
        text_classifier_learner,
    )

    rows = nb.table.assign(text=["a small text"] * len(nb.table))
    dls = TextDataLoaders.from_df(
        rows, nb.photos, text_col="text", label_col="label", bs=4, num_workers=0
    )
    config = {**awd_lstm_clas_config, "emb_sz": 4, "n_hid": 4, "n_layers": 1}
    return text_classifier_learner(dls, AWD_LSTM, config=config, pretrained=False)


def tabular(nb: Notebook) -> Any:
    from fastai.tabular.all import Categorify, TabularDataLoaders, tabular_learner

    dls = TabularDataLoaders.from_df(
        nb.table, procs=[Categorify], cont_names=["number"], y_names="label", bs=4, num_workers=0
    )
    return tabular_learner(dls, layers=[4])


def collaborative(nb: Notebook) -> Any:
    from fastai.collab import CollabDataLoaders, collab_learner

    dls = CollabDataLoaders.from_df(
        nb.table, user_name="name", item_name="label", rating_name="number", bs=4, num_workers=0
    )
    return collab_learner(dls, n_factors=2)


def opened_by_a_function(nb: Notebook) -> Any:
    files = nb.get_image_files(nb.photos)
    steps = [[nb.opened_darker], [nb.parent_label, nb.Categorize()]]
    dls = nb.Datasets(files, steps, splits=nb.RandomSplitter(seed=1)(files)).dataloaders(
        after_item=[nb.Resize(64), nb.ToTensor()], after_batch=[nb.IntToFloatTensor()], bs=4
    )
    return nb.cnn(dls)


def older_levit(nb: Notebook) -> Any:
    """Return a Learner of a layer that timm had in 2022 and has no longer."""
    from timm.models import levit

    name, module = "Residual", levit.__name__
    layer = type(name, (nb.nn.Sequential,), {"__module__": module, "__qualname__": name})
    setattr(levit, name, layer)  # where the pickle of the Learner refers to it
    net = nb.plain().model
    learn = nb.plain(layer(*net))
    learn.arch = "levit_128s"
    return learn


def tensors(nb: Notebook) -> Any:
    dls = nb.DataBlock(
        (nb.TransformBlock, nb.CategoryBlock),
        get_items=lambda _: range(8),
        get_x=lambda i: nb.TensorImage(nb.torch.zeros(3, 8, 8)),
        get_y=lambda i: i % 3,
    ).dataloaders(0, bs=2, num_workers=0)
    return nb.Learner(dls, nb.plain().model, loss_func=nb.CrossEntropyLossFlat())


def label_missing(nb: Notebook) -> Any:
    block = nb.CategoryBlock(sort=False)
    return nb.cnn(nb.block(blocks=(nb.ImageBlock, block), get_y=lambda _: None))


def with_item(nb: Notebook, *transforms: Any) -> Any:
    return nb.cnn(nb.block(item_tfms=[nb.Resize(64), *transforms]))


REFUSED: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "several labels": (several_labels, ("several labels",)),
    "several labels of a table": (several_labels_of_a_table, ("several labels",)),
    "a number": (number, ("number",)),
    "points": (points, ("points",)),
    "boxes": (boxes, ("boxes",)),
    "masks": (masks, ("segmentation",)),
    "two photos": (two_photos, ("photos and labels", "one label a photo")),
    "two answers": (photo_and_number, ("one label",)),
    "text": (text, ("text",)),
    "tabular": (tabular, ("table",)),
    "collaborative": (collaborative, ("table",)),
    "tensors": (tensors, ("tensors of pixels",)),
    "a label that is missing": (label_missing, ("labels that are strings or numbers, got None",)),
    "own network": (lambda nb: nb.plain(nb.OwnNet()), ("OwnNet", "network")),
    "own layer": (
        lambda nb: nb.plain(nb.nn.Sequential(nb.OwnNet(), nb.nn.Identity())),
        ("OwnNet", "network"),
    ),
    "network of an older timm": (
        older_levit,
        ("levit_128s", "timm.models.levit.Residual", "pip install --upgrade timm", "export"),
    ),
    "transform for training and validation": (
        lambda nb: with_item(nb, nb.BothSidesTransform(nb.Mirror(), nb.Mirror())),
        ("BothSidesTransform", "split_idx"),
    ),
    "photos opened by an own function": (opened_by_a_function, ("opened_darker",)),
    "photos of an own class that changes them": (
        lambda nb: nb.cnn(
            nb.block(blocks=(nb.ImageBlock(cls=nb.PILImageDarker), nb.CategoryBlock))
        ),
        ("PILImageDarker",),
    ),
    "one output for three labels": (
        lambda nb: nb.cnn(n_out=1, loss_func=nb.BCEWithLogitsLossFlat()),
        ("1", "3"),
    ),
    "RatioResize": (
        lambda nb: nb.cnn(nb.block(item_tfms=[nb.RatioResize(100), nb.Resize(64)])),
        ("RatioResize", "use Resize"),
    ),
    "own item transform": (lambda nb: with_item(nb, nb.Contrast()), ("Contrast", "split_idx")),
    "own function": (lambda nb: with_item(nb, nb.swapped), ("swapped", "split_idx")),
    "own transform of pairs": (
        lambda nb: with_item(nb, nb.DarkPairTransform()),
        ("DarkPairTransform", "split_idx"),
    ),
    "own batch transform": (
        lambda nb: nb.cnn(nb.block(batch_tfms=[nb.Brighter(), nb.normalize()])),
        ("Brighter", "split_idx"),
    ),
}
"""Kinds, with words that the sentence of the refusal must contain."""
