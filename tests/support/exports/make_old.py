"""Export Learners by an older fastai, and record what that version itself answers.

Run as a script, by the Python, fastai and torch of that time, with the names of some kinds:

    pip install fastai==2.2.5 torch==1.7.1 torchvision==0.8.2 "pillow<8.3" "numpy<1.22"
    python tests/support/exports/make_old.py from_name_re own_loss

``old/2.2.5-own_loss.pkl`` is written, and its labels and the probabilities of each picture in
``old/`` are added to ``old/answers.json``. It needs nothing else of the project.

The files were made with torch 1.6 (fastai 2.0), 1.7.1 (2.1 to 2.3), 1.11 (2.5 and 2.6), 1.12.1
(2.7.12) and 2.13 (2.7.19 and later); with timm 0.5.4 and 0.6.13; and with plum-dispatch 2.5.7 and
2.6.0 (2.8).
"""

import importlib
import json
import pathlib
import pickle
import sys
import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import fastai
import numpy as np
import pandas as pd
import PIL
import torch
from fastai.callback.mixup import MixUp
from fastai.vision import all as vision
from fastai.vision.all import (
    AdaptiveConcatPool2d,
    Callback,
    CategoryBlock,
    CohenKappa,
    ConvLayer,
    CrossEntropyLossFlat,
    DataBlock,
    DisplayedTransform,
    EarlyStoppingCallback,
    F1Score,
    Flatten,
    ImageBlock,
    ImageDataLoaders,
    LabelSmoothingCrossEntropy,
    Learner,
    Normalize,
    PILImage,
    PILImageBW,
    Precision,
    RandomSplitter,
    ReduceLROnPlateau,
    ResBlock,
    Resize,
    SaveModelCallback,
    accuracy,
    aug_transforms,
    error_rate,
    get_image_files,
    imagenet_stats,
    load_learner,
    params,
    parent_label,
    ranger,
)
from tiny import tiny_resnet  # beside this script
from torch import nn
from torch.nn import functional

OLD = Path(__file__).with_name("old")
PHOTOS = Path(tempfile.mkdtemp())


# The cells of a notebook


def is_cat(name):
    return name[0].isupper()


def folder_of(path):
    return Path(path).parent.name


def share_right(inp, targ):
    return (inp.argmax(-1) == targ).float().mean()


def halves(model):
    return [params(model[0]), params(model[1])]


class Focal(nn.Module):
    def forward(self, inp, targ):
        loss = functional.cross_entropy(inp, targ.long(), reduction="none")
        return ((1 - torch.exp(-loss)) ** 2 * loss).mean()


class Counter(Callback):
    def after_batch(self):
        self.learn.batches_seen = getattr(self.learn, "batches_seen", 0) + 1


class AlbumentationsTransform(DisplayedTransform):
    split_idx, order = 0, 2

    def __init__(self, train_aug):
        self.train_aug = train_aug

    def encodes(self, img: PILImage):
        return PILImage.create(self.train_aug(np.array(img)))


def mirror(pixels):
    return pixels[:, ::-1].copy()


# What the kinds have in common


def draw_photos():
    """Write noisy photos of three colours: in folders for each, and in one folder by name."""
    noise = np.random.RandomState(0)
    for channel, label in enumerate(["red", "green", "blue"]):
        (PHOTOS / "folders" / label).mkdir(parents=True)
        (PHOTOS / "names").mkdir(exist_ok=True)
        for i in range(6):
            pixels = noise.randint(0, 128, (60 + 4 * i, 90 - 5 * i, 3))
            pixels[..., channel] += 100
            photo = PIL.Image.fromarray(pixels.astype(np.uint8))
            photo.save(PHOTOS / "folders" / label / f"{i}.png")
            photo.save(PHOTOS / "names" / f"{label if channel else 'Maine_Coon'}_{i}.png")


def normalize():
    return Normalize.from_stats(*imagenet_stats)


def load(method, *args, **options):
    options = {"item_tfms": Resize(48), "batch_tfms": normalize(), **options}
    factory = getattr(ImageDataLoaders, method)
    return factory(*args, valid_pct=0.2, seed=42, bs=4, num_workers=0, **options)


def block(**options):
    options = {
        "blocks": (ImageBlock, CategoryBlock),
        "get_items": get_image_files,
        "get_y": folder_of,
        "splitter": RandomSplitter(seed=42),
        "item_tfms": Resize(48),
        "batch_tfms": [*aug_transforms(), normalize()],
        **options,
    }
    return DataBlock(**options).dataloaders(PHOTOS / "folders", bs=4, num_workers=0)


def cnn(dls, **options):
    options = {"metrics": error_rate, "pretrained": False, "cut": -2, **options}
    make = getattr(vision, "vision_learner", None) or vision.cnn_learner  # until 2.6
    try:
        return make(dls, tiny_resnet, lin_ftrs=[8], **options)
    except TypeError:  # fastai 2.0 to 2.3
        return make(dls, tiny_resnet, config=vision.cnn_config(lin_ftrs=[8]), **options)


# The kinds


def from_folder():
    return cnn(load("from_folder", PHOTOS / "folders"))


def from_name_func():
    names = PHOTOS / "names"
    return cnn(load("from_name_func", names, get_image_files(names), label_func=is_cat))


def from_name_re():
    presized = {
        "item_tfms": Resize(72),
        "batch_tfms": [*aug_transforms(size=48, min_scale=0.75), normalize()],
    }
    names = PHOTOS / "names"
    return cnn(load("from_name_re", names, get_image_files(names), r"(.+)_\d+.png$", **presized))


def from_df():
    paths = sorted((PHOTOS / "folders").glob("*/*.png"))
    rows = [(f"{path.parent.name}/{path.name}", path.parent.name) for path in paths]
    table = pd.DataFrame(rows, columns=["name", "label"])
    return cnn(load("from_df", table, PHOTOS / "folders"))


def rectangles():
    batch = [*aug_transforms(size=(64, 48), min_scale=0.75), normalize()]
    return cnn(block(item_tfms=Resize((96, 72)), batch_tfms=batch))


def own_loss():
    return cnn(block(), loss_func=Focal(), metrics=share_right, cbs=Counter(), splitter=halves)


def mixup():
    return cnn(block(), loss_func=LabelSmoothingCrossEntropy(), cbs=MixUp(), opt_func=ranger)


def metrics():
    callbacks = [SaveModelCallback(), EarlyStoppingCallback(), ReduceLROnPlateau()]
    scores = [
        F1Score(average="macro"),
        Precision(average="macro"),
        CohenKappa(weights="quadratic"),
        accuracy,
    ]
    return cnn(block(), metrics=scores, cbs=callbacks, opt_func=partial(ranger, wd=0.1))


def albumentations():
    return cnn(block(item_tfms=[Resize(48), AlbumentationsTransform(mirror)]))


def grey():
    blocks = (ImageBlock(cls=PILImageBW), CategoryBlock)
    dls = block(blocks=blocks, item_tfms=Resize(32), batch_tfms=None, get_y=parent_label)
    layers = [ConvLayer(1, 8, stride=2), AdaptiveConcatPool2d(1), Flatten(), nn.Linear(16, 3)]
    return Learner(dls, nn.Sequential(*layers), loss_func=functional.cross_entropy)


def xresnet():
    from fastai.vision.models.xresnet import XResNet

    net = XResNet(ResBlock, 1, [1, 1], n_out=3, stem_szs=(4, 4, 64), widen=0.0625)
    net[-1] = nn.Linear(8, 3)
    return Learner(block(), net, loss_func=CrossEntropyLossFlat(), metrics=accuracy).to_fp16()


def convnext():
    from timm.models.convnext import ConvNeXt

    net = ConvNeXt(num_classes=3, depths=(1, 1, 1, 1), dims=(4, 8, 8, 8))
    return Learner(block(), net, loss_func=nn.CrossEntropyLoss(), metrics=accuracy)


def timm_resnet():
    from timm.models.resnet import BasicBlock as TimmBlock

    halve = nn.Sequential(nn.AvgPool2d(2, 2), nn.Conv2d(8, 12, 1))
    layers = [ConvLayer(3, 8, stride=2), TimmBlock(8, 8), TimmBlock(8, 12, 2, halve)]
    head = [nn.AdaptiveAvgPool2d(1), Flatten(), nn.Linear(12, 3)]
    return Learner(block(), nn.Sequential(*layers, *head), loss_func=CrossEntropyLossFlat())


def cloudpickle():
    return cnn(block(get_y=lambda path: path.parent.name))


dill = cloudpickle
plain_pickle = before_torch_1_6 = gpu = python_3_13 = from_folder


# Exporting


def _plain(save, learn, file, **_):
    if not isinstance(learn, Learner):  # torch itself saves each tensor by torch.save
        return save(learn, file, **_)
    with Path(file).open("wb") as opened:
        return pickle.dump(learn, opened, protocol=4)


def _by_value(module, save, learn, file, **_):
    return save(learn, file, pickle_module=importlib.import_module(module))


def _before_torch_1_6(save, learn, file, **_):
    return save(learn, file, _use_new_zipfile_serialization=False)


SAVE = {
    "plain_pickle": _plain,
    "cloudpickle": partial(_by_value, "cloudpickle"),
    "dill": partial(_by_value, "dill"),
    "before_torch_1_6": _before_torch_1_6,
}


def export(kind, learn, path):
    """Export a Learner as a notebook of the kind would."""
    save = torch.save
    learn.path = Path()
    if kind == "gpu":  # as if its tensors were on one
        torch.serialization.register_package(0, lambda _: "cuda:0", lambda *_: None)
    if kind == "python_3_13":
        sys.modules["pathlib._local"] = pathlib
        for name in ("PosixPath", "WindowsPath"):
            getattr(pathlib, name).__module__ = "pathlib._local"
    if kind in SAVE:
        save = partial(SAVE[kind], save)
    with mock.patch("torch.save", save):
        learn.export(path.absolute())


def probabilities(learn, picture):
    """Return the softmax of the network's outputs for a picture, as the version itself reads it."""
    batch = learn.dls.test_dl([picture], num_workers=0).one_batch()[0]
    with torch.no_grad():
        outputs = learn.model.float().eval()(torch.tensor(batch.cpu().numpy()).float())
    return [round(each, 7) for each in outputs[0].double().softmax(-1).tolist()]


def main(kinds):
    torch.set_num_threads(1)
    draw_photos()
    answers = OLD / "answers.json"
    recorded = json.loads(answers.read_text()) if answers.exists() else {}
    for kind in kinds:
        torch.manual_seed(0)
        learn = globals()[kind]()
        with learn.no_bar(), learn.no_logging():
            learn.fit_one_cycle(4, 0.01)
        path = OLD / f"{fastai.__version__}-{kind}.pkl"
        export(kind, learn, path)
        if kind not in (*SAVE, "gpu"):
            learn = load_learner(path)
        recorded[path.name] = {
            "labels": [str(label) for label in learn.dls.vocab],
            "pictures": {
                picture.name: probabilities(learn, picture)
                for picture in sorted([*OLD.glob("*.png"), *OLD.glob("*.jpg")])
            },
        }
        print(path.name, path.stat().st_size, recorded[path.name])
    answers.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
