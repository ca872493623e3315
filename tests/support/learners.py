"""Small fastai Learners with random weights, exported with learn.export()."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icon_classifier.system.torch_setup import import_fastai

LABELS = ["blue", "green", "red"]
TINY = "test_efficientnet"
"""A network of timm with 0.4 million parameters, made for tests."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress fastai's warnings and progress bars."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def draw_photos(folder: Path) -> Path:
    """Write noisy pictures of three colours, in a folder for each."""
    random = np.random.default_rng(0)
    for channel, label in enumerate(reversed(LABELS)):
        (folder / label).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 128, (60 + 4 * i, 90 - 5 * i, 3))
            pixels[..., channel] += 100
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


def make_learner(photos: Path, arch: Any = TINY, **options: Any) -> Any:
    """Make a Learner as fastai's book does.

    Options
    -------
    item_tfms, batch_tfms, blocks, get_y
        For the DataBlock.
    epochs
        Number of epochs to train for; 0 by default.
    others
        For vision_learner.
    """
    import_fastai()
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        ImageBlock,
        Normalize,
        RandomSplitter,
        Resize,
        error_rate,
        get_image_files,
        imagenet_stats,
        parent_label,
        vision_learner,
    )

    batch = [Normalize.from_stats(*imagenet_stats)]
    data = {
        "blocks": options.pop("blocks", (ImageBlock, CategoryBlock)),
        "get_y": options.pop("get_y", parent_label),
        "item_tfms": options.pop("item_tfms", Resize(64)),
        "batch_tfms": options.pop("batch_tfms", batch),
    }
    epochs = options.pop("epochs", 0)
    options = {"metrics": error_rate, **options}
    with quiet():
        block = DataBlock(get_items=get_image_files, splitter=RandomSplitter(seed=1), **data)
        loaders = block.dataloaders(photos, bs=4, num_workers=0)
        learn = vision_learner(loaders, arch, pretrained=False, path=photos, **options)
        if epochs:
            with learn.no_bar():
                learn.fine_tune(epochs, base_lr=1e-5, freeze_epochs=0)
    return learn


def export(learn: Any, folder: Path) -> Path:
    """Export a Learner to export.pkl in a folder."""
    path = folder / "export.pkl"
    with quiet():
        learn.export(path)
    return path


def predict(export_pkl: Path, image: Image.Image) -> tuple[str, list[float]]:
    """Return label and probabilities as fastai predicts them."""
    return predict_all(export_pkl, [image])[0]


def predict_all(export_pkl: Path, images: list[Image.Image]) -> list[tuple[str, list[float]]]:
    """Return labels and probabilities of several pictures, each predicted alone."""
    import_fastai()
    from fastai.vision.all import PILImage, load_learner

    answers = []
    with quiet():
        learn = load_learner(export_pkl)
        with learn.no_bar(), learn.no_logging():
            for image in images:
                label, _, probabilities = learn.predict(PILImage.create(image))
                answers.append((str(label), probabilities.tolist()))
    return answers
