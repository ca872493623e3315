"""Score how familiar a photo is: its similarity to the nearest of the photos trained on.

The bank of features that this needs is stored with the model, so its size is limited. Square roots
of features are compared (the Hellinger kernel): they separate other photos better than the features
themselves, in which a few large values decide.
"""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from icon_classifier.training.evaluation import acceptance_threshold

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Bank = npt.NDArray[np.int8]
"""Shape (B, F): signed square roots of features, each row scaled to its largest value."""

MAX_BANK_BYTES = 2_000_000
"""Limit of a bank in export.onnx, where it is float32."""

UNRELATED = 0.67
"""Few photos of other kinds are more similar than this to any photo of a bank, whatever is in it:
measured with tf_efficientnet_lite0."""


def in_turn(targets: Integers, seed: int) -> Integers:
    """Return the indices of all photos in random order, one of each class in turn, shape (N,)."""
    order = np.random.default_rng(seed).permutation(len(targets))
    rank = np.zeros(len(targets), np.int64)  # of each photo among those of its class
    for target in np.unique(targets):
        members = order[targets[order] == target]
        rank[members] = np.arange(len(members))
    return order[np.argsort(rank[order], kind="stable")]


def make_bank(features: Floats, targets: Integers, *, seed: int) -> Bank:
    """Make a bank of as many photos as fit, one of each class in turn.

    Parameters
    ----------
    features : numpy.ndarray
        float32, shape (N, F).
    targets : numpy.ndarray
        int64, shape (N,): the class of each photo.
    seed : int
        Seed of the choice where not all fit.
    """
    rows = MAX_BANK_BYTES // (4 * features.shape[1])
    roots = _roots(features[in_turn(targets, seed)[:rows]])
    largest = np.abs(roots).max(axis=1, keepdims=True)
    return np.asarray(np.rint(127 * roots / np.maximum(largest, 1e-12)), np.int8)


def similarity(features: Floats, bank: Bank) -> Floats:
    """Return the cosine similarity of photos to the most similar row of a bank, shape (N,)."""
    rows = _unit(bank.astype(np.float32))
    return np.asarray((_unit(_roots(features)) @ rows.T).max(axis=1))


def held_out_similarity(
    features: Floats, targets: Integers, folds: Integers, *, seed: int
) -> Floats:
    """Return the similarity of each photo to a bank made of the other folds, shape (N,)."""
    scores = np.zeros(len(targets), np.float32)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        bank = make_bank(features[~out], targets[~out], seed=seed)
        scores[out] = similarity(features[out], bank)
    return scores


def choose_threshold(scores: Floats) -> float:
    """Return the similarity below which a photo is "not sure".

    98 % of the photos trained on reach it. Where those differ so much that photos of any other kind
    would reach it too, it is `UNRELATED`, or less if fewer than 90 % of them would reach that.

    Parameters
    ----------
    scores : numpy.ndarray
        Of each photo to a bank made without it, shape (N,).
    """
    return max(acceptance_threshold(scores), min(UNRELATED, acceptance_threshold(scores, 0.9)))


def to_notes(bank: Bank, threshold: float) -> dict[str, Any]:
    """Describe score and threshold for ``learn.icon_classifier["unsure"]``, in builtins.

    A row is a string, since the JSON of the notes may have a million characters at most.
    """
    rows = [base64.b64encode(row.tobytes()).decode() for row in bank]
    return {"score": "knn", "threshold": threshold, "k": 1, "root": True, "bank": rows}


def _roots(features: Floats) -> Floats:
    return np.asarray(np.sign(features) * np.sqrt(np.abs(features)))


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
