"""Alternatives for training, measured: ``python -m bench.bench_ideas DATA``.

``--only scores`` compares scores for "not sure" (bears against dogs as unknown photos), ``--only
tuning`` gentle fine-tuning of the last stage with the probe that it starts from, on the photos of
``--recipe``. Takes minutes.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench.bench_train import clean_photos
from icon_classifier.dataset.recipes import load_recipe
from icon_classifier.dataset.splits import assign_folds, split
from icon_classifier.model.session import softmax
from icon_classifier.training.evaluation import (
    auroc,
    cautious_threshold,
    energy,
    fit_temperature,
)
from icon_classifier.training.features import first_maps, pooled_features, prior_of
from icon_classifier.training.learners import linear_learner
from icon_classifier.training.pretrained import load_pretrained
from icon_classifier.training.probe import GRID, Head, cross_validate, fit_head
from icon_classifier.training.tuning import last_stage, tune

Score = Callable[[Head, float, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Of a head, its temperature, features and targets of its training photos, features to score."""


def mahalanobis(
    head: Head, temperature: float, known: np.ndarray, targets: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Lee et al. 2018, with a covariance shrunk by a tenth towards a sphere."""
    means = np.stack([known[targets == each].mean(axis=0) for each in np.unique(targets)])
    spread = np.cov((known - means[targets]).T, bias=True)
    sphere = np.trace(spread) / len(spread) * np.eye(len(spread))
    inverse = np.linalg.inv(0.9 * spread + 0.1 * sphere)
    far = [np.einsum("ij,jk,ik->i", asked - mean, inverse, asked - mean) for mean in means]
    return -np.min(far, axis=0)


def nearest(
    head: Head, temperature: float, known: np.ndarray, targets: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Cosine to the fifth nearest photo (Sun et al. 2022)."""
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (known, asked))
    return np.sort(second @ first.T, axis=1)[:, -5]


SCORES: dict[str, Score] = {
    "energy": lambda head, temperature, known, targets, asked: energy(head(asked) / temperature),
    "greatest logit": lambda head, temperature, known, targets, asked: head(asked).max(axis=1),
    "greatest probability": lambda head, temperature, known, targets, asked: softmax(
        head(asked).astype(float) / temperature
    ).max(axis=1),
    "nearest neighbours": nearest,
    "Mahalanobis": mahalanobis,
}


class Setting:
    """Photos of a recipe, the network, and its features of them."""

    def __init__(self, recipe: str, data: Path, work: Path) -> None:
        self.photos = clean_photos(recipe, data, work)
        self.options = load_recipe(recipe).training
        self.network = load_pretrained(self.options.architecture)
        learn = linear_learner(self.photos, self.options, self.network)
        self.body = learn.model[0].cpu().eval()
        self.prior = prior_of(self.network, self.body)
        self.resize = {"size": self.options.image_size, "method": self.options.resize}
        self.features = self.extract(self.photos.paths)[None]
        self.classes = len(self.photos.vocab)

    def extract(self, paths: list[Path]) -> np.ndarray:
        return pooled_features(paths, self.body, self.network, **self.resize)

    def sides(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        share = self.options.valid_share
        found = split(self.photos.labels, self.photos.groups, share, seed)
        return np.array(found.train), np.array(found.valid)

    def fit(self, index: np.ndarray) -> Head:
        targets = self.photos.targets[index]
        return fit_head(self.features[:, index], targets, self.classes, GRID[0], self.prior)


def compare_scores(setting: Setting, unknown_features: np.ndarray, splits: int) -> None:
    print("| score | AUROC | accepted | unknown accepted | 3 %: accepted | unknown accepted |")
    print("| --- | --- | --- | --- | --- | --- |")
    features, targets = setting.features[0], setting.photos.targets
    for name, score in SCORES.items():
        rows = []
        for seed in range(splits):
            train, valid = setting.sides(seed)
            groups = [setting.photos.groups[i] for i in train]
            used = (setting.features[:, train], targets[train], groups, setting.classes)
            logits = cross_validate(*used, GRID[:1], setting.prior, seed=seed)[0]
            temperature = fit_temperature(logits, targets[train])
            folds = assign_folds(targets[train], groups, setting.classes, seed)
            own = np.zeros(len(train))
            for fold in range(int(folds.max()) + 1):
                rest, out = train[folds != fold], train[folds == fold]
                head = setting.fit(rest)
                own[folds == fold] = score(
                    head, temperature, features[rest], targets[rest], features[out]
                )
            head = setting.fit(train)
            known, unknown = (
                score(head, temperature, features[train], targets[train], asked)
                for asked in (features[valid], unknown_features)
            )
            row = [auroc(known, unknown)]
            for threshold in (cautious_threshold(own.tolist()), np.quantile(own, 0.03)):
                row += [(known >= threshold).mean(), (unknown >= threshold).mean()]
            rows.append(row)
        first, *shares = np.mean(rows, axis=0)
        cells = " | ".join(f"{share:.2%}" for share in shares)
        print(f"| {name} | {first:.4f} | {cells} |", flush=True)


def compare_tuning(setting: Setting, splits: int) -> None:
    print("| split | wrong: probe | wrong: tuned | photos |\n| --- | --- | --- | --- |")
    stages = last_stage(setting.body)
    if stages is None:
        raise SystemExit("this network has no last stage that can be tuned alone")
    maps = first_maps(setting.photos.paths, stages.first, setting.network, **setting.resize)
    targets = setting.photos.targets
    for seed in range(splits):
        train, valid = setting.sides(seed)
        probe = setting.fit(train)
        stage, head = tune(stages.last, probe, maps[train], targets[train], seed=seed)
        with torch.inference_mode():
            parts = [stage(each).mean((2, 3)) for each in torch.from_numpy(maps[valid]).split(32)]
        answers = probe(setting.features[0, valid]), head(torch.cat(parts).numpy())
        wrong = [int((each.argmax(1) != targets[valid]).sum()) for each in answers]
        print(f"| {seed} | {wrong[0]} | {wrong[1]} | {len(valid)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds bears/ and dogs/")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", choices=["scores", "tuning"])
    parser.add_argument("--recipe", choices=["bears", "dogs"], default="bears")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        setting = Setting(args.recipe, args.data, Path(work))
        if args.only in (None, "scores"):
            other = {"bears": "dogs", "dogs": "bears"}[args.recipe]
            paths = clean_photos(other, args.data, Path(work)).paths[::8]
            compare_scores(setting, setting.extract(paths), args.splits)
        if args.only in (None, "tuning"):
            compare_tuning(setting, args.splits)


if __name__ == "__main__":
    main()
