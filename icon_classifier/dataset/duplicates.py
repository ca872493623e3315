"""Near-duplicate photos, and splits in which none straddles train and validation.

A photo found twice (in another size, compressed again, mirrored, with a caption) and once learnt
makes validation look better than it is. Photos are compared in two steps: a perceptual hash of 64
bits names candidates among all pairs, then the correlation of two small colour thumbnails decides,
so that two plain pictures of alike layout are not taken for one.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from icon_classifier.errors import DatasetError

Pair = tuple[int, int]
"""Indices of two photos that show the same picture, the smaller first."""

# Bits of 64 that may differ, and the least correlation of the thumbnails.
_MAX_BITS = 12
_MIN_CORRELATION = 0.95
_THUMB = 16  # pixels a side
_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Which photos to train on and which to validate with.

    Attributes
    ----------
    train, valid : list of int
        Indices into the paths that were given, in rising order; each index is in one of them.
    """

    train: list[int]
    valid: list[int]


@dataclass(frozen=True)
class Fingerprint:
    """What photos are compared by.

    Attributes
    ----------
    hashes : numpy.ndarray
        Perceptual hash of the photo and of its mirror image, (2,) uint64.
    thumbs : numpy.ndarray
        Thumbnails of both, each with mean 0 and norm 1, (2, 768) float32.
    """

    hashes: npt.NDArray[np.uint64]
    thumbs: npt.NDArray[np.float32]


def fingerprint(image: Image.Image) -> Fingerprint:
    """Take the fingerprint of an upright RGB photo."""
    import imagehash  # takes scipy along: not for everybody who imports this module

    small = image.resize((64, 64), Image.Resampling.BOX, reducing_gap=2)
    hashes, thumbs = [], []
    for each in (small, ImageOps.mirror(small)):
        bits = imagehash.phash(each).hash  # (8, 8) bool
        hashes.append(np.packbits(bits).view(np.uint64)[0])
        thumb = np.asarray(each.resize((_THUMB, _THUMB), Image.Resampling.BOX), np.float32).ravel()
        thumb -= thumb.mean()
        thumbs.append(thumb / max(float(np.linalg.norm(thumb)), 1e-6))
    return Fingerprint(np.array(hashes, np.uint64), np.stack(thumbs))


def _read_fingerprint(path: Path) -> Fingerprint:
    try:
        with Image.open(path) as opened:
            # The smallest size that a JPEG decodes to cheaply and that is still large enough.
            opened.draft("RGB", (128, 128))
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"{path} cannot be compared: {error}; clean the photos first") from error
    return fingerprint(image)


def near_duplicates(paths: Sequence[Path]) -> list[Pair]:
    """Find pairs of photos that show the same picture.

    Parameters
    ----------
    paths : sequence of Path
        Readable photos.

    Returns
    -------
    list of (int, int)
        Pairs of indices into `paths`, the smaller first, sorted.

    Raises
    ------
    DatasetError
        If a photo cannot be read.
    """
    if len(paths) < 2:
        return []
    with ThreadPoolExecutor() as pool:  # decoding frees the interpreter lock
        return compare(list(pool.map(_read_fingerprint, paths)))


def compare(prints: Sequence[Fingerprint]) -> list[Pair]:
    """Find pairs of near-duplicates by their fingerprints; see :func:`near_duplicates`."""
    if len(prints) < 2:
        return []
    hashes = np.stack([each.hashes for each in prints])  # (N, 2)
    thumbs = np.stack([each.thumbs for each in prints])  # (N, 2, 768)
    pairs = set()
    for first in range(len(prints) - 1):
        # (N - first - 1, 2): this photo against the later ones and their mirror images
        bits = np.bitwise_count(hashes[first + 1 :] ^ hashes[first, 0])
        for later, mirrored in zip(*np.nonzero(bits <= _MAX_BITS), strict=True):
            second = first + 1 + int(later)
            if float(thumbs[first, 0] @ thumbs[second, mirrored]) >= _MIN_CORRELATION:
                pairs.add((first, second))
    return sorted(pairs)


def group_duplicates(paths: Sequence[Path]) -> list[int]:
    """Give photos of the same picture the same number.

    Parameters
    ----------
    paths : sequence of Path
        Readable photos.

    Returns
    -------
    list of int
        One group number a photo: the index of the group's first photo. A photo without a
        near-duplicate is a group of its own. If a is like b and b like c, all three are one group.

    Raises
    ------
    DatasetError
        If a photo cannot be read.
    """
    return group_pairs(len(paths), near_duplicates(paths))


def group_pairs(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Give photos that are linked by pairs the same number; see :func:`group_duplicates`."""
    groups = list(range(count))

    def root(index: int) -> int:
        while groups[index] != index:
            groups[index] = groups[groups[index]]
            index = groups[index]
        return index

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        groups[high] = low
    return [root(index) for index in range(count)]


def split(
    paths: Sequence[Path],
    labels: Sequence[str],
    valid_share: float = 0.2,
    seed: int = 42,
    *,
    groups: Sequence[int] | None = None,
) -> Split:
    """Split photos at random, class by class, with near-duplicates kept on one side.

    Parameters
    ----------
    paths : sequence of Path
        The photos. Their order matters: sort them to have the same split on another machine.
    labels : sequence of str
        The label of each.
    valid_share : float
        Share of each class that goes to validation, above 0 and below 1; at least one photo of
        each class stays on either side.
    seed : int
        Seed of the random order.
    groups : sequence of int, optional
        What :func:`group_duplicates` gave; worked out here if missing (about 2 ms a photo).

    Returns
    -------
    Split

    Raises
    ------
    DatasetError
        If the lengths differ, the share makes no sense, or a class has too few different photos
        to be on both sides.
    """
    if groups is None:
        groups = group_duplicates(paths)
    if not len(paths) == len(labels) == len(groups):
        raise DatasetError(
            f"expected one label and group a photo, got {len(paths)} photos, "
            f"{len(labels)} labels and {len(groups)} groups"
        )
    if not 0 < valid_share < 1:
        raise DatasetError(f"expected a validation share between 0 and 1, got {valid_share}")
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    sizes = Counter(labels)
    room = {
        label: min(max(1, round(valid_share * size)), size - 1) for label, size in sizes.items()
    }
    order = list(members.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - a split, not a secret
    valid = _fill(order, labels, room)
    train = sorted(set(range(len(paths))) - valid)
    missing = (set(labels) - {labels[i] for i in valid}) | (
        set(labels) - {labels[i] for i in train}
    )
    if missing:
        raise DatasetError(
            f"too few different photos of {', '.join(sorted(missing))}: near-duplicates stay "
            "together, so each class needs at least two that differ"
        )
    return Split(train, sorted(valid))


def _fill(order: list[list[int]], labels: Sequence[str], room: dict[str, int]) -> set[int]:
    """Take whole groups, in order, while each fits into the room of its labels."""
    chosen: set[int] = set()
    room = dict(room)
    for group in order:
        need = Counter(labels[index] for index in group)
        if all(need[label] <= room[label] for label in need):
            chosen.update(group)
            for label, count in need.items():
                room[label] -= count
    # A class all of whose groups were too large still needs one of them: the smallest.
    for label in sorted(room):
        if not any(labels[index] == label for index in chosen):
            rest = [group for group in order if any(labels[index] == label for index in group)]
            whole = sum(len(group) for group in rest)
            chosen.update(next((g for g in sorted(rest, key=len) if len(g) < whole), []))
    return chosen


def deal_folds(
    targets: npt.NDArray[np.int64], groups: Sequence[int], classes: int, seed: int
) -> npt.NDArray[np.int64]:
    """Deal groups of photos to folds, class by class, so that each fold has its share of each.

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
    of_class: dict[int, list[int]] = {index: [] for index in range(classes)}
    for group in order:
        of_class[int(targets[first[int(group)]])].append(int(group))
    least = min(len(members) for members in of_class.values())
    if least < 2:
        raise DatasetError("expected at least two different photos of each class")
    folds, next_fold = {}, 0
    for members in of_class.values():
        for group in members:
            folds[group] = next_fold % min(_FOLDS, least)
            next_fold += 1
    return np.array([folds[group] for group in groups], np.int64)
