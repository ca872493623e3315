"""The network sees what it sees in fastai; what cannot be reproduced is refused by its name."""

from __future__ import annotations

import itertools
import pickle
import random
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from icon_classifier.conversion.archive import open_archive
from icon_classifier.conversion.convert import convert
from icon_classifier.conversion.fields import get_attribute, get_items
from icon_classifier.conversion.learner import read_learner
from icon_classifier.conversion.resampling import Resampling
from icon_classifier.conversion.transforms import Resample, Transforms
from icon_classifier.conversion.unpickler import Global, Object
from icon_classifier.errors import UnsupportedLearnerError
from icon_classifier.images import read_image_file
from icon_classifier.model.pipeline import CropPad, Pipeline, Resize
from icon_classifier.model.session import Model
from tests.support import learners
from tests.support.pictures import gradient

Make = Callable[[Any], Any]
"""Makes transforms, given fastai.vision.all."""


@pytest.fixture(scope="module")
def fastai() -> types.ModuleType:
    """Return fastai.vision.all."""
    learners.import_fastai()
    import fastai.vision.all

    return fastai.vision.all


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write pictures of noise of odd sizes, so that every pixel matters, and of other modes."""
    folder = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    for width, height in [(97, 61), (61, 97), (200, 30), (17, 150), (8, 9), (225, 224)]:
        pixels = noise.integers(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{width}.png")
    gradient("L").save(folder / "grey.png")
    gradient("RGB").quantize(32).save(folder / "palette.png")
    gradient("RGB").save(folder / "photo.jpg")
    return sorted(folder.iterdir())


def make_learner(
    fastai: Any, photos: Path, item: Any, batch: Any, *, grey: bool = False, channels: int = 3
) -> Any:
    """Make a Learner of a tiny network, whose answers differ much between photos."""
    from fastai.vision.learner import default_split

    torch, nn = fastai.torch, fastai.nn
    image = fastai.ImageBlock(fastai.PILImageBW if grey else fastai.PILImage)
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), fastai.Flatten(), nn.Linear(8, 3))
    nn.init.normal_(head[2].weight, std=20)
    with learners.quiet():
        block = fastai.DataBlock(
            blocks=(image, fastai.CategoryBlock),
            get_items=fastai.get_image_files,
            get_y=fastai.parent_label,
            splitter=fastai.RandomSplitter(seed=1),
            item_tfms=item,
            batch_tfms=batch,
        )
        loaders = block.dataloaders(photos, bs=1, num_workers=0)
        network, loss = nn.Sequential(body, head), fastai.CrossEntropyLossFlat()
        return fastai.Learner(loaders, network, loss_func=loss, splitter=default_split)


def read(learn: Any, folder: Path) -> Transforms:
    """Export a Learner and read its transforms."""
    return read_learner(open_archive(learners.export(learn, folder))).transforms


def assert_same_as_fastai(learn: Any, pictures: list[Path], folder: Path) -> None:
    """Compare the input of the network, and the probabilities, with those of fastai."""
    import torch

    transforms = read(learn, folder)
    resampling = Resampling(transforms.pipeline.size, transforms.resamples)
    model = Model.load(convert(folder / "export.pkl"))
    with learners.quiet(), learn.no_bar(), learn.no_logging():
        loader = learn.dls.test_dl(pictures, bs=len(pictures))
        inputs, probabilities, _ = learn.get_preds(dl=loader, with_input=True)
        _, _, first = learn.predict(pictures[0])
    np.testing.assert_allclose(probabilities[0], first, atol=1e-6)
    for path, theirs, expected in zip(pictures, inputs, probabilities, strict=True):
        picture = read_image_file(path)
        ours = resampling(torch.tensor(model.transform(picture)[None]))[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
        ranking = dict(model.predict(picture).ranking)
        np.testing.assert_allclose([ranking[label] for label in model.labels], expected, atol=1e-4)


def imagenet(fastai: Any) -> Any:
    return fastai.Normalize.from_stats(*fastai.imagenet_stats)


ITEM: dict[str, Make] = {
    "Resize": lambda f: f.Resize(64),
    "Resize, not square": lambda f: f.Resize((48, 80)),
    "Resize, squish": lambda f: f.Resize((48, 80), f.ResizeMethod.Squish),
    "Resize, pad": lambda f: f.Resize((80, 48), method="pad"),
    "Resize, pad with zeros": lambda f: f.Resize(64, "pad", pad_mode=f.PadMode.Zeros),
    "Resize, pad with the border": lambda f: f.Resize(64, "pad", pad_mode="border"),
    "Resize, bicubic": lambda f: f.Resize(64, resamples=(Image.Resampling.BICUBIC, 0)),
    "Resize, Pillow's old number": lambda f: f.Resize(64, resamples=(1, 0)),
    "Resize twice": lambda f: [f.Resize((90, 60)), f.Resize(48, "squish")],
    "Resize and RandomCrop": lambda f: [f.Resize(80), f.RandomCrop(64)],
    "Resize and CropPad": lambda f: [f.Resize((90, 60)), f.CropPad((64, 48), order=2)],
    "CropPad": lambda f: f.CropPad((64, 48), pad_mode="border"),
    "RandomCrop": lambda f: f.RandomCrop((64, 48)),
    "OldRandomCrop": lambda f: f.OldRandomCrop(64),
    "RandomResizedCrop": lambda f: f.RandomResizedCrop((64, 48), min_scale=0.35),
    "RandomResizedCrop, no extra": lambda f: f.RandomResizedCrop(64, val_xtra=0),
    "RandomResizedCrop, extra": lambda f: f.RandomResizedCrop(64, val_xtra=0.5, resamples=(3, 0)),
    "flips": lambda f: [f.Resize(64), f.FlipItem(1.0), f.DihedralItem(1.0)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ITEM)
def test_item_transforms_are_those_of_fastai(fastai, photos, pictures, tmp_path, name):
    learn = make_learner(fastai, photos, ITEM[name](fastai), imagenet(fastai))
    assert_same_as_fastai(learn, pictures, tmp_path)


BATCH: dict[str, Make] = {
    "none": lambda f: [],
    "augmentation": lambda f: f.aug_transforms(flip_vert=True, max_lighting=0.5),
    "presizing": lambda f: [*f.aug_transforms(size=40, min_scale=0.75), imagenet(f)],
    "presizing, not square": lambda f: [
        *f.aug_transforms(size=(36, 28), min_scale=0.75),
        imagenet(f),
    ],
    "presizing, larger": lambda f: [*f.aug_transforms(size=128, min_scale=0.5), imagenet(f)],
    "presizing, no size": lambda f: f.aug_transforms(min_scale=0.75),
    "size": lambda f: [*f.aug_transforms(size=40), imagenet(f)],
    "size, a third": lambda f: [*f.aug_transforms(size=20), imagenet(f)],
    "size, flat": lambda f: [*f.aug_transforms(size=(24, 60)), imagenet(f)],
    "size, tall": lambda f: [*f.aug_transforms(size=(60, 24)), imagenet(f)],
    "size, the same": lambda f: [*f.aug_transforms(size=(64, 72)), imagenet(f)],
    "size, zeros": lambda f: [*f.aug_transforms(size=40, pad_mode="zeros"), imagenet(f)],
    "size, border": lambda f: f.aug_transforms(size=99, pad_mode="border", align_corners=False),
    "size, corners": lambda f: f.aug_transforms(size=20, align_corners=False),
    "size, nearest": lambda f: f.aug_transforms(size=40, mode="nearest"),
    "size, bicubic": lambda f: f.aug_transforms(size=40, mode="bicubic"),
    "one with a size": lambda f: [f.Rotate(p=1.0), f.Zoom(p=1.0, size=40), f.Warp(p=1.0)],
    "two sizes": lambda f: [f.Flip(size=50), f.RandomResizedCropGPU(30), imagenet(f)],
    "centre": lambda f: [f.RandomResizedCropGPU((30, 40), valid_scale=0.7), imagenet(f)],
    "deterministic": lambda f: [f.DeterministicDihedral(), f.DeterministicFlip(size=40)],
    "colours": lambda f: [f.Hue(p=1.0), f.Saturation(p=1.0), f.Contrast(p=1.0)],
    "erasing": lambda f: [imagenet(f), f.RandomErasing(p=1.0)],
    "one statistic": lambda f: f.Normalize.from_stats(0.5, 0.25),
    "statistics of a batch": lambda f: f.Normalize(),
    "statistics over all channels": lambda f: f.Normalize(axes=(0, 1, 2, 3)),
    "statistics that are integers": lambda f: f.Normalize.from_stats([0, 0, 1], [1, 2, 3]),
    "normalised twice": lambda f: [imagenet(f), f.Normalize.from_stats(0.5, 0.25)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BATCH)
def test_batch_transforms_are_those_of_fastai(fastai, photos, pictures, tmp_path, name):
    learn = make_learner(fastai, photos, fastai.Resize((64, 72)), BATCH[name](fastai))
    assert_same_as_fastai(learn, pictures, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["none", "presizing", "size, a third"])
@pytest.mark.parametrize("item", ["Resize, pad", "CropPad", "RandomResizedCrop"])
def test_grey_photos_are_those_of_fastai(fastai, photos, pictures, tmp_path, item, batch):
    statistics = fastai.Normalize.from_stats(*fastai.mnist_stats)
    steps = [t for t in BATCH[batch](fastai) if not isinstance(t, fastai.Normalize)]
    learn = make_learner(
        fastai, photos, ITEM[item](fastai), [*steps, statistics], grey=True, channels=1
    )
    assert_same_as_fastai(learn, pictures, tmp_path)
    assert read(learn, tmp_path).mode == "L"


def test_grey_photos_with_three_statistics_have_three_channels(fastai, photos, pictures, tmp_path):
    learn = make_learner(fastai, photos, fastai.Resize(64), imagenet(fastai), grey=True)
    assert_same_as_fastai(learn, pictures, tmp_path)


def test_a_size_applies_whatever_batch_the_transform_saw_last(fastai, photos, tmp_path):
    """An affine transform of fastai keeps the split_idx of the batch that it saw last."""
    learn = make_learner(fastai, photos, fastai.Resize(64), fastai.aug_transforms(size=40))
    for loader in (learn.dls.valid, learn.dls.train):
        with learners.quiet():
            loader.one_batch()
        assert read(learn, tmp_path).resamples == (Resample((40, 40)),)


def test_a_crop_of_the_batch_is_seen_in_the_view(fastai, photos, tmp_path):
    batch = fastai.aug_transforms(size=40, min_scale=0.75)
    transforms = read(make_learner(fastai, photos, fastai.Resize((64, 96)), batch), tmp_path)
    assert transforms.pipeline == Pipeline((Resize((96, 64)), CropPad((64, 64))))
    assert transforms.pipeline.view((96, 64)) == (16, 0, 80, 64)


def test_what_acts_in_training_only_is_listed(fastai, photos, tmp_path):
    item = [fastai.Resize(64), fastai.FlipItem()]
    learn = make_learner(fastai, photos, item, fastai.aug_transforms())
    assert sorted(read(learn, tmp_path).left_out) == [
        "batch transform Brightness (training only)",
        "batch transform Flip (training only)",
        "item transform FlipItem (training only)",
    ]


@pytest.mark.parametrize("grey", [False, True])
def test_without_a_resize_photos_are_squished_to_a_usual_size(fastai, photos, tmp_path, grey):
    learn = make_learner(fastai, photos, [], [], grey=grey, channels=1 if grey else 3)
    transforms = read(learn, tmp_path)
    side = 28 if grey else 224
    assert transforms.pipeline == Pipeline((Resize((side, side), "squish"),))
    assert f"they are squished to {side} x {side}." in transforms.assumed[0]


def test_without_a_resize_photos_are_squished_to_the_size_of_the_batch(fastai, photos, tmp_path):
    transforms = read(
        make_learner(fastai, photos, [], fastai.aug_transforms(size=(40, 48))), tmp_path
    )
    assert transforms.pipeline.size == (48, 40)
    assert (len(transforms.assumed), transforms.resamples) == (1, ())


def test_without_a_resize_photos_are_squished_to_what_the_network_takes(
    fastai, photos, pictures, tmp_path
):
    learn = make_learner(fastai, photos, [], [])
    learn.model[1][0] = fastai.nn.Identity()
    learn.model[1][2] = fastai.nn.Linear(8 * 16 * 16, 3)
    model = Model.load(convert(learners.export(learn, tmp_path)))
    assert model.info.pipeline.size == (32, 32)
    assert model.predict(read_image_file(pictures[0])).label in model.labels


@pytest.mark.parametrize(
    ("sides", "advice"), [([], r"add Resize\(size\)"), ([64], "train it again with today's")]
)
def test_a_network_of_another_size_is_refused_with_what_to_do(
    fastai, photos, tmp_path, sides, advice
):
    import timm

    learn = make_learner(fastai, photos, [fastai.Resize(side) for side in sides], [])
    learn.model[0] = timm.create_model(
        "vit_tiny_patch16_224", img_size=40, patch_size=8, depth=1, num_classes=3
    )
    learn.model[1] = fastai.nn.Identity()
    with pytest.raises(UnsupportedLearnerError, match=rf"{advice}.*Input height .* match model"):
        convert(learners.export(learn, tmp_path))


def test_the_digits_of_the_book_are_read_as_by_fastai(fastai, tmp_path):
    """Chapter 13: grey digits of 28 pixels, no transforms, strided convolutions, a Learner."""
    random = np.random.default_rng(0)
    digits = [tmp_path / "3" / "0.png", tmp_path / "3" / "1.png", tmp_path / "7" / "0.png"]
    for path in digits:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (28, 28), np.uint8)).save(path)
    nn = fastai.nn
    widths = [1, 4, 8, 16, 32]
    layers = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU())
        for a, b in itertools.pairwise(widths)
    ]
    last = nn.Conv2d(32, 2, 3, stride=2, padding=1)
    block = fastai.DataBlock(
        (fastai.ImageBlock(cls=fastai.PILImageBW), fastai.CategoryBlock),
        get_items=fastai.get_image_files,
        splitter=fastai.IndexSplitter([0]),
        get_y=fastai.parent_label,
    )
    with learners.quiet():
        learn = fastai.Learner(
            block.dataloaders(tmp_path, bs=1, num_workers=0),
            fastai.sequential(*layers, last, fastai.Flatten()),
            loss_func=fastai.CrossEntropyLossFlat(),
            metrics=fastai.accuracy,
        )
    assert_same_as_fastai(learn, digits, tmp_path)


def transform_class(base: type, split_idx: int | None, *, call_super: bool) -> type:
    """Make a class as a notebook has it: exported by value, negating photos."""

    class Negate(base):  # type: ignore[misc, valid-type]
        order = 2

        def __init__(self) -> None:
            if call_super:
                super().__init__()

        def encodes(self, x: Image.Image) -> Any:
            return x.point(lambda value: 255 - value)

    Negate.split_idx = split_idx
    Negate.__module__, Negate.__qualname__ = "__main__", "Negate"
    return Negate


@pytest.mark.parametrize("call_super", [True, False])
@pytest.mark.parametrize("base", ["DisplayedTransform", "ItemTransform", "Transform"])
def test_a_class_of_the_notebook_is_left_out_if_it_is_for_training_only(
    fastai, photos, tmp_path, base, call_super
):
    base = getattr(fastai, base)
    training, always = (transform_class(base, i, call_super=call_super) for i in (0, None))
    learn = make_learner(fastai, photos, [fastai.Resize(64), training()], [])
    assert read(learn, tmp_path).left_out == (
        "item transform Negate of the notebook (training only)",
    )
    learn = make_learner(fastai, photos, [fastai.Resize(64), always()], [])
    with pytest.raises(
        UnsupportedLearnerError, match=r"item transform Negate of the notebook acts on .*split_idx"
    ):
        read(learn, tmp_path)


def test_a_random_class_of_the_notebook_is_for_training_only(fastai, photos, tmp_path):
    """Its split_idx is inherited, and not stored with the class."""
    negate = transform_class(fastai.RandTransform, 0, call_super=True)()
    del negate.split_idx
    learn = make_learner(fastai, photos, [fastai.Resize(64), negate], [])
    assert read(learn, tmp_path).left_out == (
        "item transform Negate of the notebook (training only)",
    )


class Part:
    """Stand in for a transform of a library of augmentations."""

    def __init__(self, **state: Any) -> None:
        vars(self).update(state, generator=random.Random(0))


class RandomCrop(Part):
    """Random whatever its state is."""


class StoredByName:
    """A transform of the notebook as fastai before 2.8 stores it: without what its class says."""

    order = 0

    def __init__(self, **state: Any) -> None:
        vars(self).update(state)


FIXED, FLIP = Part(p=1.0, clip_limit=(4, 4), size=(3, 4)), Part(transforms=[Part(p=0.5)])


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (StoredByName(aug=FLIP), r"it is random \(Part\)"),
        (StoredByName(aug=Part(p=1.0, shift_limit=(-0.1, 0.1))), r"it is random \(Part\)"),
        (StoredByName(aug=Part(parts={"a": [RandomCrop()]})), r"it is random \(RandomCrop\)"),
        (StoredByName(p=0.3), r"it is random \(StoredByName\)"),
        (StoredByName(first=FLIP, second=RandomCrop()), r"it is random \(Part\)"),
        (StoredByName(train_aug=FIXED), "it keeps train_aug only"),
        (StoredByName(aug=FIXED), None),
        (StoredByName(train_aug=FLIP, valid_aug=FIXED), None),
        (StoredByName(), None),
    ],
)
def test_a_class_stored_by_name_is_left_out_if_a_prediction_cannot_need_it(
    fastai, photos, tmp_path, transform, reason
):
    learn = make_learner(fastai, photos, fastai.Resize(64), [])
    learn.dls.valid.after_item.fs.append(transform)
    place = len(learn.dls.valid.after_item.fs) - 1
    with learners.quiet():
        learn.export(tmp_path / "export.pkl", pickle_module=pickle)
    archive = open_archive(tmp_path / "export.pkl")
    if reason:
        learner = read_learner(archive)
        assert "item transform StoredByName of tests (training only)" in learner.left_out
        (sentence,) = learner.transforms.assumed
        assert re.search(f"assumed to act in training only, because {reason}", sentence)
        return
    with pytest.raises(UnsupportedLearnerError) as refusal:
        read_learner(archive)
    assert "item transform StoredByName of tests may act on validation" in str(refusal.value)
    advice = f"learn.dls.valid.after_item.fs[{place}].split_idx = 0"
    assert advice in str(refusal.value)
    exec(advice, {"learn": learn})
    learn.export(tmp_path / "export.pkl", pickle_module=pickle)
    reread = read_learner(open_archive(tmp_path / "export.pkl"))
    assert reread.transforms.assumed == ()


def test_a_class_that_inherits_from_itself_is_refused(tiny_export):
    call = Object(Global("cloudpickle.cloudpickle", "_make_skeleton_class"), (None, "A", []))
    call.args[2].append(call)
    archive = open_archive(tiny_export)
    loader = get_items(get_attribute(get_attribute(archive.root, "dls"), "loaders"))[1]
    steps = get_items(get_attribute(get_attribute(loader, "after_item"), "fs"))
    steps.append(Object(call, (), {}))
    with pytest.raises(UnsupportedLearnerError, match="A of the notebook may act on validation"):
        read_learner(archive)


@pytest.mark.parametrize("stage", ["after_item", "before_batch", "after_batch"])
@pytest.mark.parametrize("split_idx", [0, 1, None])
def test_a_function_is_left_out_if_it_is_for_training_only(
    fastai, photos, tmp_path, stage, split_idx
):
    def negate(x):
        return x

    learn = make_learner(fastai, photos, fastai.Resize(64), [])
    pipeline = getattr(learn.dls.valid, stage)
    pipeline.add([fastai.Transform(negate, split_idx=split_idx), fastai.Transform(fastai.noop)])
    if split_idx == 0:
        (left_out,) = read(learn, tmp_path).left_out
        assert left_out.endswith("negate (training only)")
    else:
        with pytest.raises(UnsupportedLearnerError, match="negate acts on validation photos too"):
            read(learn, tmp_path)


REFUSED: dict[str, tuple[Make, Make, str]] = {
    "RatioResize": (
        lambda f: [f.RatioResize(80), f.Resize(64)],
        lambda _: [],
        "RatioResize gives photos of different sizes; use Resize",
    ),
    "a subclass of Resize": (
        lambda f: type("Resize", (f.Resize,), {"__module__": "__main__"})(64),
        lambda _: [],
        "item transform Resize of the notebook acts on",
    ),
    "a crop of what was resized": (
        lambda f: f.Resize(64),
        lambda f: [f.Flip(size=(40, 60)), f.RandomResizedCropGPU(30, ratio=(1, 1))],
        "crops what another has resized",
    ),
    "zeros beyond the edges": (
        lambda f: f.Resize(64),
        lambda f: f.aug_transforms(size=40, pad_mode="zeros", align_corners=False),
        "Flip pads with zeros; use",
    ),
    "an endless photo": (
        lambda f: f.Resize(64),
        lambda f: f.aug_transforms(size=10**9),
        "expected a size of two numbers of 1 to 4096 pixels",
    ),
    "an empty photo": (
        lambda f: f.Resize(64),
        lambda f: f.RandomResizedCropGPU(64, valid_scale=0.001),
        "expected a size of two numbers of 1 to 4096 pixels",
    ),
    "statistics of each pixel": (
        lambda f: f.Resize(64),
        lambda f: f.Normalize(f.torch.zeros(1, 3, 64, 64), f.torch.ones(1, 3, 64, 64)),
        "expected a Normalize of one or three numbers; use",
    ),
    "division by zero": (
        lambda f: f.Resize(64),
        lambda f: f.Normalize.from_stats([0.5], [0.0]),
        "expected a Normalize with std above 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_reproduced_is_refused_by_its_name(fastai, photos, tmp_path, name):
    item, batch, message = REFUSED[name]
    learn = make_learner(fastai, photos, fastai.Resize(64), [])
    learn.dls.valid.after_item = fastai.Pipeline([fastai.ToTensor(), *fastai.L(item(fastai))])
    learn.dls.valid.after_batch.add(fastai.L(batch(fastai)))
    with pytest.raises(UnsupportedLearnerError, match=message):
        read(learn, tmp_path)
