from dataclasses import replace

import numpy as np
import pytest

from icon_classifier.dataset.recipes import Training
from icon_classifier.training.resizing import MAX_PHOTOS, Trial, _cheapest, choose_resizing

OPEN = Training()


def extract_for(noise: dict[tuple[int, str], float], targets: np.ndarray):
    """Features that show the class, with noise that depends on size and method."""
    asked: list[tuple[int, str, int]] = []

    def extract(index: np.ndarray, size: int, method: str) -> np.ndarray:
        asked.append((size, method, len(index)))
        random = np.random.default_rng(0)
        centres = np.eye(3, 8, dtype=np.float32)[targets[index]]
        return centres + random.normal(0, noise[size, method], centres.shape).astype(np.float32)

    return extract, asked


def choose(noise: dict[tuple[int, str], float], training: Training = OPEN, count: int = 120):
    targets = np.arange(count) % 3
    extract, asked = extract_for(noise, targets)
    chosen = choose_resizing(extract, targets, list(range(count)), 3, None, training)
    return chosen, asked


def test_method_is_chosen_first_and_a_larger_size_only_if_it_is_better(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chosen, asked = choose(
        {(224, "crop"): 3.0, (224, "squish"): 1.0, (320, "squish"): 0.9, (448, "squish"): 0.1}
    )
    assert chosen == (448, "squish")
    assert [each[:2] for each in asked] == [
        (224, "crop"),
        (224, "squish"),
        (320, "squish"),
        (448, "squish"),
    ]
    printed = capsys.readouterr().out
    assert "Chosen: 448 px, squish, the smallest that is not clearly worse;" in printed
    assert "a prediction takes 4 times as long as at 224 px." in printed


def test_printed_errors_weight_all_classes_equally(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half of the photos of one class of three look like another: 10 of 160 are wrong."""
    targets = np.array([0] * 100 + [1] * 40 + [2] * 20)
    shown = targets.copy()
    shown[-10:] = 0

    def extract(index: np.ndarray, size: int, method: str) -> np.ndarray:
        return np.eye(3, 8, dtype=np.float32)[shown[index]]

    choose_resizing(extract, targets, list(range(160)), 3, None, replace(OPEN, image_size=224))

    assert capsys.readouterr().out.startswith(
        "Error with all classes weighted equally, by size and resizing: "
        "224 px crop 16.7 %, 224 px squish 16.7 %. Chosen: 224 px, crop,"
    )


def test_cheapest_of_equals_is_chosen() -> None:
    same = {(size, method): 0.1 for size in (224, 320, 448) for method in ("crop", "squish")}
    chosen, asked = choose(same)
    assert chosen == (224, "crop")
    assert {size for size, *_ in asked} == {224}  # nothing is wrong: a larger one cannot be better


def test_nothing_is_tried_after_a_size_that_is_worse() -> None:
    same = {(224, "crop"): 1.0, (224, "squish"): 3.0, (320, "crop"): 3.0}
    chosen, asked = choose(same)
    assert chosen == (224, "crop")
    assert [size for size, *_ in asked] == [224, 224, 320]


def trial(size: int, *wrong: int) -> Trial:
    return Trial(size, "crop", np.isin(np.arange(100), wrong).astype(float))


def test_cheapest_within_a_standard_error_of_the_fewest_errors() -> None:
    best = trial(448, 1)
    # One photo more is chance; three more, and none that only the larger size has wrong, are not.
    assert _cheapest([trial(224, 1, 2), best]).size == 224
    assert _cheapest([trial(224, 1, 2, 3, 4), best]).size == 448
    # Three more, but each size has others wrong.
    assert _cheapest([trial(224, 2, 3, 4, 5, 6, 7), trial(448, 1, 8, 9)]).size == 224


def test_what_the_recipe_says_is_not_tried() -> None:
    chosen, asked = choose({}, replace(OPEN, image_size=96, resize="pad"))
    assert (chosen, asked) == ((96, "pad"), [])
    noise = {(96, "crop"): 2.0, (96, "squish"): 0.1}
    chosen, _ = choose(noise, replace(OPEN, image_size=96))
    assert chosen == (96, "squish")


def test_many_photos_are_tried_in_part() -> None:
    same = {(size, method): 0.1 for size in (224, 320, 448) for method in ("crop", "squish")}
    _, asked = choose(same, count=3 * MAX_PHOTOS)
    assert {count for *_, count in asked} == {MAX_PHOTOS}


@pytest.mark.parametrize(
    ("classes", "photos", "alike"),
    [(251, 5, 1), (30, 40, 20)],
    ids=["many classes", "two films of each class"],
)
def test_photos_that_are_tried_hold_two_that_differ_of_each_class(
    classes: int, photos: int, alike: int
) -> None:
    targets = np.repeat(np.arange(classes), photos)
    groups = [index // alike for index in range(len(targets))]
    counts = []

    def extract(index: np.ndarray, size: int, method: str) -> np.ndarray:
        counts.append(np.bincount(targets[index], minlength=classes))
        assert len({groups[each] for each in index}) == len(index)
        return np.eye(classes, 8, dtype=np.float32)[targets[index]]

    choose_resizing(extract, targets, groups, classes, None, OPEN)

    assert all(2 <= each.min() == each.max() for each in counts)
