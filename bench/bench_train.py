"""How good and how fast training is on sets of photos: ``make bench-train DATA=folder``.

The folder holds sets, each a folder of classes; each is cleaned first, as the notebook does. Every
split holds out a fifth of the photos, with near-duplicates on one side; everything else (size and
resizing, how the head is fitted, temperature, threshold) is chosen by cross-validation within the
other four fifths. Photos of all other sets are the strangers that a model should be "not sure" of.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from bench.support import report
from bench.support.measure import run_process
from bench.support.report import Row
from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import Training, folder_recipe
from icon_classifier.model.session import softmax
from icon_classifier.training.evaluation import calibration_error, mean_recall
from icon_classifier.training.features import pooled_features
from icon_classifier.training.learners import Photos, load_photos
from icon_classifier.training.lesson.fine_tuning import plain_learner, train_plain
from icon_classifier.training.novelty import similarity
from icon_classifier.training.pretrained import Pretrained, load_pretrained
from icon_classifier.training.probe import Head
from icon_classifier.training.training import Probe, evaluate_learner, train_probe

WHOLE = """
import pathlib
import sys
from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import folder_recipe
from icon_classifier.training.learners import load_photos
from icon_classifier.training.training import export_probe, train_probe
recipe, folder = folder_recipe(sys.argv[1]), pathlib.Path(sys.argv[2])
gathered = gather(recipe, folder, data=sys.argv[1], progress=False)
cleaned = clean(gathered, progress=False)
photos = load_photos(gathered, recipe.training, groups=cleaned.groups)
probe = train_probe(photos, recipe.training, cache=folder / "features", progress=False)
export_probe(probe, recipe, folder / "export.pkl")
"""

STRANGERS = 60
"""How many photos of each other set are tried, spread over it."""


def folder_to_export(photos: Path) -> list[str]:
    """Measure a folder of photos to export.pkl in a process of its own, imports included."""
    with tempfile.TemporaryDirectory() as folder:
        cost = run_process([sys.executable, "-c", WHOLE, photos.resolve(), folder])
    return [photos.name, f"{cost[0]:.0f} s", f"{cost[1]:.0f} MB"]


@dataclass
class Set:
    """The cleaned photos of a set, and how to train on them."""

    name: str
    photos: Photos
    training: Training


def clean_set(source: Path, work: Path) -> Set:
    """Gather and clean the photos of a set, as the notebook does."""
    recipe = folder_recipe(source)
    gathered = gather(recipe, work / source.name, data=source, progress=False)
    cleaned = clean(gathered, progress=False)
    photos = load_photos(gathered, recipe.training, groups=cleaned.groups)
    return Set(source.name, photos, recipe.training)


class Bench:
    """Trains on splits of sets and tries the models on the others."""

    def __init__(self, sets: list[Set], work: Path, *, plain: bool) -> None:
        self.sets, self.work, self.plain = sets, work, plain
        self.unsure: list[tuple[float, float]] = []  # of each set, as `summary` shows it
        with contextlib.redirect_stdout(io.StringIO()):
            self.network: Pretrained = load_pretrained(sets[0].training.architecture)

    def row(self, own: Set, splits: int) -> dict[str, str]:
        """Measure a set: means over splits, as texts."""
        rows = [dict(self.split(own, seed)) for seed in range(splits)]
        chosen = [f"{row.pop('size')} {row.pop('method')}" for row in rows]
        passed = np.mean([row.pop("passed") for row in rows], axis=0)  # (other sets,)
        names = [each.name for each in self.sets if each is not own]
        means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        shown = {
            key: f"{value:.4f}" if key == "AUROC" else f"{100 * value:.1f} %"
            for key, value in means.items()
        }
        if names:
            worst = int(passed.argmax())
            shown["strangers pass"] = f"{100 * passed.mean():.1f} %"
            shown["most"] = f"{100 * passed[worst]:.1f} % ({names[worst]})"
            self.unsure.append((means["own kept"], passed.mean()))
        return shown | {"chosen": ", ".join(sorted(set(chosen)))}

    def summary(self) -> list[Row]:
        """Return how "not sure" did over all sets that were measured."""
        kept, passed = 100 * np.array(self.unsure).T
        return [
            Row("own photos answered, mean", "%", [kept.mean()], "≥ 96"),
            Row("strangers answered, mean", "%", [passed.mean()], "≤ 3"),
            Row("strangers answered, most of a set", "%", [passed.max()], "≤ 8"),
        ]

    def split(self, own: Set, seed: int) -> Iterator[tuple[str, object]]:
        """Train on one split; yield what was measured on the photos held out."""
        training = replace(own.training, seed=seed)
        sides = load_photos(own.photos.folder, training, groups=own.photos.groups)
        valid = np.array(sides.valid)
        targets = sides.targets[valid]
        probe = self.train(sides, training)
        logits = head_of(probe)(probe.features[0, valid]).astype(float)
        yield "error", (logits.argmax(1) != targets).mean()
        yield "mean recall", mean_recall(logits.argmax(1), targets)
        yield "calibration", calibration_error(softmax(logits), targets)
        for method in ("crop", "squish"):
            fixed = self.train(sides, replace(training, image_size=224, resize=method))
            wrong = head_of(fixed)(fixed.features[0, valid]).argmax(1) != targets
            yield f"224 {method}", wrong.mean()
        if self.plain:
            yield "fine_tune", self.fine_tune(sides, training)
        size, method = probe.training.image_size, probe.training.resize
        yield from (("size", size), ("method", method))
        known = similarity(probe.features[0, valid], probe.bank)
        yield "own kept", (known >= probe.threshold).mean()
        strangers = [
            similarity(self.extract(each.photos, probe), probe.bank)
            for each in self.sets
            if each is not own
        ]
        yield "passed", [(scores >= probe.threshold).mean() for scores in strangers]
        if strangers:
            others = np.concatenate(strangers)
            is_known = np.repeat([1, 0], [len(known), len(others)])
            yield "AUROC", roc_auc_score(is_known, np.concatenate([known, others]))

    def train(self, sides: Photos, training: Training) -> Probe:
        """Train a probe on the photos of a split that are for training."""
        cache = self.work / f"{sides.folder.parent.name}-features"
        with contextlib.redirect_stdout(sys.stderr):
            return train_probe(
                sides, training, self.network, indices=sides.train, cache=cache, progress=False
            )

    def extract(self, others: Photos, probe: Probe) -> np.ndarray:
        """Compute features of photos of another set as the probe's model sees them."""
        size, method = probe.training.image_size, probe.training.resize
        return pooled_features(
            others.paths[:: -(-len(others.paths) // STRANGERS)],
            probe.learn.model[0],
            self.network,
            size=size,
            method=method,
            cache=self.work / f"{others.folder.parent.name}-{size}-{method}",
        )

    def fine_tune(self, sides: Photos, training: Training) -> float:
        """Return the error of a lesson's plain recipe at 224 pixels."""
        options = replace(training, image_size=224, learning_rate=2e-3)
        learn = plain_learner(sides, options, self.network)
        with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
            train_plain(learn, options)
            return evaluate_learner(learn).error


def head_of(probe: Probe) -> Head:
    """Return the linear head of a probe's Learner; it has absorbed the temperature."""
    last = probe.learn.model[1][-1]
    return Head(last.weight.detach().numpy(), last.bias.detach().numpy())


def main(options: argparse.Namespace) -> Iterator[str]:
    """Yield the tables."""
    folders = sorted(each for each in options.data.iterdir() if each.is_dir())
    chosen = [each for each in folders if not options.only or each.name in options.only]
    if options.measure != "quality":
        heads = ("set", "folder to export.pkl, processor time", "peak memory")
        yield report.markdown(heads, map(folder_to_export, chosen))
    if options.measure == "time":
        return
    with tempfile.TemporaryDirectory() as work:
        sets = [clean_set(each, Path(work)) for each in folders]
        bench = Bench(sets, Path(work), plain=options.plain)
        lines = []
        for own in (each for each in sets if each.name in {folder.name for folder in chosen}):
            row = {"set": own.name, "photos": str(len(own.photos.paths))}
            row |= bench.row(own, options.splits)
            lines.append(list(row.values()))
            print(*lines[-1], sep="  ", file=sys.stderr)  # each takes minutes
        yield report.markdown(list(row), lines)
    if bench.unsure:
        yield report.table(["all sets"], bench.summary())


if __name__ == "__main__":
    parser = report.parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of sets, each a folder of classes")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="sets to train on; the others are strangers")
    parser.add_argument("--plain", action="store_true", help="a lesson's fine_tune(3) as well")
    parser.add_argument("--measure", choices=["time", "quality"], help="only one of the two")
    options = parser.parse_args()
    report.publish(options, main(options))
