import numpy as np
import pytest

from icon_classifier.errors import DatasetError
from icon_classifier.training.evaluation import mean_recall
from icon_classifier.training.probe import (
    GRID,
    Head,
    Strength,
    balanced_errors,
    choose,
    cross_validate,
    fit_head,
)

CLASSES, WIDTH = 3, 12


def blobs(count: int, seed: int = 0, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (2, N, F) of clouds around three points, and their targets."""
    random = np.random.default_rng(seed)
    targets = np.arange(count) % CLASSES
    centres = np.eye(CLASSES, WIDTH) * apart
    features = centres[targets] + random.normal(size=(2, count, WIDTH))
    return features.astype(np.float32), targets


def prior() -> Head:
    """Five classes, of which the last three respond to the right features."""
    weight = np.zeros((5, WIDTH), np.float32)
    weight[2:, :CLASSES] = np.eye(CLASSES)
    return Head(weight, np.zeros(5, np.float32))


@pytest.mark.parametrize("strength", GRID)
def test_head_learns(strength: Strength) -> None:
    features, targets = blobs(90)
    head = fit_head(features, targets, CLASSES, strength, prior())
    unseen, answers = blobs(300, seed=1)
    assert (head(unseen[0]).argmax(1) == answers).mean() > 0.9


def test_strong_penalty_keeps_the_matching_rows() -> None:
    features, targets = blobs(30)
    head = fit_head(features, targets, CLASSES, Strength(True, 1e6), prior())
    np.testing.assert_allclose(head.weight, prior().weight[2:], atol=1e-3)


def test_prior_helps_where_photos_are_few() -> None:
    features, targets = blobs(9, apart=2.0)
    unseen, answers = blobs(600, seed=1, apart=2.0)
    errors = [
        (fit_head(features, targets, CLASSES, each, prior())(unseen[0]).argmax(1) != answers).mean()
        for each in (Strength(True, 10), Strength(False, 0.01))
    ]
    assert errors[0] < errors[1]


def test_photo_is_predicted_by_a_head_fitted_without_it() -> None:
    features, targets = blobs(60, apart=0.0)  # nothing to learn: only a leak can be right
    groups = list(range(60))
    alone = cross_validate(features, targets, groups, CLASSES, [Strength(False, 0.01)], None)[0]
    assert (alone.argmax(1) == targets).mean() < 0.6


def test_near_duplicates_are_in_one_fold() -> None:
    random = np.random.default_rng(0)
    once = random.normal(size=(2, 60, 200)).astype(np.float32)  # can only be memorised
    twice, targets = np.concatenate([once, once], axis=1), np.tile(np.arange(60) % CLASSES, 2)
    strengths = [Strength(False, 0.001)]
    apart = cross_validate(twice, targets, list(range(60)) * 2, CLASSES, strengths, None)
    leaking = cross_validate(twice, targets, list(range(120)), CLASSES, strengths, None)
    right = [(logits.argmax(1) == targets).mean() for (logits,) in (apart, leaking)]
    assert right[0] < 0.55 < 0.7 < right[1]


def test_same_seed_gives_the_same_choice() -> None:
    features, targets = blobs(45)
    first, second = (
        choose(features, targets, list(range(45)), CLASSES, prior(), seed=7) for _ in range(2)
    )
    assert first.strength == second.strength
    np.testing.assert_array_equal(first.logits, second.logits)


def test_choice_without_a_prior_uses_none() -> None:
    features, targets = blobs(30)
    choice = choose(features, targets, list(range(30)), CLASSES, None)
    assert not choice.strength.prior


def test_class_of_a_single_photo_is_refused() -> None:
    features, _ = blobs(5)
    targets = np.array([0, 0, 1, 1, 2])
    with pytest.raises(DatasetError, match="two different photos"):
        choose(features, targets, list(range(5)), CLASSES, None)


def test_balanced_head_finds_more_of_a_rare_class() -> None:
    features, targets = blobs(900, apart=2.0)
    rare = np.concatenate([np.flatnonzero(targets < 2), np.flatnonzero(targets == 2)[:10]])
    unseen, answers = blobs(900, seed=1, apart=2.0)
    plain, balanced = (
        fit_head(features[:, rare], targets[rare], CLASSES, each, None)(unseen[0]).argmax(1)
        for each in (Strength(False, 0.3), Strength(False, 0.3, balanced=True))
    )
    assert (plain == 2)[answers == 2].mean() + 0.1 < (balanced == 2)[answers == 2].mean()
    assert mean_recall(plain, answers) < mean_recall(balanced, answers)


def test_balanced_heads_are_tried_where_a_class_is_rare() -> None:
    features, targets = blobs(900, apart=1.5)
    rare = np.concatenate([np.flatnonzero(targets < 2), np.flatnonzero(targets == 2)[:20]])
    choice = choose(features[:, rare], targets[rare], list(range(len(rare))), CLASSES, None)
    assert choice.strength.balanced
    even = choose(features[:, :90], targets[:90], list(range(90)), CLASSES, None)
    assert not even.strength.balanced


def test_balanced_errors_are_the_errors_where_classes_are_of_one_size() -> None:
    targets = np.array([0, 0, 1, 1, 2, 2])
    assert balanced_errors(np.array([0, 1, 1, 1, 0, 2]), targets) == 2
    assert balanced_errors(np.zeros(4, int), np.array([0, 0, 0, 1])) == 2  # half of the classes


def test_two_photos_of_each_class_are_enough() -> None:
    features, targets = blobs(6)
    choice = choose(features, targets, list(range(6)), CLASSES, prior())
    assert choice.logits.shape == (6, CLASSES)
    assert np.isfinite(choice.logits).all()
