from pathlib import PurePosixPath

import pytest

from icon_classifier.dataset.tables import by_table, is_table

PHOTOS = [PurePosixPath(path) for path in ("train/a.jpg", "train/b.jpg", "test/a.jpg")]


def labels(table: str | bytes, **options: bool) -> dict[str, str] | None:
    data = table if isinstance(table, bytes) else table.encode()
    found = by_table(data, PHOTOS, **options)
    return None if found is None else {str(path): label for path, label in found[0].items()}


@pytest.mark.parametrize(
    "table",
    [
        "id,label\na,cat\nb,dog\n",
        "filename,label\na.jpg,cat\nb.jpg,dog\n",
        "label,filename\ncat,A.JPG\ndog,B.JPG\n",
        "a.jpg,cat\nb.jpg,dog\n",
        "file;Klasse\na.jpg;cat\nb.jpg;dog\n",
        "file\tname\tbreed\na.jpg\tx\tcat\nb.jpg\ty\tdog\n",
        'note,file,label\n"two\nlines",a.jpg,cat\n"x, y",b.jpg,dog\n',
        "\ufefffile,label\r\n\r\na.jpg, cat \r\nb.jpg,dog\r\n",
        "file,label\na.jpg,cat\nb.jpg,dog\n".encode("utf-16"),
        "file,label\na.jpg,cat\nb.jpg,dog\n".encode("utf-16-le"),
    ],
)
def test_photos_are_found_by_their_names(table: str | bytes) -> None:
    assert labels(table) == {"train/a.jpg": "cat", "train/b.jpg": "dog", "test/a.jpg": "cat"}


@pytest.mark.parametrize(
    "table",
    [
        "path,label\ntrain/a.jpg,cat\n",
        "path,label\n./train/a.jpg,cat\n",
        "path,label\ntrain\\a.jpg,cat\n",
        "path,label\n/train/a,cat\n",
    ],
)
def test_path_in_a_table_means_one_photo(table: str) -> None:
    assert labels(table) == {"train/a.jpg": "cat"}


def test_folders_of_another_machine_do_not_count() -> None:
    assert labels("path,label\nC:\\pets\\x\\b.jpg,dog\n") == {"train/b.jpg": "dog"}


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\n\n",
        b"id,label\nx,cat\n",
        b"file\na.jpg\n",
        b"file,width,height\na.jpg,20,30\n",
        b'"' * 200_000,
        bytes(range(256)),
    ],
)
def test_table_without_photos_or_labels_is_none(table: bytes) -> None:
    assert labels(table) is None


def test_column_beside_the_photos_is_taken_where_the_table_was_named() -> None:
    assert labels("file,what,size\nb.jpg,dog,3\n", any_columns=True) == {"train/b.jpg": "dog"}


def test_labels_that_are_names_of_photos_are_told_apart() -> None:
    photos = [PurePosixPath(f"{number}.png") for number in range(12)]
    rows = "".join(f"{number % 3},{number}\n" for number in range(12))
    for header in ("", "label,id\n", "x,y\n"):
        found = by_table(f"{header}{rows}".encode(), photos)
        assert found is not None
        assert list(found[0].values()) == ["0", "1", "2"] * 4


def test_photo_with_two_labels_has_none() -> None:
    assert labels("file,label\ntrain/a.jpg,cat\ntrain/b.jpg,dog\ntrain/a.jpg,dog\n") == {
        "train/b.jpg": "dog"
    }


def test_row_without_a_label_is_left_out() -> None:
    assert labels("file,label\na.jpg\nb.jpg,\ntest/a.jpg,cat\n") == {"test/a.jpg": "cat"}


@pytest.mark.parametrize(
    ("header", "cells", "expected"),
    [
        ("split", ("train", "TEST"), ["train", "test"]),
        ("is_valid", ("False", "True"), ["train", "valid"]),
        ("data set", ("training", "val"), ["train", "valid"]),
    ],
)
def test_column_of_sets_is_read(header: str, cells: tuple[str, str], expected: list[str]) -> None:
    table = f"file,label,{header}\ntrain/a.jpg,cat,{cells[0]}\nb.jpg,dog,{cells[1]}\n"
    found = by_table(table.encode(), PHOTOS)

    assert found is not None
    assert list(found[1].values()) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("train.csv", True), ("Labels.TSV", True), ("sample_submission.csv", False), ("a.txt", False)],
)
def test_tables_are_recognised_by_their_names(name: str, expected: bool) -> None:
    assert is_table(PurePosixPath("x", name)) is expected
