"""Fine-tune as a lesson does: find a learning rate, train the head, then everything."""

from dataclasses import replace
from typing import Any

import torch

from icon_classifier.dataset.recipes import Training
from icon_classifier.system.memory import keep_freed
from icon_classifier.system.torch_setup import import_fastai
from icon_classifier.training.learners import Photos, data_loaders, make_learner, quiet
from icon_classifier.training.pretrained import Pretrained, load_pretrained

import_fastai()

from fastai.callback.tracker import SaveModelCallback  # noqa: E402
from fastai.torch_core import set_seed  # noqa: E402

_RATE = 2e-3
"""Learning rate where none is given: that of fastai's ``fine_tune``."""

_FINDER_STEPS = 60
"""Batches of ``lr_find``. fastai's 100 take minutes without a GPU and lead to the same result."""

_BATCH, _SIDE = 4, 224
"""Photos in a batch without a GPU, at that size in pixels: each takes 110 MB."""


def plain_learner(photos: Photos, training: Training, pretrained: Pretrained | None = None) -> Any:
    """Make the Learner of a lesson: a pretrained body and a fresh head, in half precision on a GPU.

    Without a GPU batches are smaller. The best epoch is kept as ``models/best.pth``.
    """
    if not torch.cuda.is_available():
        side = training.image_size or _SIDE
        most = max(_BATCH, _BATCH * _SIDE**2 // side**2)
        training = replace(training, batch_size=min(training.batch_size, most))
        keep_freed()  # before the first batch
    chosen = pretrained or load_pretrained(training.architecture, training.offline_architecture)
    learn = make_learner(photos, training, chosen, data_loaders(photos, training, chosen))
    return learn.to_fp16() if training.fp16 and torch.cuda.is_available() else learn


def find_rate(learn: Any, *, show_plot: bool = True) -> float:
    """Run ``lr_find``, show its plot and return the learning rate that it suggests.

    It stops where the loss is four times the lowest; in small batches that may be the second one.
    """
    with quiet():
        try:
            return float(learn.lr_find(num_it=_FINDER_STEPS, show_plot=show_plot).valley)
        except IndexError:  # too few losses to find a valley in
            print(f"lr_find stopped too early to suggest a learning rate; {_RATE} is used.")
            return _RATE


def train_plain(learn: Any, training: Training, rate: float | None = None) -> Any:
    """Train as a lesson does, with ``fine_tune``; the best epoch is kept."""
    rate = rate or training.learning_rate or _RATE
    set_seed(training.seed, reproducible=True)
    with quiet():
        learn.fine_tune(
            training.epochs,
            rate,
            freeze_epochs=training.frozen_epochs,
            cbs=SaveModelCallback(monitor="valid_loss", fname="best"),
        )
    return learn
