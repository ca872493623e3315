"""Say what would make a model better: more photos, of which class, or better ones.

Nothing is computed by the network: heads are fitted to the features that training has computed.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ImageFilter

from icon_classifier.dataset.splits import assign_folds
from icon_classifier.dataset.store import original_name
from icon_classifier.images import read_image_file, shrink
from icon_classifier.system.memory import usable_cores
from icon_classifier.training.evaluation import wilson_interval
from icon_classifier.training.features import prior_of
from icon_classifier.training.probe import Prior, Strength, fit_head
from icon_classifier.training.training import Probe

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the photos that the learning curve is computed for."""

_REPEATS = 2
"""How often each smaller share is drawn: one draw of few photos is chance."""

_CERTAIN = 1.64
"""Standard errors by which half of the photos must be worse than all: 95 % confidence."""

_SMALL = 0.25
"""If doubling the photos demonstrably saves less than this share of the errors, more will hardly
help."""

_SIDE = 256
"""Longer side at which sharpness is compared (pixels), so that a larger photo is not blurred."""

_FAR = 3.5
"""Robust standard deviations from the median at which a photo is unlike the others."""

_DARK = 70
"""Mean brightness (0 to 255) above which no photo is called dark."""

_MORE_OFTEN = 1.5
"""How many times as often as the others blurred and dark photos must be wrong to matter."""

_EXAMPLES = 3  # how many of a kind are named

_EDGES = ImageFilter.Kernel((3, 3), (0, -1, 0, -1, 4, -1, 0, -1, 0), scale=1, offset=128)


@dataclass(frozen=True)
class Point:
    """A point of a learning curve.

    Attributes
    ----------
    photos : int
        How many photos heads were fitted to.
    error, uncertainty : float
        Share of wrong answers for photos that they were not fitted to, and its standard error.
    """

    photos: int
    error: float
    uncertainty: float


@dataclass(frozen=True)
class Advice:
    """What would make a model better.

    Attributes
    ----------
    curve : tuple of Point
        One for each of `SHARES`.
    more, which, quality : str
        A sentence each: whether more photos would help, of which class, and how good they are.
    """

    curve: tuple[Point, ...]
    more: str
    which: str
    quality: str

    def __str__(self) -> str:
        return "\n".join((self.more, self.which, self.quality))


def advise(probe: Probe) -> Advice:
    """Say what would make a model better, in seconds."""
    photos, choice = probe.photos, probe.choice
    prior = prior_of(probe.pretrained, probe.learn.model[0].cpu())
    smaller = wrong_by_share(
        *(probe.features, photos.targets, photos.groups, len(photos.vocab), choice.strength, prior),
        seed=probe.training.seed,
    )
    answers = choice.logits.argmax(axis=1)
    wrong = np.vstack([smaller, answers != photos.targets])  # (S, N)
    return Advice(
        tuple(_point(share, row) for share, row in zip(SHARES, wrong, strict=True)),
        advise_on_count(wrong),
        advise_on_classes(photos.targets, answers, photos.vocab),
        advise_on_quality(photos.paths, wrong[-1] > 0),
    )


def wrong_by_share(
    features: Floats,
    targets: Integers,
    groups: Sequence[int],
    classes: int,
    strength: Strength,
    prior: Prior | None,
    *,
    seed: int = 42,
) -> npt.NDArray[np.float64]:
    """Compute how often each photo is wrong by heads fitted to a share of the others.

    Parameters
    ----------
    features, targets, groups, classes, strength, prior, seed
        As for :func:`~icon_classifier.training.probe.cross_validate`, which has computed the last
        of `SHARES`.

    Returns
    -------
    numpy.ndarray
        float64, shape (S - 1, N), 0 to 1: for each smaller share, the mean over its draws.
    """
    folds = assign_folds(targets, groups, classes, seed)
    smaller = SHARES[:-1]
    wrong = np.zeros((len(smaller), len(targets)))
    for index, share in enumerate(smaller):
        for draw in range(_REPEATS):
            # The same order for each share: half of the photos contains the quarter.
            order = np.random.default_rng([seed, draw]).permutation(len(targets))
            for fold in range(int(folds.max()) + 1):
                out = folds == fold
                rest = order[~out[order]]
                chosen = np.concatenate(
                    [_first(rest[targets[rest] == each], share) for each in range(classes)]
                )
                head = fit_head(features[:, chosen], targets[chosen], classes, strength, prior)
                answers = head(features[0, out]).argmax(axis=1)
                wrong[index, out] += (answers != targets[out]) / _REPEATS
    return wrong


def _first(indices: Integers, share: float) -> Integers:
    """Return a share of the indices, at least one."""
    return indices[: max(1, round(share * len(indices)))]


def _point(share: float, wrong: npt.NDArray[np.float64]) -> Point:
    count = len(wrong)
    return Point(round(share * count), float(wrong.mean()), float(wrong.std() / count**0.5))


def advise_on_count(wrong: npt.NDArray[np.float64]) -> str:
    """Say whether more photos would help.

    Parameters
    ----------
    wrong : numpy.ndarray
        Shape (S, N), 0 to 1: how often each photo is wrong, for each of `SHARES`.
    """
    half, whole = wrong[SHARES.index(0.5)], wrong[-1]
    gain = half - whole
    before, now = float(half.mean()), float(whole.mean())
    count = len(whole)
    counts = (
        f"trained on half of them, the model gets {round(before * count)} of {count} wrong, on all "
        f"of them {round(now * count)}"
    )
    # One photo more may have changed: no difference among a few photos proves nothing.
    uncertainty = _CERTAIN * math.sqrt(count * gain.var() + 1) / count
    if gain.mean() > uncertainty and now > 0:
        # Errors fall by about the same factor each time that photos are doubled.
        twice = round(now * now / before * count)
        return f"More photos will help: {counts}; with twice as many perhaps {twice}."
    if now == 0:
        high = wilson_interval(0, count)[1]
        return (
            f"None of {count} photos is wrong, but up to {high:.1%} of new ones may be; only more "
            "photos can tell."
        )
    if gain.mean() + uncertainty > _SMALL * now:
        return f"There are too few photos to tell whether more would help: {counts}."
    return f"More photos of this kind will hardly help: {counts}."


def advise_on_classes(targets: Integers, answers: Integers, vocab: Sequence[str]) -> str:
    """Say which class is wrong most often or has too few photos, and which two are confused most.

    Where one error less would make another class or pair the first, that is not clear: up to three
    classes are then named, and no pair.

    Parameters
    ----------
    targets, answers : numpy.ndarray
        int64, shape (N,): the index of the label and of the answer of each photo.
    vocab : sequence of str
        The labels.
    """
    photos = np.bincount(targets, minlength=len(vocab))
    errors = np.bincount(targets[answers != targets], minlength=len(vocab))
    # One more error of two more photos: a class of three photos is uncertain, though all are right.
    worst = int(((errors + 1) / (photos + 2)).argmax())
    if not errors.any():
        if photos.min() == photos.max():
            return f"Each class has {photos.min()} photos."
        return f"{_have(vocab, photos == photos.min())} the fewest photos, {photos.min()}."
    if not errors[worst]:
        alike = (errors == 0) & (photos == photos[worst])
        sentence = f"{_have(vocab, alike)} too few photos to tell, {photos[worst]}"
    else:
        alike = (errors > 0) & (errors * photos[worst] >= (errors[worst] - 1) * photos)
        counts = [
            f"{vocab[i]} ({errors[i]} of {photos[i]})" for i in np.flatnonzero(alike).tolist()
        ]
        if len(counts) == 1:
            sentence = f"{vocab[worst]} is wrong most often, {errors[worst]} of {photos[worst]}"
        elif len(counts) <= _EXAMPLES:
            sentence = f"{_listed(counts)} are wrong most often"
        else:
            sentence = "No single class is wrong most often"
    if len(vocab) == 2:
        return f"{sentence}."
    pairs = Counter(
        tuple(sorted((int(target), int(answer))))
        for target, answer in zip(targets, answers, strict=True)
        if target != answer
    )
    (first, second), count = pairs.most_common(1)[0]
    if sum(each >= count - 1 for each in pairs.values()) > 1:
        return f"{sentence}."
    times = "once" if count == 1 else f"{count} times"
    return f"{sentence}; {vocab[first]} and {vocab[second]} are confused most, {times}."


def _have(vocab: Sequence[str], chosen: npt.NDArray[np.bool_]) -> str:
    """Return the chosen labels, or how many they are, and "has" or "have"."""
    labels = [vocab[i] for i in np.flatnonzero(chosen).tolist()]
    if len(labels) > _EXAMPLES:
        return f"{len(labels)} classes have"
    return f"{_listed(labels)} {'has' if len(labels) == 1 else 'have'}"


def _listed(names: Sequence[str]) -> str:
    """Join names: ``cat, dog and fox``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def advise_on_quality(paths: Sequence[Path], wrong: npt.NDArray[np.bool_]) -> str:
    """Say which photos are far more blurred or darker than the others, and whether that matters.

    Parameters
    ----------
    paths : sequence of Path
        N photos.
    wrong : numpy.ndarray
        bool, shape (N,).
    """
    with ThreadPoolExecutor(usable_cores()) as pool:  # decoding releases the interpreter lock
        sharpness, brightness = np.array(list(pool.map(_measure, paths))).T  # (N, 2) -> (2, N)
    blurred = _far_below(sharpness)
    dark = _far_below(brightness) & (brightness < math.log(_DARK))
    poor = blurred | dark
    if not poor.any():
        return "No photo is far more blurred or darker than the others."
    kinds = (("Far more blurred", blurred), ("Far darker", dark))
    found = " ".join(
        f"{name} than the others: {_named(paths, each)}." for name, each in kinds if each.any()
    )
    theirs, others = wrong[poor], wrong[~poor]
    counts = (
        f"{found} Of these, the model gets {theirs.sum()} of {len(theirs)} wrong, of the others "
        f"{others.sum()} of {len(others)}"
    )
    usual = _MORE_OFTEN * others.mean() * len(theirs)
    # With one error less it must still be so: a single one is chance.
    if theirs.sum() - 1 > usual:
        return f"{counts}: replace these."
    if theirs.sum() > usual:
        return f"{counts}, which may be chance."
    return f"{found} {'These are hardly wrong more often' if wrong.any() else 'None is wrong'}."


def _named(paths: Sequence[Path], chosen: npt.NDArray[np.bool_]) -> str:
    """Return how many photos are chosen, and the names of the first."""
    names = [original_name(paths[i]) for i in np.flatnonzero(chosen).tolist()]
    more = ["…"] if len(names) > _EXAMPLES else []
    return f"{len(names)} ({', '.join(names[:_EXAMPLES] + more)})"


def _measure(path: Path) -> tuple[float, float]:
    """Return the logarithms of sharpness (variance of the edges) and of the mean brightness."""
    grey = shrink(read_image_file(path), _SIDE).convert("L")
    edges = np.asarray(grey.filter(_EDGES), np.float64)[1:-1, 1:-1]
    return math.log(edges.var() + 1), math.log(np.asarray(grey).mean() + 1)


def _far_below(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which values are far below the others, by median and median deviation."""
    distance = np.median(values) - values
    spread = 1.4826 * np.median(np.abs(distance))  # the standard deviation of normal values
    return np.asarray(distance > _FAR * spread + 1e-6)
