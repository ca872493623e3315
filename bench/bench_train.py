"""How good and how fast training is, over several splits: ``make bench-train DATA=folder``.

The folder holds ``bears`` and ``dogs``, each a folder of classes. Every split keeps a fifth of the
photos apart, with near-duplicates on one side, and everything (how the head is fitted, temperature,
threshold) is chosen by cross-validation within the other four fifths. ``--plain`` adds the plain
``fine_tune(3)`` of a lesson on the first split of bears, which takes minutes.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from icon_classifier import training
from icon_classifier.dataset import group_duplicates
from icon_classifier.features import pooled_features, prior_of
from icon_classifier.judging import auroc, calibration_error, softmax
from icon_classifier.learners import linear_learner
from icon_classifier.probe import Strength, fit_head
from icon_classifier.recipes import load_recipe

WHOLE = """
import sys
from icon_classifier import dataset, recipes, training
recipe = recipes.load_recipe("bears")
gathered = dataset.gather(recipe, sys.argv[2], data=sys.argv[1], progress=False)
cleaned = dataset.clean(gathered, progress=False)
photos = training.load_photos(gathered, recipe.training, groups=cleaned.groups)
probe = training.train_probe(photos, recipe.training, progress=False)
training.export(probe, recipe, sys.argv[2] + "/export.pkl")
"""


def folder_to_export(bears: Path) -> tuple[float, float]:
    """Seconds from a folder of photos to export.pkl, imports included: on the clock, of the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        start, before = time.perf_counter(), os.times()
        command = [sys.executable, "-c", WHOLE, str(bears.resolve()), folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        used = sum(after[2:4]) - sum(before[2:4])
        return time.perf_counter() - start, used


def judge_splits(name: str, folder: Path, splits: int, others: Path | None = None) -> None:
    """Print one row a split, and the means."""
    options = load_recipe(name).training
    photos = training.load_photos(folder, options)
    with contextlib.redirect_stdout(io.StringIO()):
        network = training.load_pretrained(options.architecture)
        learn = linear_learner(photos, options, network)
    body = learn.model[0].eval()
    looks = {"size": options.image_size, "method": options.resize}
    features = pooled_features(photos.paths, body, network, **looks)
    prior = prior_of(network, body)
    unknown = None
    if others is not None:
        strangers = training.load_photos(others, options).paths[::8]  # enough for a share
        unknown = pooled_features(strangers, body, network, **looks)[0]
    groups, targets, rows = group_duplicates(photos.paths), photos.targets, []
    for seed in range(splits):
        each = replace(options, seed=seed)
        sides = training.load_photos(folder, each, groups=groups)
        with contextlib.redirect_stdout(io.StringIO()):
            probe = training.train_probe(sides, each, network, on=sides.train, features=features)
        valid, train = np.array(sides.valid), np.array(sides.train)
        last = probe.learn.model[1][-1]
        weight, bias = last.weight.detach().numpy(), last.bias.detach().numpy()
        logits = features[0, valid] @ weight.T + bias
        known = training.energy(logits, probe.temperature)
        fresh = fit_head(
            features[:, train], targets[train], len(photos.vocab), Strength(False, 0.01), prior
        )
        row = {
            "error": (logits.argmax(1) != targets[valid]).mean(),
            "fresh probe": (fresh(features[0, valid]).argmax(1) != targets[valid]).mean(),
            "calibration": calibration_error(
                softmax(logits.astype(float) / probe.temperature), targets[valid]
            ),
            "accepted": (known >= probe.threshold).mean(),
        }
        if unknown is not None:
            strange = training.energy(unknown @ weight.T + bias, probe.temperature)
            row["AUROC"] = auroc(known, strange)
            row["strangers pass"] = (strange >= probe.threshold).mean()
        rows.append(row)
        print(f"{name} {seed}: {row}", file=sys.stderr, flush=True)
    print(f"| {name}: split | {' | '.join(rows[0])} |")
    print("| --- " * (len(rows[0]) + 1) + "|")
    for seed, row in enumerate(rows):
        print(f"| {seed} | {' | '.join(_show(*item) for item in row.items())} |")
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    print(f"| mean | {' | '.join(_show(*item) for item in means.items())} |\n", flush=True)


def _show(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "AUROC" else f"{100 * value:.2f} %"


def judge_plain(folder: Path) -> None:
    """Train the plain recipe of a lesson on the first split of bears."""
    options = replace(load_recipe("bears").training, image_size=224, seed=0, learning_rate=2e-3)
    photos = training.load_photos(folder, options)
    start = time.perf_counter()
    learn = training.plain_learner(photos, options)
    training.train_plainly(learn, options)
    figures = training.judge_learner(learn)
    seconds = time.perf_counter() - start
    print(f"plain fine_tune({options.epochs}), 224 px: {figures.error:.1%} wrong, {seconds:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds bears/ and dogs/")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args()
    seconds, used = folder_to_export(given.data / "bears")
    print(f"bears, folder to export.pkl: {seconds:.1f} s ({used:.1f} s of CPU time)\n", flush=True)
    judge_splits("bears", given.data / "bears", given.splits, others=given.data / "dogs")
    judge_splits("dogs", given.data / "dogs", given.splits)
    if given.plain:
        judge_plain(given.data / "bears")


if __name__ == "__main__":
    main()
