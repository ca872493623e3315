"""How good and how fast training is, over several splits: ``make bench-train DATA=folder``.

The folder holds ``bears`` and ``dogs``, each a folder of classes; both are cleaned first, as the
notebook does. Every split holds out a fifth of the photos, with near-duplicates on one side, and
everything (how the head is fitted, temperature, threshold) is chosen by cross-validation within the
other four fifths. ``--plain`` adds the plain ``fine_tune(3)`` of a lesson on the same splits of
bears, two minutes each.
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

from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import load_recipe
from icon_classifier.model.session import softmax
from icon_classifier.training.evaluation import auroc, calibration_error, energy
from icon_classifier.training.features import pooled_features, prior_of
from icon_classifier.training.learners import Photos, linear_learner, load_photos
from icon_classifier.training.lesson.fine_tuning import plain_learner, train_plain
from icon_classifier.training.pretrained import load_pretrained
from icon_classifier.training.probe import Head, Strength, fit_head
from icon_classifier.training.training import evaluate_learner, train_probe

WHOLE = """
import pathlib
import sys
from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import load_recipe
from icon_classifier.training.learners import load_photos
from icon_classifier.training.training import export_probe, train_probe
recipe = load_recipe("bears")
gathered = gather(recipe, sys.argv[2], data=sys.argv[1], progress=False)
cleaned = clean(gathered, progress=False)
photos = load_photos(gathered, recipe.training, groups=cleaned.groups)
folder = pathlib.Path(sys.argv[2])
probe = train_probe(photos, recipe.training, cache=folder / "features", progress=False)
export_probe(probe, recipe, folder / "export.pkl")
"""


def folder_to_export(bears: Path) -> tuple[str, str]:
    """Time a folder of photos to export.pkl, imports included, without and with a cache."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            start, before = time.perf_counter(), os.times()
            command = [sys.executable, "-c", WHOLE, str(bears.resolve()), folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds, after = time.perf_counter() - start, os.times()
            used = sum(after[2:4]) - sum(before[2:4])
            times.append(f"{seconds:.1f} s ({used:.1f} s of CPU time)")
    return times[0], times[1]


def clean_photos(name: str, data: Path, work: Path) -> Photos:
    """Gather and clean a recipe's photos from a folder, as the notebook does."""
    recipe = load_recipe(name)
    gathered = gather(recipe, work / name, data=data / name, progress=False)
    report = clean(gathered, progress=False)
    print(f"{name}: {report}\n", file=sys.stderr)
    return load_photos(gathered, recipe.training, groups=report.groups)


def evaluate_splits(name: str, photos: Photos, splits: int, others: Photos | None = None) -> None:
    """Print one row per split, and the means."""
    options = load_recipe(name).training
    with contextlib.redirect_stdout(io.StringIO()):
        network = load_pretrained(options.architecture)
        learn = linear_learner(photos, options, network)
    body = learn.model[0].eval()
    resize = {"size": options.image_size, "method": options.resize}
    features = np.stack(
        [
            pooled_features(photos.paths, body, network, view=v, **resize)
            for v in ("plain", "mirror")
        ]
    )
    prior = prior_of(network, body)
    unknown = None
    if others is not None:
        unknown = pooled_features(others.paths[::8], body, network, **resize)
    targets, rows, predicted = photos.targets, [], []
    for seed in range(splits):
        each = replace(options, seed=seed)
        sides = load_photos(photos.folder, each, groups=photos.groups)
        with contextlib.redirect_stdout(io.StringIO()):
            probe = train_probe(sides, each, network, indices=sides.train, features=features[:1])
        valid, train = np.array(sides.valid), np.array(sides.train)
        last = probe.learn.model[1][-1]  # it has absorbed the temperature
        head = Head(last.weight.detach().numpy(), last.bias.detach().numpy())
        logits = head(features[0, valid]).astype(float)
        fresh = fit_head(
            features[:, train], targets[train], len(photos.vocab), Strength(False, 0.01), prior
        )
        known = energy(logits)
        row = {
            "error": (logits.argmax(1) != targets[valid]).mean(),
            "fresh probe": (fresh(features[0, valid]).argmax(1) != targets[valid]).mean(),
            "calibration": calibration_error(softmax(logits), targets[valid]),
            "accepted": (known >= probe.threshold).mean(),
        }
        predicted.append((softmax(logits), targets[valid]))
        if unknown is not None:
            unknown_scores = energy(head(unknown))
            row["AUROC"] = auroc(known, unknown_scores)
            row["unknown accepted"] = (unknown_scores >= probe.threshold).mean()
        rows.append(row)
        print(f"{name} {seed}: {row}", file=sys.stderr, flush=True)
    print(f"| {name}: split | {' | '.join(rows[0])} |")
    print("| --- " * (len(rows[0]) + 1) + "|")
    for seed, row in enumerate(rows):
        print(f"| {seed} | {' | '.join(_show(*item) for item in row.items())} |")
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    print(f"| mean | {' | '.join(_show(*item) for item in means.items())} |\n", flush=True)
    every = [np.concatenate(parts) for parts in zip(*predicted, strict=True)]
    chance = np.mean([calibrated_error(probabilities) for probabilities, _ in predicted])
    print(
        f"{name}: calibration over the photos of all splits together "
        f"{100 * calibration_error(*every):.2f} %; a model whose probabilities were exactly right "
        f"would show {100 * chance:.2f} % on one split, by chance\n",
        flush=True,
    )


def calibrated_error(probabilities: np.ndarray, draws: int = 200) -> float:
    """Calibration error of a model whose probabilities are exactly right: chance alone."""
    random, top = np.random.default_rng(0), probabilities.max(axis=1)
    errors = []
    for _ in range(draws):
        right = random.random(len(top)) < top
        # Two classes: the prediction, which is right or wrong, with the probability args.
        wins = np.stack([top, np.zeros_like(top)], axis=1)
        errors.append(calibration_error(wins, np.where(right, 0, 1)))
    return float(np.mean(errors))


def _show(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "AUROC" else f"{100 * value:.2f} %"


def evaluate_plain(photos: Photos, size: int, splits: int) -> None:
    """Train the plain recipe of a lesson on splits of bears; print a row each, and the means."""
    options = replace(load_recipe("bears").training, image_size=size, learning_rate=2e-3)
    with contextlib.redirect_stdout(io.StringIO()):
        network = load_pretrained(options.architecture)
    rows = []
    print(f"| bears, plain fine_tune({options.epochs}), {size} px: split | error | seconds |")
    print("| --- | --- | --- |")
    for seed in range(splits):
        each = replace(options, seed=seed)
        sides = load_photos(photos.folder, each, groups=photos.groups)
        start = time.perf_counter()
        learn = plain_learner(sides, each, network)
        with learn.no_bar(), learn.no_logging(), contextlib.redirect_stdout(io.StringIO()):
            train_plain(learn, each)
            error = evaluate_learner(learn).error
        rows.append((error, time.perf_counter() - start))
        print(f"| {seed} | {rows[-1][0]:.2%} | {rows[-1][1]:.0f} |", flush=True)
    mean, seconds = np.mean(rows, axis=0)
    print(f"| mean | {mean:.2%} | {seconds:.0f} |\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds bears/ and dogs/")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="a lesson's fine_tune as well")
    parser.add_argument("--only", choices=["time", "bears", "dogs", "plain"])
    args = parser.parse_args()
    wanted = {args.only} if args.only else {"time", "bears", "dogs"}
    if args.plain:
        wanted.add("plain")
    if "time" in wanted:
        first, second = folder_to_export(args.data / "bears")
        print(
            f"bears, folder to export.pkl: {first}; again, with cached features: {second}\n",
            flush=True,
        )
    if wanted == {"time"}:
        return
    with tempfile.TemporaryDirectory() as work:
        photos = {name: clean_photos(name, args.data, Path(work)) for name in ("bears", "dogs")}
        if "bears" in wanted:
            evaluate_splits("bears", photos["bears"], args.splits, others=photos["dogs"])
        if "dogs" in wanted:
            evaluate_splits("dogs", photos["dogs"], args.splits)
        if "plain" in wanted:
            evaluate_plain(photos["bears"], 224, args.splits)


if __name__ == "__main__":
    main()
