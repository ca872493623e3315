import unicodedata
from pathlib import PurePosixPath

import pytest

from icon_classifier.dataset.layout import Layout, find_layout
from icon_classifier.errors import DatasetError


def layout(paths: list[str], **options: object) -> Layout:
    return find_layout(map(PurePosixPath, paths), **options)  # type: ignore[arg-type]


def labels(paths: list[str], **options: object) -> list[str | None]:
    places = layout(paths, **options).places
    found = [places.get(PurePosixPath(path)) for path in paths]
    return [place.label if place else None for place in found]


def subsets(paths: list[str], **options: object) -> list[str]:
    places = layout(paths, **options).places
    return [places[PurePosixPath(path)].subset for path in paths]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["cat/1.jpg", "dog/1.jpg"], ["cat", "dog"]),
        (["pets/cat/1.jpg", "pets/dog/1.jpg"], ["cat", "dog"]),
        (["cat/indoor/1.jpg", "cat/outdoor/1.jpg", "dog/1.jpg"], ["cat", "cat", "dog"]),
        (["train/cat/1.jpg", "Valid/cat/2.jpg", "test/dog/a/1.jpg"], ["cat", "cat", "dog"]),
        (["set/train/cat/1.jpg", "set/val/dog/2.jpg"], ["cat", "dog"]),
        (["train_images/cat/1.jpg", "test1/dog/2.jpg"], ["cat", "dog"]),
        (["test/1.jpg", "best/1.jpg"], ["test", "best"]),
        (["1.jpg", "cat/1.jpg", "dog/1.jpg"], [None, "cat", "dog"]),
        (["cat/1.jpg"], ["cat"]),
        (["_cat/1.jpg", "dog ~/1.jpg"], ["_cat", "dog ~"]),
        (["train/Cat/1.jpg", "valid/cat/1.jpg", "train/dog/1.jpg"], ["Cat", "Cat", "dog"]),
        (["cat/1.jpg", "dog/1.jpg", "films/a.mp4"], ["cat", "dog", "films"]),
        (["pets/cat/1.jpg", "pets/dog/1.jpg", "films/a.mp4"], ["cat", "dog", None]),
        (["cat/1.JPG_LARGE", "dog/1"], ["cat", "dog"]),
        (["pets/3.jpg", "pets/cat/1.jpg", "pets/dog/2.jpg"], [None, "cat", "dog"]),
    ],
)
def test_folders_name_the_classes(paths: list[str], expected: list[str | None]) -> None:
    assert labels(paths) == expected


def test_hidden_files_and_texts_are_left_out_with_a_reason() -> None:
    found = layout(
        [
            *("cat/1.jpg", "cat/Thumbs.db", "__MACOSX/cat/1.jpg", ".git/a/b.png"),
            *("cat/IMG_1.jpg.supplemental-metadata.json", "cat/2.jpg.tmp", "dog/DESKTOP.ini"),
        ]
    )

    assert list(map(str, found.places)) == ["cat/1.jpg"]
    assert sorted(found.left_out.values()) == [
        *["hidden"] * 4,
        *("not a photo (.json)", "not a photo (.tmp)"),
    ]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            ["train/cat/1.jpg", "Valid/cat/2.jpg", "val/dog/3.jpg", "test/dog/4.jpg"],
            ["train", "valid", "valid", "test"],
        ),
        (["cat/train/1.jpg", "cat/test/2.jpg", "dog/training/3.jpg"], ["train", "test", "train"]),
        (["cat/1.jpg", "dog/2.jpg", "test/cat/3.jpg"], ["train", "train", "test"]),
        (["test/1.jpg", "best/1.jpg"], ["train", "train"]),  # a class of this name
        (["test/cat/1.jpg", "test/dog/1.jpg"], ["train", "train"]),
        (["val/cat/1.jpg", "test/dog/1.jpg"], ["train", "test"]),  # none left to train on
        (["val/cat/1.jpg", "val/dog/1.jpg"], ["train", "train"]),
        (["test/train/cat/1.jpg", "test/valid/dog/1.jpg"], ["train", "valid"]),
    ],
)
def test_folders_name_the_sets(paths: list[str], expected: list[str]) -> None:
    assert subsets(paths) == expected


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Cat/indoor/1.jpg", "cat"),
        ("dog/cat/1.jpg", "cat"),
        ("n02084071/1.jpg", "dog"),
        ("Border_Terrier/1.jpg", "border terrier"),
        (unicodedata.normalize("NFD", "CAFÉ/1.jpg"), "café"),
        ("horse/1.jpg", None),
        ("horse/cat_1.jpg", None),
    ],
)
def test_innermost_folder_that_is_named_like_a_class_counts(path: str, label: str | None) -> None:
    classes = {name: name for name in ("cat", "dog", "border terrier", "café")}
    found = labels([path, "cat/1.jpg"], classes=classes | {"n02084071": "dog"})

    assert found[0] == label


def test_names_found_in_place_of_classes_are_counted() -> None:
    paths = ["Katze/innen/1.jpg", "Katze/2.jpg", "dog/1.jpg", "films/1.mov", "0.jpg"]
    found = layout(paths, classes={"cat": "cat"})

    assert found.unknown == {"Katze": 2, "dog": 1, "": 1}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["cat_1.jpg", "cat_2.jpg", "dog_1.jpg", "dog_2.jpg"], ["cat", "cat", "dog", "dog"]),
        (["a/cat.0.jpg", "a/dog.0.jpg", "a/cat.1.jpg", "a/dog.1.jpg"], ["cat", "dog"] * 2),
        (
            ["great_pug_73.jpg", "great_pug_4.jpg", "a-1.jpg", "a-2.jpg"],
            ["great_pug"] * 2 + ["a"] * 2,
        ),
        (
            ["Katze (1).jpg", "Katze (2).jpg", "Hund-3.jpg", "Hund4.jpg"],
            ["Katze"] * 2 + ["Hund"] * 2,
        ),
        (["IMG_1.jpg", "IMG_2.jpg", "DSC01.jpg", "DSC02.jpg"], [None] * 4),
        (["one.jpg", "two.jpg", "cat_1.jpg", "dog_1.jpg"], [None] * 4),
        (["cat/dog_1.jpg", "cat/dog_2.jpg", "dog/cat_1.jpg"], ["cat", "cat", "dog"]),
    ],
)
def test_numbered_names_name_the_classes_where_folders_do_not(
    paths: list[str], expected: list[str | None]
) -> None:
    assert labels(paths) == expected


def test_numbered_names_are_matched_with_known_classes() -> None:
    classes = {"cat": "cat", "dog": "dog"}

    assert labels(["Cat_1.jpg", "dog_7.jpg", "cow_1.jpg"], classes=classes) == ["cat", "dog", None]


def test_pattern_finds_the_label_in_the_path() -> None:
    paths = ["a/7_12.png", "a/3_12.png", "b/x.png"]

    assert labels(paths, pattern=r"(\d)_\d+\.png$") == ["7", "3", None]


def test_table_names_the_classes_where_folders_do_not() -> None:
    paths = ["train/a1.jpg", "train/b2.jpg", "test/c3.jpg", "train.csv", "sample_submission.csv"]
    tables = {PurePosixPath("train.csv"): b"id,breed\na1,pug\nb2,beagle\n"}

    found = layout(paths, tables=tables)

    assert found.labels_from == "train.csv"
    assert [place.label for place in found.places.values()] == ["pug", "beagle"]
    assert found.left_out[PurePosixPath("test/c3.jpg")] == "no single class is found in train.csv"


def test_tables_of_sets_are_merged() -> None:
    photos = ["images/a.jpg", "images/b.jpg", "images/c.jpg"]
    tables = {
        PurePosixPath(f"{name}.csv"): f"file,label\n{photo},{label}\n".encode()
        for name, photo, label in (("train", "a", "cat"), ("val", "b", "dog"), ("test", "c", "cat"))
    }

    assert labels(photos, tables=tables) == ["cat", "dog", "cat"]
    assert subsets(photos, tables=tables) == ["train", "valid", "test"]
    assert layout(photos, tables=tables).labels_from == "test.csv, train.csv, val.csv"


def test_table_without_photos_to_train_on_keeps_its_test_set() -> None:
    tables = {PurePosixPath("t.csv"): b"file,label,split\na.jpg,cat,val\nb.jpg,dog,test\n"}

    assert subsets(["a.jpg", "b.jpg"], tables=tables) == ["train", "test"]


def test_named_table_comes_before_folders() -> None:
    paths = ["part_1/a.jpg", "part_2/b.jpg"]
    tables = {PurePosixPath("m.csv"): b"lesion,image_id,dx\nx,a,mel\ny,b,nv\n"}

    assert labels(paths, tables=tables) == ["part_1", "part_2"]
    assert labels(paths, tables=tables, table="m.csv") == ["mel", "nv"]
    with pytest.raises(DatasetError, match=r"there is no table n\.csv"):
        layout(paths, tables=tables, table="n.csv")
    with pytest.raises(DatasetError, match=r"m\.csv: expected a column with names of photos"):
        layout(["c.jpg"], tables=tables, table="m.csv")


@pytest.mark.parametrize("label", ["../../etc", "a/b", ".hidden", "猫" * 300, "new\nline\0"])
def test_label_of_a_table_can_name_a_folder(label: str) -> None:
    tables = {PurePosixPath("t.csv"): f'file,label\n1.jpg,"{label}"\n2.jpg,b\n'.encode()}

    found = labels(["1.jpg", "2.jpg"], tables=tables)[0]

    assert found
    assert PurePosixPath(found).name == found
    assert not found.startswith(".")
    assert len(found.encode()) <= 255
