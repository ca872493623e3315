"""The photos of a recipe as fastai's DataLoaders, and Learners of them."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icon_classifier.dataset.recipes import Training
from icon_classifier.dataset.splits import split
from icon_classifier.dataset.store import photos_and_labels, valid_indices
from icon_classifier.errors import DatasetError
from icon_classifier.system.torch_setup import import_fastai
from icon_classifier.training.pretrained import Pretrained, check_architecture

import_fastai()

import torch  # noqa: E402
from fastai.data.block import CategoryBlock, DataBlock  # noqa: E402
from fastai.data.transforms import (  # noqa: E402
    FuncSplitter,
    Normalize,
    get_image_files,
    parent_label,
)
from fastai.layers import Flatten  # noqa: E402
from fastai.metrics import error_rate  # noqa: E402
from fastai.torch_core import set_seed  # noqa: E402
from fastai.vision.augment import RandomResizedCrop, Resize, aug_transforms  # noqa: E402
from fastai.vision.data import ImageBlock  # noqa: E402
from fastai.vision.learner import create_body, vision_learner  # noqa: E402
from torch import nn  # noqa: E402

_VALID_BATCH = 4
"""Photos per validation batch without a GPU, where larger batches only take more memory."""


@dataclass(frozen=True)
class Photos:
    """Photos to train on and to validate with.

    Attributes
    ----------
    folder : Path
        Holds one folder per class.
    paths, labels : list
        The photos, sorted, and the label of each.
    vocab : list of str
        The labels, sorted: the order of the network's outputs.
    groups : list of int
        Near-duplicates share a number.
    train, valid : list of int
        Indices of the photos of either side.
    """

    folder: Path
    paths: list[Path]
    labels: list[str]
    vocab: list[str]
    groups: list[int]
    train: list[int]
    valid: list[int]

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Index of each photo's label in the vocab, shape (N,)."""
        return np.array([self.vocab.index(label) for label in self.labels], np.int64)


def load_photos(folder: str | Path, training: Training, *, groups: Sequence[int]) -> Photos:
    """Find photos and split them, and refuse what cannot be trained on before any slow step.

    Parameters
    ----------
    folder : str or Path
        What ``gather`` returned: one folder per class.
    training : Training
        The share and the seed of the split; its architectures are checked as well.
    groups : sequence of int
        Groups of near-duplicates, as ``clean`` returns them.

    Raises
    ------
    DatasetError
        If the folder is missing, a class has no photos or there is only one class.
    RecipeError
        If an architecture is unknown.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}; gather photos first")
    check_architecture(training.architecture)
    check_architecture(training.offline_architecture)
    paths, labels = photos_and_labels(folder)
    classes = sorted(each.name for each in folder.iterdir() if each.is_dir())
    classes = [name for name in classes if not name.startswith(".")]
    if empty := sorted(set(classes) - set(labels)):
        raise DatasetError(f"no photos of {', '.join(empty)} in {folder}")
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise DatasetError(
            f"expected a folder for each of at least two classes in {folder}, got {found}"
        )
    valid = valid_indices(paths)
    sides = split(labels, groups, training.valid_share, training.seed, valid=valid)
    return Photos(folder, paths, labels, classes, list(groups), sides.train, sides.valid)


def data_loaders(
    photos: Photos, training: Training, pretrained: Pretrained, *, random_crop: bool = True
) -> Any:
    """Make fastai's DataLoaders with a DataBlock.

    With `random_crop` each epoch sees another part of every photo, as in a lesson. Without it
    photos are resized as the page resizes them.
    """
    valid = {photos.paths[index] for index in photos.valid}
    size = training.image_size or 224
    crop = RandomResizedCrop(size, min_scale=training.min_scale)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=photos.vocab)),
        # Sorted, since each machine lists the files of a folder in another order.
        get_items=lambda folder: sorted(set(get_image_files(folder)) & set(photos.paths)),
        # RandomSplitter, but with near-duplicates on one side.
        splitter=FuncSplitter(valid.__contains__),
        get_y=parent_label,
        item_tfms=crop if random_crop else Resize(size, method=training.resize or "crop"),
        batch_tfms=[
            *aug_transforms(),
            Normalize.from_stats(*map(torch.tensor, (pretrained.mean, pretrained.std)), cuda=False),
        ],
    )
    set_seed(training.seed, reproducible=True)
    # fastai drops a last batch that is not full: a few photos would be none.
    batch = min(training.batch_size, len(photos.train))
    with quiet():
        # Without worker processes a few hundred photos are read as fast, and in the same order.
        return block.dataloaders(
            photos.folder,
            bs=batch,
            val_bs=training.batch_size if torch.cuda.is_available() else _VALID_BATCH,
            num_workers=0,
        )


def linear_learner(photos: Photos, training: Training, pretrained: Pretrained) -> Any:
    """Make a Learner whose head is an average over the maps and one linear layer."""
    loaders = data_loaders(photos, training, pretrained, random_crop=False)
    sample = torch.zeros(1, 3, 64, 64)
    learn = make_learner(photos, training, pretrained, loaders, head=nn.Sequential(nn.Flatten()))
    body = learn.model[0].eval()
    with torch.inference_mode():
        width = body(sample.to(next(body.parameters()).device)).shape[1]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(width, len(photos.vocab)))
    return make_learner(photos, training, pretrained, loaders, head=head)


def make_learner(
    photos: Photos, training: Training, pretrained: Pretrained, loaders: Any, head: Any = None
) -> Any:
    """Make a Learner with a frozen pretrained body, and with fastai's own head if none is given."""
    set_seed(training.seed, reproducible=True)
    with quiet():
        learn = vision_learner(
            loaders,
            pretrained.architecture,
            pretrained=False,  # the weights are loaded below
            normalize=False,
            custom_head=head,
            metrics=[error_rate],
            wd=training.weight_decay,
            path=photos.folder.parent,
        )
    body = learn.model[0]
    weights = pretrained.network.state_dict()
    if isinstance(pretrained.architecture, str):
        body.model.load_state_dict({key: weights[key] for key in body.model.state_dict()})
    else:
        body.load_state_dict(_cut(pretrained).state_dict())
    learn.freeze()
    return learn


def _cut(pretrained: Pretrained) -> Any:
    """Cut the head off torchvision's network as vision_learner does."""
    from fastai.vision.learner import model_meta

    cut = model_meta.get(pretrained.architecture, {}).get("cut")
    return create_body(pretrained.network, 3, False, cut)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings that fastai itself causes with newer torch and pandas."""
    with warnings.catch_warnings():
        for category in (UserWarning, FutureWarning, DeprecationWarning):
            warnings.filterwarnings(
                "ignore", category=category, module=r"(fastai|torch|fastprogress)\b"
            )
        yield
