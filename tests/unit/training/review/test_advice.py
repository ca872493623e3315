from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from icon_classifier.training.probe import Strength, cross_validate
from icon_classifier.training.review.advice import (
    SHARES,
    advise_on_classes,
    advise_on_count,
    advise_on_quality,
    wrong_by_share,
)

STRENGTH = Strength(prior=False, penalty=0.1)


def clouds(distance: float, per_class: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Features of two classes in 40 dimensions, and their targets."""
    random = np.random.default_rng(0)
    targets = np.arange(2 * per_class) % 2
    features = random.normal(0, 1, (1, 2 * per_class, 40)).astype(np.float32)
    features[0, :, 0] += distance * targets
    return features, targets


def curve(distance: float) -> np.ndarray:
    features, targets = clouds(distance)
    groups = list(range(len(targets)))
    smaller = wrong_by_share(features, targets, groups, 2, STRENGTH, None)
    logits = cross_validate(features, targets, groups, 2, [STRENGTH], None)[0]
    return np.vstack([smaller, logits.argmax(axis=1) != targets])


def test_error_falls_with_more_photos_where_a_class_is_hard_to_learn() -> None:
    wrong = curve(2.5)

    assert wrong.shape == (len(SHARES), 120)
    assert wrong[0].mean() > wrong[-1].mean() + 0.05
    assert advise_on_count(wrong).startswith("More photos will help: ")


def test_more_photos_hardly_help_where_none_can_tell_the_classes_apart() -> None:
    assert advise_on_count(curve(0.0)).startswith("More photos of this kind will hardly help: ")


def test_no_error_of_a_few_photos_is_not_taken_for_proof() -> None:
    assert advise_on_count(np.zeros((4, 50))) == (
        "None of 50 photos is wrong, but up to 7.1% of new ones may be; only more photos can tell."
    )


def test_few_photos_are_no_proof_that_more_would_hardly_help() -> None:
    wrong = np.zeros((4, 12))
    wrong[:, :3] = 1
    wrong[1, 3] = 1

    assert advise_on_count(wrong).startswith("There are too few photos to tell whether more ")


def test_the_same_few_errors_are_no_proof_that_more_would_hardly_help() -> None:
    wrong = np.zeros((4, 45))
    wrong[:, :3] = 1

    assert advise_on_count(wrong).startswith("There are too few photos to tell whether more ")


def test_photos_are_counted_and_not_given_as_percentages() -> None:
    wrong = np.tile([[1, 1, 1], [1, 0.5, 0.5], [1, 0.5, 0], [1, 0, 0]], 10)

    assert advise_on_count(wrong) == (
        "More photos will help: trained on half of them, the model gets 20 of 30 wrong, on all "
        "of them 10; with twice as many perhaps 5."
    )


def test_two_photos_a_class_are_enough_for_a_curve() -> None:
    features, targets = clouds(9.0, per_class=2)

    assert wrong_by_share(features, targets, [0, 1, 2, 3], 2, STRENGTH, None).shape == (3, 4)


def test_class_with_most_errors_and_most_confused_pair_are_named() -> None:
    targets = np.repeat([0, 1, 2], 10)
    answers = targets.copy()
    answers[10:14] = 2  # four dogs are taken for foxes
    answers[20] = 1
    answers[0] = 1

    assert advise_on_classes(targets, answers, ["cat", "dog", "fox"]) == (
        "dog is wrong most often, 4 of 10; dog and fox are confused most, 5 times."
    )


def test_class_of_few_photos_is_named_though_all_are_right() -> None:
    targets = np.array([0] * 40 + [1] * 2)
    answers = targets.copy()
    answers[0] = 1

    assert advise_on_classes(targets, answers, ["cat", "dog"]) == (
        "dog has too few photos to tell, 2."
    )
    assert advise_on_classes(targets, targets, ["cat", "dog"]) == "dog has the fewest photos, 2."


@pytest.mark.parametrize(
    ("photos", "wrong", "sentence"),
    [
        ([10, 10], [1, 1], "cat (1 of 10) and dog (1 of 10) are wrong most often."),
        ([10, 10], [1, 0], "cat is wrong most often, 1 of 10."),
        ([100, 99, 98], [1, 1, 0], "cat (1 of 100) and dog (1 of 99) are wrong most often"),
        ([10, 10, 10], [4, 3, 0], "cat (4 of 10) and dog (3 of 10) are wrong most often"),
        ([10, 10, 10], [4, 2, 0], "cat is wrong most often, 4 of 10"),
        ([10] * 4, [1] * 4, "No single class is wrong most often."),
        ([40, 2, 2], [1, 0, 0], "dog and fox have too few photos to tell, 2"),
        ([9, 3, 3], [0, 0, 0], "dog and fox have the fewest photos, 3."),
        ([9, 3, 3, 3, 3], [0] * 5, "4 classes have the fewest photos, 3."),
        ([3, 3, 3], [0, 0, 0], "Each class has 3 photos."),
    ],
)
def test_classes_that_do_not_clearly_differ_are_named_together(
    photos: list[int], wrong: list[int], sentence: str
) -> None:
    targets = np.repeat(np.arange(len(photos)), photos)
    answers = targets.copy()
    for label, count in enumerate(wrong):
        answers[np.flatnonzero(targets == label)[:count]] = (label + 1) % len(photos)

    assert advise_on_classes(
        targets, answers, ["cat", "dog", "fox", "owl", "pig"][: len(photos)]
    ).startswith(sentence)


def test_no_pair_is_named_where_two_are_confused_about_as_often() -> None:
    targets = np.repeat([0, 1, 2], 10)
    answers = targets.copy()
    answers[:4] = 1
    answers[20:23] = 1

    assert "confused" not in advise_on_classes(targets, answers, ["cat", "dog", "fox"])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Thirty pictures of noise, some of them blurred or dark."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(30):
        pixels = random.integers(40, 40 + 6 * (number + 6), (64, 64, 3)).astype(np.uint8)
        image = Image.fromarray(pixels).resize((128, 128))
        if number in (3, 4):
            image = image.filter(ImageFilter.GaussianBlur(6))
        if number == 7:
            image = image.point(lambda value: value // 20)
        paths.append(tmp_path / f"{number}.png")
        image.save(paths[-1])
    return paths


def test_blurred_and_dark_photos_are_named(paths: list[Path]) -> None:
    wrong = np.zeros(30, bool)

    assert advise_on_quality(paths, wrong).endswith("None is wrong.")
    wrong[0] = True
    assert "These are hardly wrong more often." in advise_on_quality(paths, wrong)
    wrong[0] = False
    wrong[3] = True
    assert advise_on_quality(paths, wrong).endswith(
        " Of these, the model gets 1 of 3 wrong, of the others 0 of 27, which may be chance."
    )
    wrong[7] = True
    sentence = advise_on_quality(paths, wrong)
    assert "Far more blurred than the others: " in sentence
    assert "3.png, 4.png" in sentence
    assert "Far darker than the others: 1 (7.png)." in sentence
    assert sentence.endswith(
        " Of these, the model gets 2 of 3 wrong, of the others 0 of 27: replace these."
    )


def test_photos_alike_are_neither_blurred_nor_dark(paths: list[Path]) -> None:
    good = [path for path in paths if path.stem not in ("3", "4", "7")]

    assert advise_on_quality(good, np.ones(27, bool)) == (
        "No photo is far more blurred or darker than the others."
    )
