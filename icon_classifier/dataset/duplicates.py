"""Find near-duplicate photos.

A photo that is in the training set and once more in validation (in another size, compressed again,
mirrored, with a caption) makes validation look better than it is. Photos are compared in two steps:
a perceptual hash of 64 bits finds candidates among all pairs, then the correlation of two small
colour thumbnails decides, so that two plain pictures of similar layout are not confused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Pair = tuple[int, int]
"""Indices of two photos that show the same picture, the smaller first."""

_MAX_BITS = 12
"""How many of the 64 bits may differ."""

_MIN_CORRELATION = 0.95
"""Lowest correlation of the thumbnails."""

_THUMB = 16
"""Side of a thumbnail in pixels."""


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
    """Compute the fingerprint of an upright RGB photo."""
    small = image.resize((64, 64), Image.Resampling.BOX, reducing_gap=2)
    hashes, thumbs = [], []
    for each in (small, ImageOps.mirror(small)):
        bits = imagehash.phash(each).hash  # (8, 8) bool
        hashes.append(np.packbits(bits).view(np.uint64)[0])
        thumb = np.asarray(each.resize((_THUMB, _THUMB), Image.Resampling.BOX), np.float32).ravel()
        thumb -= thumb.mean()
        thumbs.append(thumb / max(float(np.linalg.norm(thumb)), 1e-6))
    return Fingerprint(np.array(hashes, np.uint64), np.stack(thumbs))


def near_duplicates(prints: Sequence[Fingerprint]) -> list[Pair]:
    """Find pairs of photos that show the same picture, sorted."""
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


def group_pairs(count: int, pairs: Sequence[Pair]) -> list[int]:
    """Assign photos that are linked by pairs the same number: the index of the first of them.

    If a is like b and b like c, all three are one group; a photo in no pair is one of its own.

    Parameters
    ----------
    count : int
        How many photos there are.
    pairs : sequence of (int, int)
        As :func:`near_duplicates` returns them.
    """
    first, second = np.array(pairs, int).reshape(-1, 2).T
    linked = coo_array((np.ones(len(pairs)), (first, second)), shape=(count, count))
    _, components = connected_components(linked, directed=False)
    _, firsts = np.unique(components, return_index=True)
    return [int(firsts[component]) for component in components]
