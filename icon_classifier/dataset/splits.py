"""Splits and folds of photos in which near-duplicates stay on one side."""

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from icon_classifier.errors import DatasetError

_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Which photos to train on and which to validate with.

    Attributes
    ----------
    train, valid : list of int
        Indices into the labels that were given, in rising order; each index is in one of them.
    """

    train: list[int]
    valid: list[int]


def split(
    labels: Sequence[str],
    groups: Sequence[int],
    valid_share: float = 0.2,
    seed: int = 42,
    *,
    valid: Collection[int] = (),
) -> Split:
    """Split photos as their owner did or at random, with near-duplicates kept on one side.

    Parameters
    ----------
    labels : sequence of str
        The label of each photo. Their order matters: sort the photos to get the same split on
        another machine.
    groups : sequence of int
        Near-duplicates share a number; see
        :func:`~icon_classifier.dataset.duplicates.group_pairs`.
    valid_share : float
        Share of each class that goes to validation, above 0 and below 1; at least one photo of
        each class stays on either side.
    seed : int
        Seed of the random order.
    valid : collection of int
        Indices of the photos that their owner keeps for validation. The others are for training,
        and so are near-duplicates of those; a class of which none is left for validation, or for
        training, is split at random.

    Returns
    -------
    Split

    Raises
    ------
    DatasetError
        If the lengths differ, the share is out of range, or a class has too few different photos
        to be on both sides.
    """
    if len(labels) != len(groups):
        raise DatasetError(
            f"expected one group per photo, got {len(labels)} labels and {len(groups)} groups"
        )
    if not 0 < valid_share < 1:
        raise DatasetError(f"expected a validation share between 0 and 1, got {valid_share}")
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    sizes = Counter(labels)
    quota = {
        label: min(max(1, round(valid_share * size)), size - 1) for label, size in sizes.items()
    }
    order = list(members.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    own = set(valid)
    chosen = {i for group in order if own.issuperset(group) for i in group}
    owned = {labels[i] for i in chosen} & {labels[i] for i in set(range(len(labels))) - chosen}
    kept = {i for i in chosen if labels[i] in owned}
    order = [group for group in order if not {labels[i] for i in group} & owned]
    chosen = kept | _fill(order, labels, {label: quota[label] for label in set(quota) - owned})
    train = sorted(set(range(len(labels))) - chosen)
    missing = (set(labels) - {labels[i] for i in chosen}) | (
        set(labels) - {labels[i] for i in train}
    )
    if missing:
        raise DatasetError(
            f"too few different photos of {', '.join(sorted(missing))}: near-duplicates stay "
            "together, so each class needs at least two that differ"
        )
    return Split(train, sorted(chosen))


def _fill(order: list[list[int]], labels: Sequence[str], quota: dict[str, int]) -> set[int]:
    """Take whole groups, in order, while each fits into the quota of its labels."""
    chosen: set[int] = set()
    left = dict(quota)
    for group in order:
        need = Counter(labels[index] for index in group)
        if all(need[label] <= left[label] for label in need):
            chosen.update(group)
            for label, count in need.items():
                left[label] -= count
    # A class all of whose groups were too large still needs one of them: the smallest.
    for label in sorted(left):
        if not any(labels[index] == label for index in chosen):
            rest = [group for group in order if any(labels[index] == label for index in group)]
            total = sum(len(group) for group in rest)
            chosen.update(next((g for g in sorted(rest, key=len) if len(g) < total), []))
    return chosen


def assign_folds(
    targets: npt.NDArray[np.int64], groups: Sequence[int], classes: int, seed: int
) -> npt.NDArray[np.int64]:
    """Assign photos to folds for cross-validation, each fold with its share of each class.

    Parameters
    ----------
    targets : numpy.ndarray
        int64, shape (N,): the class of each photo.
    groups : sequence of int
        Near-duplicates share a number, and a fold.
    classes : int
        Number of classes.
    seed : int
        Seed of the random order.

    Returns
    -------
    numpy.ndarray
        int64, shape (N,): 0 to 4, or less where a class has fewer different photos.

    Raises
    ------
    DatasetError
        If a class has fewer than two different photos.
    """
    first = {group: index for index, group in reversed(list(enumerate(groups)))}
    order = np.random.default_rng(seed).permutation(sorted(first))
    of_class: list[list[int]] = [[] for _ in range(classes)]
    for group in order:
        of_class[int(targets[first[int(group)]])].append(int(group))
    fewest = min(len(members) for members in of_class)
    if fewest < 2:
        raise DatasetError("expected at least two different photos of each class")
    # Class by class, each fold in turn: the sizes of folds differ by no more than a group.
    dealt = [group for members in of_class for group in members]
    fold_of = {group: number % min(_FOLDS, fewest) for number, group in enumerate(dealt)}
    return np.array([fold_of[group] for group in groups], np.int64)
