"""Learners of every kind that notebooks of fastai make; each must convert and answer alike.

A kind is a function that gets the :class:`Notebook` and returns a Learner, untrained and tiny.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from icon_classifier.system.torch_setup import import_fastai
from tests.support import learners

OLD = Path(__file__).with_name("old")
"""Exports of older versions of fastai, pictures, and what those versions answered to them."""
PICTURES = [OLD / "shapes.png", OLD / "blobs.png"]
"""A wide picture that is larger than what a network sees, and a tall one of soft colours."""

Kind = Callable[["Notebook"], Any]


class Notebook:
    """The names that a notebook has after its first cells, and photos to train on.

    Attributes are those of ``fastai.vision.all`` and what ``notebook.py`` defines in ``__main__``.
    """

    def __init__(self, folder: Path) -> None:
        import_fastai()
        import fastai.vision.all

        self._fastai, self._main = fastai.vision.all, sys.modules["__main__"]
        source = Path(__file__).with_name("notebook.py")
        exec(compile(source.read_bytes(), source, "exec"), vars(self._main))
        self.photos = learners.draw_photos(folder / "photos")
        self.named, self.split = folder / "named", folder / "split"
        self.same_size = folder / "same_size"
        self.named.mkdir()
        rows = []
        for path in sorted(self.photos.glob("*/*.png")):
            label = path.parent.name
            named = "Maine_Coon" if label == "red" else f"{label}_hound"
            shutil.copy(path, self.named / f"{named}_{path.name}")
            part = "valid" if path.stem == "0" else "train"
            for target in (self.split / part / label, self.same_size / label):
                target.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, self.split / part / label)
            Image.open(path).resize((64, 64)).save(self.same_size / label / path.name)
            rows.append((f"{label}/{path.name}", label, ["blue", "green", "red"].index(label)))
        self.table = self.pd.DataFrame(rows, columns=["name", "label", "number"])
        self.table["folder"] = str(self.photos)
        self.table["stem"] = self.table["name"].str.removesuffix(".png")
        self.table["is_valid"] = self.table["name"].str.endswith("0.png")
        self.table.to_csv(self.photos / "labels.csv", index=False)

    def __getattr__(self, name: str) -> Any:
        main = self.__dict__["_main"]
        return getattr(main if hasattr(main, name) else self.__dict__["_fastai"], name)

    def label_of_an_own_module(self) -> Any:
        """Return a label function that the notebook imported from a file beside it."""
        module = sys.modules.setdefault("my_utils", ModuleType("my_utils"))
        exec("def folder_of(path):\n    return path.parent.name", vars(module))
        return module.folder_of

    def normalize(self) -> Any:
        return self.Normalize.from_stats(*self.imagenet_stats)

    def load(self, method: str, *args: Any, **options: Any) -> Any:
        """Return the DataLoaders of a factory method of ImageDataLoaders."""
        options = {"item_tfms": self.Resize(64), "batch_tfms": self.normalize(), **options}
        factory = getattr(self.ImageDataLoaders, method)
        return factory(*args, seed=42, bs=4, num_workers=0, **options)

    def block(self, source: Any = None, **options: Any) -> Any:
        """Return the DataLoaders of a DataBlock of the photos, labelled by their folders."""
        options = {
            "blocks": (self.ImageBlock, self.CategoryBlock),
            "splitter": self.RandomSplitter(seed=42),
            "get_items": None if source is not None else self.get_image_files,
            "get_y": self.parent_label,
            "item_tfms": self.Resize(64),
            "batch_tfms": [*self.aug_transforms(), self.normalize()],
            **options,
        }
        data = self.DataBlock(**options)
        return data.dataloaders(self.photos if source is None else source, bs=4, num_workers=0)

    @cached_property
    def loaders(self) -> Any:
        """The DataLoaders of Learners that differ in something else."""
        return self.block()

    def cnn(self, dls: Any = None, arch: Any = None, **options: Any) -> Any:
        """Return a vision_learner with a small network in the form of a resnet."""
        if arch is None:
            arch, options = self.tiny_resnet, {"cut": -2, "lin_ftrs": [8], **options}
        options = {"metrics": self.error_rate, "pretrained": False, **options}
        learn = self.vision_learner(dls or self.loaders, arch, path=self.photos, **options)
        return _with_contrast(learn)

    def plain(self, net: Any = None, dls: Any = None, **options: Any) -> Any:
        """Return a Learner of a network that the notebook itself put together."""
        if net is None:
            net = self.nn.Sequential(
                self.ConvLayer(3, 8, stride=2), self.nn.AdaptiveAvgPool2d(1), self.Flatten()
            )
            net.append(self.nn.Linear(8, 3))
        return _with_contrast(self.Learner(dls or self.loaders, net, path=self.photos, **options))


def _with_contrast(learn: Any) -> Any:
    """Scale and shift the last layer, so that the test pictures get differing probabilities."""
    import torch

    net = learn.model.eval()
    loader = learn.dls.test_dl(PICTURES, bs=1, num_workers=0)
    wide, tall = (torch.tensor(net(batch[0])[0].tolist()) for batch in loader)
    last = [module for module in net.modules() if hasattr(module, "weight")][-1]
    bias = 0 if last.bias is None else last.bias.data
    spread = (wide - tall).std()
    last.weight.data /= spread
    last.bias = torch.nn.Parameter((bias - (wide + tall) / 2) / spread)
    return learn


# How the photos are found and labelled


def from_lists(nb: Notebook) -> Any:
    files = nb.get_image_files(nb.photos)
    return nb.load("from_lists", nb.photos, files, [path.parent.name for path in files])


def from_path_re(nb: Notebook) -> Any:
    files = nb.get_image_files(nb.photos)
    return nb.load("from_path_re", nb.photos, files, pat=r".*/(\w+)/\d+.png$")


def datasets(nb: Notebook) -> Any:
    files = nb.get_image_files(nb.photos)
    steps = [[nb.PILImage.create], [nb.parent_label, nb.Categorize()]]
    return nb.Datasets(files, steps, splits=nb.RandomSplitter(seed=1)(files)).dataloaders(
        after_item=[nb.Resize(64), nb.ToTensor()],
        after_batch=[nb.IntToFloatTensor(), nb.normalize()],
        bs=4,
        num_workers=0,
    )


def three_sets(nb: Notebook) -> Any:
    files = nb.get_image_files(nb.photos)
    steps = [[nb.PILImage.create], [nb.parent_label, nb.Categorize()]]
    splits = [range(12), range(12, 15), range(15, 18)]
    stages = {
        "after_item": [nb.Resize(64), nb.ToTensor()],
        "after_batch": nb.IntToFloatTensor(),
    }
    return nb.Datasets(files, steps, splits=[*map(list, splits)]).dataloaders(bs=4, **stages)


def from_two_loaders(nb: Notebook) -> Any:
    dls = nb.block()
    return nb.DataLoaders(*(loader.new(bs=2) for loader in dls.loaders))


def weighted(nb: Notebook) -> Any:
    files = nb.get_image_files(nb.photos)
    data = nb.DataBlock(
        (nb.ImageBlock, nb.CategoryBlock), get_y=nb.parent_label, item_tfms=nb.Resize(64)
    )
    return data.weighted_dataloaders(files, [1.0] * len(files), bs=4, num_workers=0)


def _named(nb: Notebook) -> tuple[Path, Any]:
    return nb.named, nb.get_image_files(nb.named)


DATA: dict[str, Kind] = {
    "from_folder": lambda nb: nb.load("from_folder", nb.photos, valid_pct=0.2),
    "from_folder with train and valid": lambda nb: nb.load("from_folder", nb.split),
    "from_folder with a vocab": lambda nb: nb.load(
        "from_folder", nb.photos, valid_pct=0.2, vocab=["red", "green", "blue"]
    ),
    "from_name_func is_cat": lambda nb: nb.load("from_name_func", *_named(nb), nb.is_cat),
    "from_name_func lambda": lambda nb: nb.load(
        "from_name_func", *_named(nb), lambda name: name.split("_")[0]
    ),
    "from_name_re": lambda nb: nb.load("from_name_re", *_named(nb), pat=r"(.+)_\d+.png$"),
    "from_path_func": lambda nb: nb.load(
        "from_path_func", nb.photos, nb.get_image_files(nb.photos), nb.folder_of
    ),
    "from_path_re": from_path_re,
    "from_lists": from_lists,
    "from_df": lambda nb: nb.load("from_df", nb.table, nb.photos),
    "from_df of numbers": lambda nb: nb.load("from_df", nb.table, nb.photos, label_col="number"),
    "from_csv": lambda nb: nb.load("from_csv", nb.photos, "labels.csv"),
    "from_csv with a folder": lambda nb: nb.load(
        "from_csv", nb.photos.parent, f"{nb.photos.name}/labels.csv", folder="photos"
    ),
    "DataBlock of a table": lambda nb: nb.block(nb.table, get_x=nb.path_of, get_y=nb.label_of),
    "DataBlock with ColReader": lambda nb: nb.block(
        nb.table, get_x=nb.ColReader("name", pref=f"{nb.photos}/"), get_y=nb.ColReader("label")
    ),
    "DataBlock with getters": lambda nb: nb.block(getters=[nb.noop, nb.parent_label], get_y=None),
    "DataBlock with n_inp": lambda nb: nb.block(n_inp=1),
    "DataBlock with lambda": lambda nb: nb.block(get_y=lambda path: path.parent.name),
    "DataBlock with RegexLabeller": lambda nb: nb.block(
        get_y=nb.using_attr(nb.RegexLabeller(r"^(.)"), "name")
    ),
    "DataBlock with Pipeline": lambda nb: nb.block(get_y=nb.Pipeline([nb.parent_label, str.upper])),
    "DataBlock with partial": lambda nb: nb.block(
        get_items=partial(nb.get_image_files, folders=["blue", "green", "red"])
    ),
    "GrandparentSplitter": lambda nb: nb.block(
        nb.split, get_items=nb.get_image_files, splitter=nb.GrandparentSplitter()
    ),
    "FuncSplitter": lambda nb: nb.block(splitter=nb.FuncSplitter(lambda path: path.stem == "0")),
    "TrainTestSplitter": lambda nb: nb.block(splitter=nb.TrainTestSplitter(random_state=1)),
    "IndexSplitter": lambda nb: nb.block(splitter=nb.IndexSplitter([0, 6, 12])),
    "CategoryBlock with a vocab": lambda nb: nb.block(
        blocks=(nb.ImageBlock, nb.CategoryBlock(vocab=["red", "blue", "green"]))
    ),
    "CategoryBlock unsorted with na": lambda nb: nb.block(
        blocks=(nb.ImageBlock, nb.CategoryBlock(sort=False, add_na=True))
    ),
    "labels of bool": lambda nb: nb.block(get_y=lambda path: path.parent.name == "red"),
    "labels of float": lambda nb: nb.block(get_y=lambda path: len(path.parent.name) / 2),
    "from_df with valid_col": lambda nb: nb.load(
        "from_df", nb.table, nb.photos, fn_col="stem", suff=".png", valid_col="is_valid"
    ),
    "label function of an own module": lambda nb: nb.block(get_y=nb.label_of_an_own_module()),
    "labels of numpy": lambda nb: nb.block(
        get_y=lambda path, kind=nb.np.str_: kind(path.parent.name)
    ),
    "Datasets": datasets,
    "Datasets of three sets": three_sets,
    "DataLoaders of loaders": from_two_loaders,
    "weighted_dataloaders": weighted,
}
"""Functions that return DataLoaders."""


# What a photo becomes: item transforms, and batch transforms that have a size

TRANSFORMS: dict[str, Callable[[Notebook], tuple[Any, Any]]] = {
    "squish": lambda nb: (nb.Resize(64, method="squish"), None),
    "pad zeros": lambda nb: (nb.Resize(64, nb.ResizeMethod.Pad, pad_mode="zeros"), None),
    "pad reflection": lambda nb: (nb.Resize((64, 48), method="pad"), None),
    "pad border": lambda nb: (nb.Resize((48, 64), "pad", pad_mode="border"), None),
    "crop of a rectangle": lambda nb: (nb.Resize((48, 72)), None),
    "RandomResizedCrop": lambda nb: (nb.RandomResizedCrop(64, min_scale=0.3), None),
    "RandomResizedCrop val_xtra": lambda nb: (nb.RandomResizedCrop((48, 64), val_xtra=0.3), None),
    "RandomResizedCrop min_scale 1": lambda nb: (nb.RandomResizedCrop(64, min_scale=1.0), None),
    "CropPad": lambda nb: (nb.CropPad(64), None),
    "CropPad larger than photos": lambda nb: (nb.CropPad((110, 300), pad_mode="zeros"), None),
    "Resize then RandomCrop": lambda nb: ([nb.Resize(80), nb.RandomCrop(64)], None),
    "Resize twice": lambda nb: ([nb.Resize(128), nb.Resize(64, method="squish")], None),
    "FlipItem and DihedralItem": lambda nb: (
        [nb.Resize(64), nb.FlipItem(), nb.DihedralItem()],
        None,
    ),
    "to_image and ToTensor": lambda nb: ([nb.Resize(64), nb.ToTensor()], None),
    "albumentations": lambda nb: (
        [nb.Resize(64), nb.AlbumentationsTransform(nb.Mirror())],
        None,
    ),
    "training only with a function": lambda nb: (
        [nb.Resize(64), nb.Transform(nb.swapped, split_idx=0)],
        None,
    ),
    "aug_transforms": lambda nb: (nb.Resize(64), nb.aug_transforms()),
    "aug_transforms mult": lambda nb: (nb.Resize(64), nb.aug_transforms(mult=2, flip_vert=True)),
    "every augmentation": lambda nb: (
        nb.Resize(64),
        [
            *(nb.Flip(), nb.Dihedral(), nb.Rotate(), nb.Zoom(), nb.Warp(), nb.Brightness()),
            *(nb.Saturation(), nb.Hue(), nb.RandomErasing()),
        ],
    ),
    "setup_aug_tfms": lambda nb: (nb.Resize(64), nb.setup_aug_tfms([nb.Flip(), nb.Rotate(30)])),
    "Normalize of CIFAR": lambda nb: (
        nb.Resize(64),
        [nb.Normalize.from_stats(*nb.cifar_stats)],
    ),
    "Normalize of half precision": lambda nb: (nb.Resize(64), [halved_statistics(nb)]),
    "Normalize of scalars": lambda nb: (
        nb.Resize(64),
        [nb.Normalize(nb.torch.tensor(0.5), nb.torch.tensor(0.25))],
    ),
    "Normalize of the data": lambda nb: (nb.Resize(64), [nb.Normalize()]),
}
"""Functions that return item transforms and batch transforms."""


def halved_statistics(nb: Notebook) -> Any:
    normalize = nb.normalize()
    normalize.mean, normalize.std = normalize.mean.half(), normalize.std.half()
    return normalize


PRESIZING: dict[str, Callable[[Notebook], tuple[Any, Any]]] = {
    "aug_transforms size": lambda nb: (nb.Resize(92), nb.aug_transforms(size=64)),
    "aug_transforms size min_scale": lambda nb: (
        nb.Resize(92),
        nb.aug_transforms(size=64, min_scale=0.75),
    ),
    "book": lambda nb: (
        nb.Resize(92),
        [*nb.aug_transforms(size=64, min_scale=0.75), nb.normalize()],
    ),
    "rectangles": lambda nb: (nb.Resize((96, 72)), nb.aug_transforms(size=(64, 48))),
    "rectangles min_scale": lambda nb: (
        nb.Resize((96, 72)),
        nb.aug_transforms(size=(64, 48), min_scale=0.75),
    ),
    "squish": lambda nb: (
        nb.Resize(92, method="squish"),
        nb.aug_transforms(size=(72, 56), min_scale=0.75),
    ),
    "flips only": lambda nb: (
        nb.Resize(92),
        nb.aug_transforms(size=64, do_flip=True, max_rotate=0, max_zoom=1, max_warp=0),
    ),
    "RandomResizedCropGPU": lambda nb: (nb.Resize(92), [nb.RandomResizedCropGPU(64)]),
    "larger than the item": lambda nb: (nb.Resize(48), nb.aug_transforms(size=64)),
    "Zoom with a size": lambda nb: (nb.Resize(92), [nb.Zoom(size=64), nb.Flip(size=64)]),
    "RandomResizedCrop first": lambda nb: (
        nb.RandomResizedCrop(92, min_scale=0.35),
        [*nb.aug_transforms(size=64, min_scale=0.75), nb.normalize()],
    ),
}
"""As TRANSFORMS; batches are resized too, which differs by rounding."""

# What only training uses


def every_metric(nb: Notebook) -> Any:
    metrics = [
        *(nb.accuracy, nb.error_rate, partial(nb.top_k_accuracy, k=2)),
        *(nb.share_right, nb.AvgMetric(nb.share_right), nb.AccumMetric(nb.share_right)),
        *(nb.F1Score(average="macro"), nb.FBeta(beta=2, average="weighted")),
        *(nb.Precision(average="micro"), nb.Recall(average="macro"), nb.RocAuc()),
        *(nb.BalancedAccuracy(), nb.CohenKappa(weights="quadratic"), nb.MatthewsCorrCoef()),
        *(nb.Jaccard(average="macro"), nb.HammingLoss(), nb.BrierScore()),
        *(nb.Perplexity(), nb.perplexity, nb.skm_to_fastai(nb.zero_one_loss)),
    ]
    return nb.cnn(metrics=metrics)


def every_callback(nb: Notebook) -> Any:
    callbacks = [
        *(nb.MixUp(0.4), nb.CutMix(), nb.ShowGraphCallback(), nb.CSVLogger()),
        nb.SaveModelCallback(monitor="error_rate", fname="best"),
        nb.EarlyStoppingCallback(monitor="valid_loss", patience=2),
        *(nb.ReduceLROnPlateau(patience=2), nb.GradientAccumulation(8), nb.GradientClip(0.1)),
        *(nb.MixedPrecision(), nb.ChannelsLast(), nb.BnFreeze(), nb.TerminateOnNaNCallback()),
        *(nb.ActivationStats(with_hist=True), nb.SkipToEpoch(0), nb.ShortEpochCallback(0.5)),
        *(nb.CollectDataCallback(), nb.GatherPredsCallback(), nb.Counter()),
        nb.Callback(after_batch=lambda self: None),
    ]
    return nb.cnn(cbs=callbacks)


TRAINING: dict[str, Kind] = {
    "every metric": every_metric,
    "one metric": lambda nb: nb.cnn(metrics=nb.RocAuc()),
    "no metric": lambda nb: nb.cnn(metrics=None),
    "every callback": every_callback,
    "one callback": lambda nb: nb.cnn(cbs=nb.MixUp()),
}

LOSSES: dict[str, Kind] = {
    "CrossEntropyLossFlat": lambda nb: nb.CrossEntropyLossFlat(),
    "CrossEntropyLossFlat weighted": lambda nb: nb.CrossEntropyLossFlat(
        weight=nb.tensor([1.0, 2.0, 3.0])
    ),
    "BCEWithLogitsLossFlat": lambda nb: nb.BCEWithLogitsLossFlat(),
    "FocalLossFlat": lambda nb: nb.FocalLossFlat(gamma=1.5),
    "FocalLoss": lambda nb: nb.FocalLoss(),
    "LabelSmoothingCrossEntropyFlat": lambda nb: nb.LabelSmoothingCrossEntropyFlat(eps=0.2),
    "LabelSmoothingCrossEntropy": lambda nb: nb.LabelSmoothingCrossEntropy(),
    "nn.CrossEntropyLoss": lambda nb: nb.nn.CrossEntropyLoss(),
    "nn.CrossEntropyLoss weighted": lambda nb: nb.nn.CrossEntropyLoss(
        weight=nb.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1
    ),
    "F.cross_entropy": lambda nb: nb.nn.functional.cross_entropy,
    "partial of F.cross_entropy": lambda nb: partial(
        nb.nn.functional.cross_entropy, label_smoothing=0.1
    ),
    "own class": lambda nb: nb.Focal(),
    "own class with activation": lambda nb: nb.Smooth(),
    "own function": lambda nb: nb.smooth_loss,
    "none given": lambda nb: None,
}

# Networks


def timm(name: str, **options: Any) -> Any:
    from timm import create_model

    return create_model(name, num_classes=3, **options)


def torchvision(name: str, **options: Any) -> Any:
    from torchvision import models

    return getattr(models, name)(**options)


def replaced(nb: Notebook, net: Any, layer: str) -> Any:
    """Return a network after its last layer was replaced by one of three outputs."""
    *parents, name = layer.split(".")
    owner = net
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, nb.nn.Linear(getattr(owner, name).in_features, 3))
    return net


def simple(nb: Notebook) -> Any:
    """The network of the book's chapter 13, for photos of three channels."""
    sizes = [3, 4, 8, 16, 32, 64]
    layers = [
        nb.nn.Sequential(nb.nn.Conv2d(a, b, 3, stride=2, padding=1), nb.nn.ReLU())
        for a, b in pairwise(sizes)
    ]
    return nb.nn.Sequential(*layers, nb.nn.Conv2d(64, 3, 3, stride=2, padding=1), nb.Flatten())


def own_head(nb: Notebook) -> Any:
    body = nb.create_body(nb.tiny_resnet(), cut=-2)
    return nb.nn.Sequential(body, nb.create_head(8, 3, lin_ftrs=[8], concat_pool=False))


NETWORKS: dict[str, Kind] = {
    "plain": lambda nb: nb.plain(),
    "chapter 13": lambda nb: nb.plain(simple(nb)),
    "simple_cnn": lambda nb: nb.plain(nb.SimpleCNN([3, 8, 16, 3])),
    "xresnet": lambda nb: nb.plain(nb.tiny_xresnet()),
    "xresnet Mish sa": lambda nb: nb.plain(nb.tiny_xresnet(act_cls=nb.Mish, sa=True)),
    "xresnet by vision_learner": lambda nb: nb.cnn(arch=nb.tiny_xresnet, cut=-4, lin_ftrs=[8]),
    "create_cnn_model": lambda nb: nb.plain(
        nb.create_cnn_model(nb.tiny_resnet, 3, cut=-2, pretrained=False, lin_ftrs=[8])
    ),
    "create_body and create_head": lambda nb: nb.plain(own_head(nb)),
    "head with concat_pool and bn_final": lambda nb: nb.cnn(
        concat_pool=False, bn_final=True, ps=0.25, lin_first=True
    ),
    "custom_head": lambda nb: nb.cnn(
        custom_head=nb.nn.Sequential(nb.AdaptiveConcatPool2d(), nb.Flatten(), nb.nn.Linear(16, 3))
    ),
    "timm name": lambda nb: nb.cnn(arch="test_efficientnet"),
    "timm create_model": lambda nb: nb.plain(timm("test_resnet")),
    "timm vit": lambda nb: nb.plain(timm("test_vit", img_size=64)),
    "timm convnext": lambda nb: nb.plain(timm("test_convnext")),
    "torchvision with num_classes": lambda nb: nb.plain(
        torchvision("mobilenet_v2", width_mult=0.1, num_classes=3)
    ),
    "torchvision classifier replaced": lambda nb: nb.plain(
        replaced(nb, torchvision("mobilenet_v2", width_mult=0.1), "classifier.1")
    ),
    "LogSoftmax and NLLLoss": lambda nb: ending_in(nb, "LogSoftmax", nb.nn.NLLLoss()),
    "Softmax": lambda nb: ending_in(nb, "Softmax", nb.CrossEntropyLossFlat()),
    "squeezenet": lambda nb: nb.cnn(arch=nb.squeezenet1_1),
}


def ending_in(nb: Notebook, name: str, loss: Any) -> Any:
    layers = [nb.ConvLayer(3, 8, stride=2), nb.nn.AdaptiveAvgPool2d(1), nb.nn.Flatten()]
    end = getattr(nb.nn, name)(dim=1)
    net = nb.nn.Sequential(*layers, nb.nn.Linear(8, 3), end)
    return nb.Learner(nb.loaders, net, loss_func=loss)


def grey(nb: Notebook, **options: Any) -> Any:
    block = nb.ImageBlock(cls=nb.PILImageBW)
    return nb.block(blocks=(block, nb.CategoryBlock), **{"batch_tfms": None, **options})


GREY: dict[str, Kind] = {
    "MNIST": lambda nb: nb.plain(simple_grey(nb), grey(nb, item_tfms=nb.Resize(28))),
    "Normalize": lambda nb: nb.plain(
        simple_grey(nb), grey(nb, batch_tfms=nb.Normalize.from_stats([0.13], [0.3]))
    ),
    "n_in": lambda nb: nb.cnn(grey(nb), n_in=1),
    "from_folder with img_cls": lambda nb: nb.plain(
        simple_grey(nb),
        nb.load("from_folder", nb.photos, valid_pct=0.2, img_cls=nb.PILImageBW, batch_tfms=None),
    ),
}


def simple_grey(nb: Notebook) -> Any:
    return nb.nn.Sequential(
        nb.ConvLayer(1, 8, stride=2), nb.nn.AdaptiveAvgPool2d(1), nb.Flatten(), nb.nn.Linear(8, 3)
    )


# What happens to a Learner before it is exported


def progressive(nb: Notebook) -> Any:
    learn = nb.cnn(nb.block(item_tfms=nb.Resize(32)))
    learn.dls = nb.block(item_tfms=nb.Resize(64, method="squish"))
    return learn


def trained(nb: Notebook) -> Any:
    learn = nb.cnn(metrics=[nb.accuracy, nb.F1Score(average="macro")], cbs=nb.MixUp())
    learn.fit_one_cycle(1, 1e-3)
    learn.tta(n=1)
    nb.ClassificationInterpretation.from_learner(learn)
    return learn


def changed(nb: Notebook) -> Any:
    learn = nb.cnn(cbs=nb.MixUp())
    learn.remove_cb(nb.MixUp)
    learn.add_cb(nb.GradientClip())
    learn.loss_func = nb.LabelSmoothingCrossEntropy()
    learn.metrics = nb.L([nb.accuracy])
    learn.recorder_note = {"anything": nb.Path("of the notebook")}
    learn.freeze()
    return learn


def parallel(nb: Notebook) -> Any:
    learn = nb.plain()
    learn.model = nb.nn.DataParallel(learn.model)
    return learn


def hooked(nb: Notebook) -> Any:
    learn = nb.cnn()
    nb.hook_outputs(learn.model[0])
    return learn


def watched(nb: Notebook) -> Any:
    """Return a Learner with a hook as `wandb.watch` leaves it."""
    learn = nb.plain()

    def log(module: Any, inputs: Any, output: Any) -> None:
        pass

    log.__module__ = "wandb.integration.torch.wandb_torch"
    learn.model[0].register_forward_hook(log)
    return learn


def compiled(nb: Notebook) -> Any:
    learn = nb.plain()
    learn.model = nb.torch.compile(learn.model, backend="eager")
    return learn


def exported_before(nb: Notebook) -> Any:
    return nb.load_learner(learners.export(nb.cnn(), nb.photos))


def normalized_later(nb: Notebook) -> Any:
    dls = nb.block(batch_tfms=None)
    dls.add_tfms([nb.normalize()], "after_batch")  # as vision_learner does if pretrained
    return nb.cnn(dls)


def of_own_class(nb: Notebook) -> Any:
    return nb.OwnLearner(nb.loaders, nb.plain().model, loss_func=nb.CrossEntropyLossFlat())


def swapped_model(nb: Notebook) -> Any:
    learn = nb.plain()
    learn.model = nb.nn.Sequential(learn.model, nb.nn.Identity())
    return learn


HABITS: dict[str, Kind] = {
    "progressive resizing": progressive,
    "trained with MixUp, then tta": trained,
    "callbacks and loss changed": changed,
    "model swapped": swapped_model,
    "DataParallel": parallel,
    "hooks left": hooked,
    "watched by wandb": watched,
    "compiled": compiled,
    "exported before": exported_before,
    "Normalize added later": normalized_later,
    "subclass of Learner": of_own_class,
    "to_bf16": lambda nb: nb.cnn().to_bf16(),
    "to_fp16": lambda nb: nb.cnn().to_fp16(),
    "to_fp16 and back": lambda nb: nb.cnn().to_fp16().to_fp32(),
    "to_native_fp16": lambda nb: nb.plain().to_fp16().to_channelslast(),
    "half": lambda nb: halved(nb),
    "splitter and optimizer": lambda nb: nb.cnn(
        splitter=nb.halves, opt_func=nb.ranger, lr=0.01, wd=0.1, moms=(0.9, 0.8, 0.9)
    ),
    "optimizer of torch": lambda nb: nb.cnn(
        opt_func=partial(nb.OptimWrapper, opt=nb.torch.optim.AdamW)
    ),
    "partial of Adam": lambda nb: nb.cnn(opt_func=partial(nb.Adam, sqr_mom=0.9, wd=0.01)),
    "without a bar": lambda nb: without_bar(nb),
    "train_bn and normalize": lambda nb: nb.cnn(train_bn=False, normalize=False),
}


def halved(nb: Notebook) -> Any:
    learn = nb.plain()
    learn.model.half()
    return learn


def without_bar(nb: Notebook) -> Any:
    learn = nb.cnn()
    learn.remove_cb(nb.ProgressCallback)
    return learn


def learners_by_kind() -> dict[str, Kind]:
    """Return every kind, by the group and name that tests show."""

    def transformed(make: Callable[[Notebook], tuple[Any, Any]], nb: Notebook) -> Any:
        item, batch = make(nb)
        return nb.cnn(nb.block(item_tfms=item, batch_tfms=batch))

    groups: dict[str, dict[str, Kind]] = {
        "data": {
            name: partial(lambda make, nb: nb.cnn(make(nb)), make) for name, make in DATA.items()
        },
        "transforms": {name: partial(transformed, make) for name, make in TRANSFORMS.items()},
        "presizing": {name: partial(transformed, make) for name, make in PRESIZING.items()},
        "training": TRAINING,
        "losses": {
            name: partial(lambda make, nb: nb.cnn(loss_func=make(nb)), make)
            for name, make in LOSSES.items()
        },
        "networks": NETWORKS,
        "grey": GREY,
        "habits": HABITS,
    }
    return {
        f"{group}: {name}": kind for group, kinds in groups.items() for name, kind in kinds.items()
    }
