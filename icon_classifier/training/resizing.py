"""Choose by cross-validation at which size the network sees photos, and how they get there.

A larger size shows more detail and costs more time for each prediction; cropping cuts off what lies
outside the square, squishing distorts. Which of them is better depends on the photos.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icon_classifier.dataset.recipes import Training
from icon_classifier.training.features import Method
from icon_classifier.training.novelty import in_turn
from icon_classifier.training.probe import Prior, Strength, choose

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

SIZES = (224, 320, 448)
METHODS: tuple[Method, ...] = ("crop", "squish")

MAX_PHOTOS = 500
"""How many photos are tried at most, one of each class in turn and no near-duplicates."""

_PER_CLASS = 5
"""How many of each class are tried however many classes there are: one for each fold."""

_GRID = (Strength(True, 0.1), Strength(False, 0.1))
"""The order of sizes hardly depends on how heads are fitted."""


@dataclass(frozen=True)
class Trial:
    """One way to resize photos, and which of them were then wrong.

    Attributes
    ----------
    size, method
        As in :class:`~icon_classifier.dataset.recipes.Training`.
    wrong : numpy.ndarray
        Shape (N,): 0 where a photo was right; the others add up to
        :func:`~icon_classifier.training.probe.balanced_errors`.
    """

    size: int
    method: Method
    wrong: npt.NDArray[np.float64]

    @property
    def balanced_errors(self) -> float:
        """How many of N photos were wrong, with the photos of all classes counted alike."""
        return float(self.wrong.sum())


def choose_resizing(
    extract: Callable[[Integers, int, Method], Floats],
    targets: Integers,
    groups: Sequence[int],
    classes: int,
    prior: Prior | None,
    training: Training,
) -> tuple[int, Method]:
    """Choose size and method where `training` leaves them open, and print what was tried.

    The methods are compared at the smallest size, the sizes with the better method. Of all sizes
    whose errors are within a standard error of the fewest, the smallest is chosen (the
    one-standard-error rule, Breiman et al. 1984). Nothing larger is tried after a size that made
    more errors than the smallest, or where a smaller one would be chosen even if the larger one
    made none.

    Parameters
    ----------
    extract : callable
        Returns features (n, F) of the photos of n indices, resized to a size by a method.
    targets : numpy.ndarray
        int64, shape (N,).
    groups : sequence of int
        Near-duplicates share a number.
    classes : int
        Number of classes.
    prior : Head or None
        The network's own classifier.
    training : Training
        Its ``image_size`` and ``resize`` are None where they are open.

    Returns
    -------
    size : int
        Side of the square that the network sees (pixels).
    method : {"crop", "squish", "pad"}
        How a photo is brought to that square.
    """
    sizes = SIZES if training.image_size is None else (training.image_size,)
    methods = METHODS if training.resize is None else (training.resize,)
    if len(sizes) == len(methods) == 1:
        return sizes[0], methods[0]
    first = np.unique(groups, return_index=True)[1]
    index = first[in_turn(targets[first], training.seed)[: max(MAX_PHOTOS, _PER_CLASS * classes)]]
    some, their_groups = targets[index], [groups[i] for i in index]

    counts = np.bincount(some, minlength=classes)
    weights = (len(some) / (classes * counts))[some]

    def attempt(size: int, method: Method) -> Trial:
        features = extract(index, size, method)[None]
        found = choose(features, some, their_groups, classes, prior, grid=_GRID, seed=training.seed)
        return Trial(size, method, weights * (found.logits.argmax(axis=1) != some))

    trials = [attempt(sizes[0], method) for method in methods]
    best = min(trials, key=lambda trial: trial.balanced_errors)
    candidates = [best]
    for size in sizes[1:]:
        perfect = Trial(size, best.method, np.zeros(len(index)))
        worse = candidates[-1].balanced_errors > best.balanced_errors
        if worse or _cheapest([*candidates, perfect]) is not perfect:
            break
        candidates.append(attempt(size, best.method))
    trials += candidates[1:]
    chosen = _cheapest(candidates)
    tried = ", ".join(
        f"{each.size} px {each.method} {100 * each.balanced_errors / len(index):.1f} %"
        for each in trials
    )
    price = (chosen.size / sizes[0]) ** 2
    print(
        f"Error with all classes weighted equally, by size and resizing: {tried}. Chosen: "
        f"{chosen.size} px, {chosen.method}, the smallest that is not clearly worse"
        + (
            f"; a prediction takes {price:.0f} times as long as at {sizes[0]} px."
            if price > 1
            else "."
        )
    )
    return chosen.size, chosen.method


def _cheapest(trials: Sequence[Trial]) -> Trial:
    """Return the first of trials, the cheapest first, within a standard error of the best.

    It is the error of the difference, since all were tried on the same photos.
    """
    best = min(trials, key=lambda trial: trial.balanced_errors)
    differences = [trial.wrong - best.wrong for trial in trials]
    return next(
        trial
        for trial, each in zip(trials, differences, strict=True)
        if each.sum() <= (each**2).sum() ** 0.5
    )
