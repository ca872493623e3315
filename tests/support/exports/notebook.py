"""What people define in a notebook before they train: run in ``__main__``, as a notebook is.

fastai pickles these by reference (``__main__.is_cat``) or, through cloudpickle, by value.
"""

from pathlib import Path

import numpy as np
import pandas as pd  # noqa: F401
import torch
from fastai.vision.all import (
    Callback,
    ConvLayer,
    DisplayedTransform,
    Flatten,
    ItemTransform,
    Learner,
    Module,
    PILImage,
    RandTransform,
    ResBlock,
    TensorImage,
    Transform,
    params,
)
from fastai.vision.models.xresnet import XResNet
from sklearn.metrics import zero_one_loss  # noqa: F401
from torch import nn
from torch.nn import functional

from tests.support.exports.tiny import tiny_resnet  # noqa: F401


def is_cat(name):
    return name[0].isupper()


def folder_of(path):
    return Path(path).parent.name


def label_of(row):
    return row["label"]


def path_of(row):
    return Path(row["folder"]) / row["name"]


def share_right(inp, targ):
    return (inp.argmax(-1) == targ).float().mean()


def halves(model):
    return [params(model[0]), params(model[1])]


class Focal(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, inp, targ):
        loss = functional.cross_entropy(inp, targ.long(), reduction="none")
        return ((1 - torch.exp(-loss)) ** self.gamma * loss).mean()


class Smooth(Module):
    """A loss with fastai's own additions: what `Learner.predict` applies and decodes."""

    y_int = True

    def forward(self, inp, targ):
        return functional.cross_entropy(inp, targ.long(), label_smoothing=0.1)

    def activation(self, out):
        return functional.softmax(out, dim=-1)

    def decodes(self, out):
        return out.argmax(dim=-1)


def smooth_loss(inp, targ):
    return functional.cross_entropy(inp, targ, label_smoothing=0.1)


class Counter(Callback):
    def __init__(self):
        self.batches = 0

    def after_batch(self):
        self.batches += 1


class Mirror:
    """Stand in for a library of augmentations: called with an image, returns a dict of one."""

    def __call__(self, image):
        return {"image": image[:, ::-1].copy()}


class AlbumentationsTransform(DisplayedTransform):
    """As fastai's documentation wraps such a library: training only."""

    split_idx, order = 0, 2

    def __init__(self, train_aug):
        self.train_aug = train_aug

    def encodes(self, img: PILImage):
        return PILImage.create(self.train_aug(image=np.array(img))["image"])


class BothSidesTransform(RandTransform):
    """As the documentation's second example: other augmentations for validation."""

    split_idx, order = None, 2

    def __init__(self, train_aug, valid_aug):
        super().__init__()
        self.train_aug, self.valid_aug = train_aug, valid_aug

    def before_call(self, b, split_idx):
        self.idx = split_idx

    def encodes(self, img: PILImage):
        aug = self.valid_aug if self.idx else self.train_aug
        return PILImage.create(aug(image=np.array(img))["image"])


class OwnLearner(Learner):
    def summary_of_mine(self):
        return len(self.dls.vocab)


def opened_darker(path):
    return PILImage.create(np.array(PILImage.create(path)) // 2)


class PILImageDarker(PILImage):
    @classmethod
    def create(cls, fn, **kwargs):
        return super().create(np.array(PILImage.create(fn)) // 2)


class Contrast(Transform):
    def encodes(self, img: PILImage):
        return PILImage.create(np.array(img) // 2)


class Brighter(Transform):
    def encodes(self, batch: TensorImage):
        return batch * 1.1


class DarkPairTransform(ItemTransform):
    def encodes(self, pair):
        return (PILImage.create(np.array(pair[0]) // 2), *pair[1:])


def swapped(img: PILImage):
    return PILImage.create(np.array(img)[..., ::-1])


class OwnNet(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.layers = nn.Sequential(ConvLayer(3, 8, stride=4), nn.AdaptiveAvgPool2d(1), Flatten())
        self.out = nn.Linear(8, classes)

    def forward(self, batch):
        return self.out(self.layers(batch))


def tiny_xresnet(pretrained=False, **options):
    sizes = {"stem_szs": (8, 8, 64), "widen": 0.125, "n_out": 3}
    return XResNet(ResBlock, 1, [1, 1, 1, 1], **sizes, **options)
