"""Train a linear probe on photos, and export it with its figures.

There are two ways to train a Learner. The plain one is that of a lesson: a new head, then
``fine_tune`` (see :mod:`~icon_classifier.training.lesson`). This one computes the features of
each photo once with the frozen network, and fits a linear head that starts at the network's own
classifier; on a few hundred photos it makes fewer errors, and takes seconds.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icon_classifier.conversion.convert import convert
from icon_classifier.dataset.recipes import Recipe, Training
from icon_classifier.dataset.sources.credits import credit_lines
from icon_classifier.dataset.splits import assign_folds
from icon_classifier.errors import TrainingError
from icon_classifier.model.info import read_metadata
from icon_classifier.training.evaluation import Figures, evaluate, fit_temperature
from icon_classifier.training.export import describe_photos, save_export, versions
from icon_classifier.training.features import pooled_features, prior_of
from icon_classifier.training.learners import Photos, data_loaders, linear_learner, quiet
from icon_classifier.training.model_card import Card, write_card
from icon_classifier.training.novelty import (
    Bank,
    choose_threshold,
    held_out_similarity,
    make_bank,
    to_notes,
)
from icon_classifier.training.pretrained import Pretrained, load_pretrained
from icon_classifier.training.probe import UNBALANCED, Choice, Head, choose, fit_head
from icon_classifier.training.resizing import choose_resizing

import torch  # isort: skip

Floats = npt.NDArray[np.float32]

_FORMAT = 1
"""Version of the notes in ``learn.icon_classifier``."""


@dataclass
class Probe:
    """A Learner with a linear head, and what is known of it.

    Attributes
    ----------
    learn : fastai.learner.Learner
        Ready to predict and to export.
    photos : Photos
        What it was trained on.
    training : Training
        How, with the size and the method of resizing that were chosen.
    pretrained : Pretrained
        The network that it started from.
    features : numpy.ndarray
        float32, shape (V, N, F): of V views of N photos.
    choice : Choice
        How the head was fitted, and the logits of each photo by a head fitted without it.
    temperature : float
        What the head was divided by to calibrate it.
    bank, threshold
        Features of its photos, and the similarity to them below which a photo is "not sure".
    folds : int
        How many folds cross-validation had.
    figures : Figures
        Of all photos, each predicted by a head fitted without it.
    """

    learn: Any
    photos: Photos
    training: Training
    pretrained: Pretrained
    features: Floats = field(repr=False)
    choice: Choice = field(repr=False)
    temperature: float
    bank: Bank = field(repr=False)
    threshold: float
    folds: int
    figures: Figures = field(repr=False)


def train_probe(
    photos: Photos,
    training: Training,
    pretrained: Pretrained | None = None,
    *,
    indices: Sequence[int] | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Probe:
    """Train a linear probe: compute features, cross-validate, fit, calibrate.

    A head that starts at the network's own classifier learns nothing new from mirror images; one
    that starts at zero does, so their features are computed only where that one is chosen.

    Parameters
    ----------
    photos : Photos
        What to train on.
    training : Training
        Size of pictures, how they are resized and seed; what is None is chosen by
        cross-validation.
    pretrained : Pretrained, optional
        The network; loaded by its name otherwise.
    indices : sequence of int, optional
        The photos to train on; all of them if missing, since cross-validation evaluates the head
        on photos held out in turn.
    cache : Path, optional
        A folder to keep features in, for the next run on the same photos.
    progress : bool
        Show a progress bar on stderr.

    Raises
    ------
    DatasetError
        If a photo cannot be read, or a class has fewer than two different ones.
    TrainingError
        If the pretrained weights cannot be loaded.
    """
    chosen = pretrained or load_pretrained(training.architecture, training.offline_architecture)
    index = np.arange(len(photos.paths)) if indices is None else np.asarray(indices, int)
    targets, groups = photos.targets[index], [photos.groups[i] for i in index]
    classes = len(photos.vocab)
    learn = linear_learner(photos, training, chosen)
    body = learn.model[0].cpu().eval()
    prior = prior_of(chosen, body)
    extract = partial(pooled_features, body=body, pretrained=chosen, cache=cache, progress=progress)
    _check_balance(photos)
    size, method = choose_resizing(
        lambda some, size, method: extract(
            [photos.paths[i] for i in index[some]], size=size, method=method
        ),
        targets,
        groups,
        classes,
        prior,
        training,
    )
    training = replace(training, image_size=size, resize=method)
    learn.dls = data_loaders(photos, training, chosen, random_crop=False)
    compute = partial(extract, photos.paths, size=size, method=method)
    features = compute()[None]
    choice = choose(features[:, index], targets, groups, classes, prior, seed=training.seed)
    if not choice.strength.prior:
        both = np.concatenate([features, compute(view="mirror")[None]])
        again = choose(both[:, index], targets, groups, classes, prior, seed=training.seed)
        if again.balanced_errors < choice.balanced_errors:
            features, choice = both, again
    used = features[:, index]
    head = fit_head(used, targets, classes, choice.strength, prior)
    temperature = fit_temperature(choice.logits, targets)
    # The linear head absorbs the temperature: fastai's own predict is then calibrated as well, and
    # returns the same numbers as the page.
    install_head(learn, Head(head.weight / temperature, head.bias / temperature))
    folds = assign_folds(targets, groups, classes, training.seed)
    scores = held_out_similarity(used[0], targets, folds, seed=training.seed)
    threshold = choose_threshold(scores)
    figures = evaluate(
        choice.logits,
        targets,
        photos.vocab,
        temperature=temperature,
        scores=scores,
        threshold=threshold,
    )
    return Probe(
        learn,
        photos,
        training,
        chosen,
        features=features,
        choice=choice,
        temperature=temperature,
        bank=make_bank(used[0], targets, seed=training.seed),
        threshold=threshold,
        folds=int(folds.max()) + 1,
        figures=figures,
    )


def _check_balance(photos: Photos) -> None:
    """Print how many photos each class has where one has far fewer than another."""
    counts = Counter(photos.labels).most_common()
    (common, most), (rare, fewest) = counts[0], counts[-1]
    if most >= UNBALANCED * fewest:
        print(
            f"!! Unbalanced: {most} photos of {common}, only {fewest} of {rare}. Look at the mean "
            f"recall, not only at the error, and add photos of {rare}."
        )


def install_head(learn: Any, head: Head) -> None:
    """Copy a linear head into a Learner's last layer."""
    last = learn.model[1][-1]
    if tuple(last.weight.shape) != head.weight.shape:
        raise TrainingError(f"expected a head {tuple(last.weight.shape)}, got {head.weight.shape}")
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(head.weight))
        last.bias.copy_(torch.from_numpy(head.bias))


def evaluate_learner(learn: Any) -> Figures:
    """Evaluate a Learner on its validation photos; its temperature is fitted on the same ones."""
    with quiet():
        outputs, classes = learn.get_preds(act=lambda logits: logits)
    logits, targets = outputs.float().numpy(), classes.numpy()  # (N, C), (N,)
    return evaluate(
        logits, targets, list(learn.dls.vocab), temperature=fit_temperature(logits, targets)
    )


def export_probe(
    probe: Probe, recipe: Recipe, path: str | Path = "export.pkl", *, int8: bool = False
) -> Path:
    """Write export.pkl and its model card.

    Parameters
    ----------
    probe : Probe
        What was trained.
    recipe : Recipe
        Its title and its use go into the card.
    path : str or Path
        The file to write.
    int8 : bool, optional
        Whether export.onnx is to be of 8-bit integers. They are calibrated on the photos of the
        training; the file holds the ranges, so that ``convert`` needs no photos.

    Raises
    ------
    ConversionError
        With 8-bit integers too many labels change. Nothing is written then.
    """
    photos, training, figures = probe.photos, probe.training, probe.figures
    data, strength = describe_photos(photos.paths, photos.labels), probe.choice.strength
    start = "the network's own classifier" if strength.prior else "zero"
    weights = ", each class with the same weight" if strength.balanced else ""
    settings = {
        "image size": f"{training.image_size} px, {training.resize}",
        "head": f"linear, started at {start}, L2 penalty {strength.penalty:g}{weights}",
        **({} if recipe.source == "folder" else {"recipe": recipe.name}),
        "seed": training.seed,
    }
    notes: dict[str, Any] = {
        "format": _FORMAT,
        "temperature": 1.0,  # the head has absorbed it
        "unsure": to_notes(probe.bank, probe.threshold),
        "recipe": recipe.name,
        "figures": figures.to_json(),
        "versions": versions(),
        "seed": training.seed,
        "data": data,
        "network": {"architecture": probe.pretrained.name, "weights": probe.pretrained.source},
        "training": settings,
    }
    folder = photos.paths[0].parents[1]
    if int8:
        with tempfile.TemporaryDirectory() as trial:
            plain = save_export(probe.learn, notes, Path(trial) / "export.pkl")
            notes["int8"] = read_metadata(convert(plain, int8=folder))["int8"]
    written = save_export(probe.learn, notes, path)
    counts = ", ".join(f"{count} of {label}" for label, count in data["classes"].items())
    card = Card(
        title=recipe.title,
        use=recipe.use or f"Telling {', '.join(photos.vocab)} apart.",
        labels=photos.vocab,
        architecture=f"{probe.pretrained.name}, weights from {probe.pretrained.source}",
        data=f"{data['photos']} photos: {counts}.",
        fingerprint=data["sha256"],
        split=f"Each was predicted by a head fitted without it ({probe.folds}-fold "
        "cross-validation, near-duplicates together); the head in the file was then fitted on all "
        "of them.",
        figures=figures,
        training=settings,
        versions=notes["versions"],
        date=probe.learn.icon_classifier["date"],
        credits=credit_lines(folder),
    )
    write_card(card, written.parent)
    return written
