"""From a folder of photos to an export.pkl that knows how good it is.

The public face; the parts are pretrained, features, probe, learners, exporting, and (without torch)
judging, card and diagnosing. They stand apart from what serves a page.

Two ways lead to a Learner. The plain one is that of a lesson: a fresh head, then ``fine_tune``. The
careful one computes what the frozen network sees in each photo once, and fits a linear head to it
that starts at the network's own knowledge; on a few hundred photos it errs less, and takes seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from icon_classifier.dataset.recipes import Recipe, Training
from icon_classifier.errors import TrainingError
from icon_classifier.training.calibration import fit_temperature
from icon_classifier.training.diagnosis import diagnose as diagnose
from icon_classifier.training.evaluation import Figures, judge
from icon_classifier.training.export import cautious_threshold, fingerprint, save_export, versions
from icon_classifier.training.export import write_classes as write_classes
from icon_classifier.training.features import pooled_features, prior_of
from icon_classifier.training.learners import (
    Photos,
    linear_learner,
    quiet,
)
from icon_classifier.training.learners import find_rate as find_rate
from icon_classifier.training.learners import load_photos as load_photos
from icon_classifier.training.learners import plain_learner as plain_learner
from icon_classifier.training.learners import train_plainly as train_plainly
from icon_classifier.training.learners import train_staged as train_staged
from icon_classifier.training.model_card import Card, write_card
from icon_classifier.training.pretrained import Pretrained, load_pretrained
from icon_classifier.training.probe import Choice, Head, choose, fit_head
from icon_classifier.training.tuning import try_tuning

import torch  # isort: skip

FORMAT = 1
"""Of ``learn.icon_classifier``."""

Floats = npt.NDArray[np.float32]


@dataclass
class Probe:
    """A Learner that was trained carefully, and what is known of it.

    Attributes
    ----------
    learn : fastai.learner.Learner
        Ready to predict and to export.
    photos : Photos
        What it was trained on.
    training : Training
        How.
    pretrained : Pretrained
        The network that it started from.
    features : numpy.ndarray
        float32, shape (V, N, F): what that network sees in V views of N photos.
    choice : Choice
        How the head was fitted, and the logits of each photo by a head that had not seen it.
    temperature, threshold : float
        What the head was divided by to make it honest, and the energy below which a photo is "not
        sure".
    figures : Figures
        Of all photos, each judged by a head that had not seen it.
    tuning : str
        What became of gentle fine-tuning, in words.
    """

    learn: Any
    photos: Photos
    training: Training
    pretrained: Pretrained
    features: Floats = field(repr=False)
    choice: Choice = field(repr=False)
    temperature: float
    threshold: float
    figures: Figures = field(repr=False)
    tuning: str = "not tried"


def train_probe(
    photos: Photos,
    training: Training,
    pretrained: Pretrained | None = None,
    *,
    on: Sequence[int] | None = None,
    features: Floats | None = None,
    cache: Path | None = None,
    progress: bool = True,
) -> Probe:
    """Train carefully: look at each photo once, cross-validate, fit, calibrate.

    A head that starts at the network's own knowledge learns nothing new from mirror images; one
    that starts at nothing does, so they are looked at only where that one is chosen.

    Parameters
    ----------
    photos : Photos
        What to train on.
    training : Training
        Size of pictures and seed.
    pretrained : Pretrained, optional
        The network; loaded by its name otherwise.
    on : sequence of int, optional
        Indices of the photos to train on; all of them if missing, since those held out in turn by
        cross-validation have done the judging.
    features : numpy.ndarray, optional
        What an earlier probe saw of the same photos (:attr:`Probe.features`).
    cache : Path, optional
        A folder to keep features in, for the next run on the same photos.
    progress : bool
        Show a bar.

    Raises
    ------
    DatasetError
        If a photo cannot be read, or a class has fewer than two different ones.
    TrainingError
        If the pretrained weights cannot be had.
    """
    chosen = pretrained or load_pretrained(training.architecture, training.offline_architecture)
    learn = linear_learner(photos, training, chosen)
    body = learn.model[0].cpu().eval()
    look = partial(
        pooled_features,
        photos.paths,
        body,
        chosen,
        size=training.image_size,
        method=training.resize,
        cache=cache,
        progress=progress,
    )
    features = look()[None] if features is None else features
    index = np.arange(len(photos.paths)) if on is None else np.asarray(on, int)
    targets, groups = photos.targets[index], [photos.groups[i] for i in index]
    classes, prior = len(photos.vocab), prior_of(chosen, body)
    choice = choose(features[:, index], targets, groups, classes, prior, seed=training.seed)
    if not choice.strength.prior and len(features) == 1:
        features = np.concatenate([features, look(view="mirror")[None]])
        choice = choose(features[:, index], targets, groups, classes, prior, seed=training.seed)
    seen = features[:, index]
    head, told = fit_head(seen, targets, classes, choice.strength, prior), "not tried"
    if training.tune:
        choice, head, told = try_tuning(
            body,
            chosen,
            training,
            [photos.paths[i] for i in index],
            (seen, targets, groups),
            (choice, head, prior),
            progress=progress,
        )
    temperature = fit_temperature(choice.logits, targets)
    # A linear head takes the temperature in: fastai's own predict is then as honest as the page,
    # and both give the same numbers.
    install_head(learn, Head(head.weight / temperature, head.bias / temperature))
    scores = energy(choice.logits / temperature)
    threshold = cautious_threshold(scores.tolist())
    figures = judge(
        choice.logits,
        targets,
        photos.vocab,
        temperature=temperature,
        scores=scores,
        threshold=threshold,
    )
    known = features, choice, temperature, threshold, figures, told
    return Probe(learn, photos, training, chosen, *known)


def install_head(learn: Any, head: Head) -> None:
    """Copy a linear head into a Learner's last layer."""
    last = learn.model[1][-1]
    if tuple(last.weight.shape) != head.weight.shape:
        raise TrainingError(f"expected a head {tuple(last.weight.shape)}, got {head.weight.shape}")
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(head.weight))
        last.bias.copy_(torch.from_numpy(head.bias))


def energy(logits: npt.ArrayLike, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Score how familiar photos look (Liu et al. 2020); higher is more.

    Parameters
    ----------
    logits : array_like
        Shape (N, C).
    temperature : float
        As the model's probabilities use it.

    Returns
    -------
    numpy.ndarray
        Shape (N,).
    """
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(axis=1, keepdims=True)
    return np.asarray(temperature * (np.log(np.exp(scaled - top).sum(axis=1)) + top[:, 0]))


def learner_logits(learn: Any) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Run a Learner on its validation photos: logits (N, C) and targets (N,)."""
    with quiet():
        outputs, targets = learn.get_preds(act=lambda logits: logits)
    return outputs.float().numpy(), np.asarray(targets.numpy(), np.int64)


def judge_learner(learn: Any) -> Figures:
    """Judge a Learner by its validation photos; its temperature is fitted on the same ones."""
    logits, targets = learner_logits(learn)
    return judge(
        logits, targets, list(learn.dls.vocab), temperature=fit_temperature(logits, targets)
    )


def export(probe: Probe, recipe: Recipe, path: str | Path = "export.pkl") -> Path:
    """Write export.pkl, its SHA-256 and its model card.

    Parameters
    ----------
    probe : Probe
        What was trained.
    recipe : Recipe
        Its title and its use stand in the card.
    path : str or Path
        The file to write.
    """
    photos, training, figures = probe.photos, probe.training, probe.figures
    data, strength = fingerprint(photos.paths, photos.labels), probe.choice.strength
    start = "the network's own classifier" if strength.prior else "nothing"
    settings = {
        "image size": f"{training.image_size} px, {training.resize}",
        "head": f"linear, started at {start}, L2 penalty {strength.penalty:g}",
        "gentle fine-tuning": probe.tuning,
        "recipe": recipe.name,
        "seed": training.seed,
    }
    notes: dict[str, Any] = {
        "format": FORMAT,
        "temperature": 1.0,  # the head has taken it in
        "unsure": {"score": "energy", "threshold": probe.threshold},
        "recipe": recipe.name,
        "figures": figures.to_json(),
        "versions": versions(),
        "seed": training.seed,
        "data": data,
        "network": {"architecture": probe.pretrained.name, "weights": probe.pretrained.source},
        "training": settings,
    }
    written = save_export(probe.learn, notes, path)
    counts = ", ".join(f"{count} of {label}" for label, count in data["classes"].items())
    card = Card(
        title=recipe.title,
        use=recipe.use or "Telling its classes apart.",
        labels=photos.vocab,
        architecture=f"{probe.pretrained.name}, weights from {probe.pretrained.source}",
        data=f"{data['photos']} photos: {counts}.",
        fingerprint=data["sha256"],
        split="Each was judged in turn by a head fitted without it (5-fold cross-validation, "
        "near-duplicates together); the head in the file was then fitted on all of them.",
        figures=figures,
        score="energy",
        training=settings,
        versions=notes["versions"],
        date=probe.learn.icon_classifier["date"],
    )
    write_card(card, written.parent)
    return written
