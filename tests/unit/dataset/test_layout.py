import unicodedata
from pathlib import PurePosixPath

import pytest

from icon_classifier.dataset.layout import by_names, by_places, fold


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["cat/1.jpg", "dog/1.jpg"], ["cat", "dog"]),
        (["pets/cat/1.jpg", "pets/dog/1.jpg"], ["cat", "dog"]),
        (["cat/indoor/1.jpg", "cat/outdoor/1.jpg", "dog/1.jpg"], ["cat", "cat", "dog"]),
        (["train/cat/1.jpg", "Valid/cat/2.jpg", "test/dog/a/1.jpg"], ["cat", "cat", "dog"]),
        (["set/train/cat/1.jpg", "set/val/dog/2.jpg"], ["cat", "dog"]),
        (["test/1.jpg", "best/1.jpg"], ["test", "best"]),
        (["1.jpg", "cat/1.jpg", "dog/1.jpg"], [None, "cat", "dog"]),
        (["cat/1.jpg"], ["cat"]),
    ],
)
def test_place_of_a_photo_tells_its_class(paths: list[str], labels: list[str | None]) -> None:
    photos = [PurePosixPath(path) for path in paths]
    assert list(map(by_places(photos), photos)) == labels


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Cat/indoor/1.jpg", "cat"),
        ("dog/cat/1.jpg", "cat"),
        ("n02084071/1.jpg", "dog"),
        (unicodedata.normalize("NFD", "CAFÉ/1.jpg"), "café"),
        ("horse/1.jpg", None),
        ("cat.jpg", None),
    ],
)
def test_innermost_known_folder_tells_the_class(path: str, label: str | None) -> None:
    names = {"cat": "cat", "dog": "dog", "n02084071": "dog", "café": "café"}
    label_of = by_names({fold(name): label for name, label in names.items()})
    assert label_of(PurePosixPath(path)) == label
