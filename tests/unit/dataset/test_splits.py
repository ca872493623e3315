import numpy as np
import pytest

from icon_classifier.dataset.splits import assign_folds, split
from icon_classifier.errors import DatasetError


def test_groups_stay_on_one_side() -> None:
    labels = ["a"] * 50 + ["b"] * 50
    groups = [number // 5 * 5 for number in range(100)]  # twenty groups of five
    for seed in range(20):
        parts = split(labels, groups, 0.2, seed)
        in_train = {groups[index] for index in parts.train}
        in_valid = {groups[index] for index in parts.valid}
        assert not in_train & in_valid
        assert sorted(parts.train + parts.valid) == list(range(100))
        assert [labels[index] for index in parts.valid].count("a") == 10
        assert len(parts.valid) == 20


def test_same_seed_gives_the_same_split() -> None:
    labels = ["a", "b"] * 20
    alone = list(range(40))

    first = split(labels, alone, seed=1)

    assert first == split(labels, alone, seed=1)
    assert first != split(labels, alone, seed=2)


def test_each_class_is_on_both_sides() -> None:
    labels = ["many"] * 20 + ["few"] * 2

    parts = split(labels, range(22), 0.05)

    assert {labels[index] for index in parts.valid} == {"many", "few"}
    assert {labels[index] for index in parts.train} == {"many", "few"}


def test_class_of_two_large_groups_is_split() -> None:
    labels = ["a"] * 10 + ["b"] * 20
    groups = [0] * 6 + [6] * 4 + list(range(10, 30))

    parts = split(labels, groups, 0.2)

    assert [index for index in parts.valid if index < 10] == [6, 7, 8, 9]


def test_class_without_two_different_photos_is_refused() -> None:
    with pytest.raises(DatasetError, match="too few different photos of a: near-duplicates stay"):
        split(["a"] * 3 + ["b"] * 10, [0, 0, 0, *range(3, 13)])


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(DatasetError, match="validation share between 0 and 1"):
        split(["a", "b"], [0, 1], share)


def test_different_lengths_are_refused() -> None:
    with pytest.raises(DatasetError, match="got 1 labels and 2 groups"):
        split(["a"], [0, 1])


def test_each_fold_has_its_share_of_each_class_and_whole_groups() -> None:
    targets = np.array([0] * 100 + [1] * 50)
    groups = [number // 2 for number in range(150)]  # pairs

    folds = assign_folds(targets, groups, 2, seed=3)

    for fold in range(5):
        assert (folds[targets == 0] == fold).sum() == 20
        assert (folds[targets == 1] == fold).sum() == 10
    assert (folds[::2] == folds[1::2]).all()
    assert (folds == assign_folds(targets, groups, 2, seed=3)).all()
    assert (folds != assign_folds(targets, groups, 2, seed=4)).any()


def test_class_of_two_groups_is_in_both_of_two_folds() -> None:
    targets = np.array([0] * 20 + [1] * 5)
    groups = [*range(20), 20, 20, 20, 20, 21]

    for seed in range(20):
        folds = assign_folds(targets, groups, 2, seed)
        assert sorted(set(folds[targets == 1])) == [0, 1]


@pytest.mark.parametrize("targets", [[0, 0, 1, 1], [0, 0, 0, 0]])
def test_folds_of_a_class_without_two_different_photos_are_refused(targets: list[int]) -> None:
    with pytest.raises(DatasetError, match="at least two different photos of each class"):
        assign_folds(np.array(targets), [0, 1, 2, 2], 2, seed=0)


def test_photos_that_their_owner_keeps_for_validation_are_not_trained_on() -> None:
    labels = ["a"] * 5 + ["b"] * 5

    parts = split(labels, range(10), valid=[1, 2, 9])

    assert parts.valid == [1, 2, 9]
    assert parts.train == [0, 3, 4, 5, 6, 7, 8]


def test_near_duplicate_of_a_training_photo_is_not_validated_with() -> None:
    labels = ["a"] * 5 + ["b"] * 5

    parts = split(labels, [0, 0, 2, 3, 4, 5, 6, 7, 8, 9], valid=[1, 2, 9])

    assert parts.valid == [2, 9]


def test_class_that_its_owner_did_not_divide_is_split_at_random() -> None:
    labels = ["a"] * 5 + ["b"] * 5 + ["c"] * 5

    parts = split(labels, range(15), valid=[1, *range(5, 10)])  # all of b, none of c

    assert {labels[index] for index in parts.valid} == {"a", "b", "c"}
    assert {labels[index] for index in parts.train} == {"a", "b", "c"}
    assert [index for index in parts.valid if index < 5] == [1]
