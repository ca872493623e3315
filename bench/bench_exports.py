"""Do the real networks convert, and answer as their Learners do? ``make test-exports``.

Each network is trained by a fastai Learner for one epoch and exported; compiled by the command line
in a process of its own; and compared with ``Learner.predict`` on drawn and real photos. The exit
code is 1 if a network does not convert, a label differs, or a probability by more than 1e-4.

Networks with random weights are no substitute: two pictures that hardly differ become ever more
different from layer to layer, and so do two ways of rounding. In a resnet50 the rounding errors of
float32, torch's own too, grow to 4e-5 of the logits; after one epoch to a quarter of that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.bench_parity import TOLERANCE, learner_answer
from bench.support import report
from bench.support.measure import run_process
from icon_classifier.cli.smoke import example_photo
from icon_classifier.compact.comparison import Comparison, compare_answers
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from icon_classifier.system.torch_setup import import_fastai
from tests.support.learners import LABELS, draw_photos, export, make_learner, predict_all, quiet
from tests.support.servers import ROOT

HEADS = ("network", "converts", "labels alike", "probabilities differ by", "", "CPU s", "peak MB")
HEADS += ("file MB", "serving MB", "evidence")


def torchvision_with_new_fc(photos: Path) -> Any:
    """A torchvision network whose last layer was replaced, in a plain Learner."""
    from torch import nn
    from torchvision.models import resnet18

    network = resnet18()
    network.fc = nn.Linear(512, 3)
    return plain_learner(photos, network)


def timm_by_hand(name: str) -> Callable[[Path], Any]:
    """A whole network of timm in a plain Learner."""

    def make(photos: Path) -> Any:
        import timm

        return plain_learner(photos, timm.create_model(name, num_classes=3))

    return make


def plain_learner(photos: Path, network: Any) -> Any:
    """Return ``Learner(dls, network)``."""
    from fastai.vision.all import CrossEntropyLossFlat, Learner

    loaders = make_learner(photos, item_tfms=resize(224)).dls
    return Learner(loaders, network, loss_func=CrossEntropyLossFlat())


def xresnet_by_hand(name: str) -> Callable[[Path], Any]:
    """``Learner(dls, xresnet50(n_out=dls.c))``, as in the book's chapter 7."""

    def make(photos: Path) -> Any:
        from fastai.vision import models

        return plain_learner(photos, getattr(models.xresnet, name)(n_out=3))

    return make


def resize(size: int) -> Any:
    """Return fastai's Resize."""
    import_fastai()
    from fastai.vision.all import Resize

    return Resize(size)


NETWORKS: dict[str, int | Callable[[Path], Any]] = {
    # names of fastai's vision_learner, of torchvision and timm: side of the photos in pixels
    **dict.fromkeys(
        (
            *("alexnet", "densenet121", "mobilenetv2_100", "resnet18", "resnet34", "resnet50"),
            *("squeezenet1_1", "vgg16_bn", "xresnet34", "xresnet50"),
            *("convnext_tiny", "convnextv2_atto", "convnext_small.in12k", "efficientnet_b0"),
            *("efficientnetv2_rw_t", "levit_128s", "maxvit_nano_rw_256", "mobilenetv3_large_100"),
            *("regnetx_002", "regnety_004", "resnet26d", "resnetv2_50", "resnet50.a1_in1k"),
            *("rexnet_100", "swinv2_cr_tiny_ns_224"),
            *("tf_efficientnet_b0", "tf_efficientnet_lite0", "vit_small_patch16_224"),
            *("vit_tiny_patch16_224", "beit_base_patch16_224", "deit3_small_patch16_224"),
        ),
        224,
    ),
    "maxvit_nano_rw_256": 256,
    "plain Learner, torchvision, new fc": torchvision_with_new_fc,
    "plain Learner, timm": timm_by_hand("resnet50.a1_in1k"),
    # vision_learner cannot make this one: its feature maps have the channels last.
    "swin_tiny_patch4_window7_224": timm_by_hand("swin_tiny_patch4_window7_224"),
    "plain Learner, xresnet50": xresnet_by_hand("xresnet50"),
    "plain Learner, xresnet18_deeper": xresnet_by_hand("xresnet18_deeper"),
}


def make_export(name: str, folder: Path) -> None:
    """Write export.pkl, and Learner.predict's answers on the photos into answers.json."""
    photos, spec = make_photos(folder / "photos"), NETWORKS[name]
    import_fastai()  # before timm and torchvision
    from fastai.torch_core import set_seed

    set_seed(0)
    if isinstance(spec, int):
        from fastai.vision import all as fastai

        arch = getattr(fastai, name, name)
        learn = make_learner(photos, arch, item_tfms=resize(spec))
    else:
        learn = spec(photos)
    with quiet(), learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(1, 1e-3)
    measure_statistics(learn)
    learn.model.eval()
    scale_logits(learn)
    path = export(learn, folder)
    del learn
    answers = predict_all(path, list(read_pictures(folder).values()))
    (folder / "answers.json").write_text(json.dumps(answers))


def measure_statistics(learn: Any) -> None:
    """Give the batch norms the statistics of all photos, as long training does."""
    import torch
    from torch import nn

    norms = [
        each for each in learn.model.modules() if isinstance(each, nn.modules.batchnorm._NormBase)
    ]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
        norm.reset_running_stats()
    learn.model.train()
    with torch.no_grad():
        for _ in range(3):
            for images, _ in learn.dls.train:
                learn.model(images)
    for norm in norms:
        norm.momentum = 0.1


def make_photos(folder: Path) -> Path:
    """Write crops of fastbook's photos and pictures of noise, in a folder for each.

    They must differ: batch norms divide by the variation between photos, and where all look alike
    so much that rounding errors show.
    """
    draw_photos(folder)
    random = np.random.default_rng(0)
    for label, photo in zip(LABELS, (*read_photos().values(), None), strict=True):
        for i in range(6 if photo else 0):
            width, height = (int(side * random.uniform(0.3, 1)) for side in photo.size)
            left = random.integers(photo.width - width + 1)
            top = random.integers(photo.height - height + 1)
            crop = photo.crop((left, top, left + width, top + height))
            crop.save(folder / label / f"crop{i}.png")
    return folder


def scale_logits(learn: Any) -> None:
    """Scale the last layer so that the largest logit is 10, as in trained networks.

    Those of random layers can be far smaller, which hides differences, or larger.
    """
    import torch

    layers = [layer for layer in learn.model.modules() if hasattr(layer, "weight")]
    with torch.no_grad():
        largest = max(learn.model(images).abs().max() for images, _ in learn.dls.valid)
        for parameter in layers[-1].parameters():
            parameter *= 10 / largest


def read_photos() -> dict[str, Image.Image]:
    """Return the photos of fastbook."""
    paths = sorted(example_photo().parent.glob("*.jpg"))
    return {path.name: read_image_file(path) for path in paths}


def read_pictures(folder: Path) -> dict[str, Image.Image]:
    """Return some of the pictures of `make_photos`, and the photos of fastbook."""
    paths = sorted((folder / "photos").rglob("*.png"))[::7]
    return {**{path.name: read_image_file(path) for path in paths}, **read_photos()}


def serve(folder: Path) -> float:
    """Return the memory in MB that the model takes in a process that has answered a photo."""
    code = (
        "import psutil, sys; from PIL import Image;"
        "from icon_classifier.model.session import Model;"
        "memory = lambda: psutil.Process().memory_info().rss / 2**20; before = memory();"
        "model = Model.load(sys.argv[1]); model.predict(Image.new('RGB', (640, 480)));"
        "print(memory() - before)"
    )
    command = [sys.executable, "-c", code, str(folder / "export.onnx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def compare(folder: Path) -> Comparison:
    """Compare the compiled model with the Learner's recorded answers."""
    model, pictures = Model.load(folder / "export.onnx"), read_pictures(folder)
    answers = json.loads((folder / "answers.json").read_text())
    recorded = dict(zip(pictures, answers, strict=True))
    return compare_answers(
        lambda name: learner_answer(model, recorded[name][1]),
        lambda name: model.predict(pictures[name]),
        [(name, None) for name in pictures],
    )


def check(name: str, folder: Path) -> list[str]:
    """Export, compile and compare a network; return its line of the table."""
    command = [sys.executable, "-m", "bench.bench_exports", "--make", name, str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    export, target = folder / "export.pkl", folder / "export.onnx"
    try:
        cost = run_process([sys.executable, "-m", "icon_classifier", "convert", export])
    except subprocess.CalledProcessError as error:
        return [name, f"no: {error.stderr.strip()}", "", "", report.MISSED, *[""] * 5]
    found = compare(folder)
    alike = found.same_label == found.photos and found.largest_difference <= TOLERANCE
    evidence = Model.load(target).info.raw["evidence"]
    return [
        *(name, "yes", f"{found.same_label} of {found.photos}"),
        *(f"{found.largest_difference:.2g}", report.verdict(alike)),
        *(f"{cost[0]:.1f}", f"{cost[1]:.0f}"),
        *(f"{target.stat().st_size / 1e6:.1f}", f"{serve(folder):.0f}"),
        "yes" if evidence is True else f"no: {evidence}",
    ]


if __name__ == "__main__":
    parser = report.parser((__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="networks; all by default")
    parser.add_argument("--make", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make_export(options.make[0], Path(options.make[1]))
        sys.exit()
    lines = []
    for name in options.names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(check(name, Path(folder)))
            print(*lines[-1], sep="  ", file=sys.stderr)  # each takes a minute
    table = report.markdown(HEADS, lines)
    report.publish(options, [table])
    sys.exit(report.MISSED in table)
