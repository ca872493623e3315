import numpy as np
import pytest
import torch

from icon_classifier.conversion.graph import Score
from icon_classifier.training.novelty import (
    MAX_BANK_BYTES,
    UNRELATED,
    choose_threshold,
    held_out_similarity,
    in_turn,
    make_bank,
    similarity,
    to_notes,
)

WIDTH = 40


def photos(seed: int, count: int = 60, kind: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of `count` photos of two classes that use the features of their kind."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    features = random.exponential(0.05, (count, WIDTH))
    start = 10 * kind + 5 * targets
    for row, first in enumerate(start):
        features[row, first : first + 5] += random.exponential(1.0, 5)
    return features.astype(np.float32), targets


def test_similarity_is_the_cosine_of_roots_to_the_nearest_row() -> None:
    features, targets = photos(0)
    bank = make_bank(features, targets, seed=0)
    roots = np.sqrt(features) / np.linalg.norm(np.sqrt(features), axis=1, keepdims=True)
    unseen, _ = photos(1)
    theirs = np.sqrt(unseen) / np.linalg.norm(np.sqrt(unseen), axis=1, keepdims=True)
    np.testing.assert_allclose(similarity(unseen, bank), (theirs @ roots.T).max(1), atol=2e-3)
    np.testing.assert_allclose(similarity(features, bank), 1, atol=1e-3)


def test_photos_of_another_kind_are_below_the_threshold() -> None:
    features, targets = photos(0)
    bank = make_bank(features, targets, seed=0)
    held_out = held_out_similarity(features, targets, np.arange(60) % 5, seed=0)
    threshold = choose_threshold(held_out)
    own, others = (similarity(photos(1, kind=kind)[0], bank) for kind in (0, 2))
    assert (own >= threshold).mean() > 0.9
    assert (others >= threshold).mean() == 0
    assert own.min() > others.max()


@pytest.mark.parametrize(
    ("low", "high", "threshold"),
    [
        (0.7, 0.9, 0.704),  # photos that are alike: 98 % of them
        (0.6, 1.0, UNRELATED - 0.03),  # 90 % of them
        (0.664, 0.9, UNRELATED),  # 98 % would reach 0.669
    ],
)
def test_photos_unlike_each_other_do_not_make_unrelated_ones_familiar(
    low: float, high: float, threshold: float
) -> None:
    scores = np.linspace(low, high, 1001, dtype=np.float32)
    assert choose_threshold(scores) == pytest.approx(threshold, abs=1e-3)


def test_a_photo_is_not_compared_with_itself_when_it_is_held_out() -> None:
    features, targets = photos(0)
    held_out = held_out_similarity(features, targets, np.arange(60) % 5, seed=0)
    assert held_out.max() < 0.999


def test_bank_of_many_photos_fits_and_holds_each_class() -> None:
    width = 2**15
    features = np.random.default_rng(0).exponential(size=(60, width)).astype(np.float32)
    targets = np.array([0] * 57 + [1] * 3)
    bank = make_bank(features, targets, seed=0)
    assert bank.size * 4 <= MAX_BANK_BYTES
    rare = similarity(features[57:], bank)
    np.testing.assert_allclose(rare, 1, atol=1e-3)  # all three are in it


def test_classes_take_turns() -> None:
    targets = np.array([0] * 6 + [1] * 2)
    index = in_turn(targets, seed=3)
    assert sorted(index) == list(range(8))
    assert sorted(targets[index[:4]]) == [0, 0, 1, 1]


@pytest.mark.parametrize("sign", [1, -1])
def test_the_score_of_the_compiled_model_is_the_similarity(sign: int) -> None:
    features, targets = photos(0)
    features[:, ::2] *= sign  # other networks have features below 0
    bank = make_bank(features, targets, seed=0)
    score = Score(to_notes(bank, 0.5), temperature=1.0)
    unseen = photos(1)[0]
    unseen[:, ::2] *= sign
    found = score(torch.zeros(60, 2), torch.from_numpy(unseen)).numpy()
    np.testing.assert_allclose(found, similarity(unseen, bank), atol=1e-5)
