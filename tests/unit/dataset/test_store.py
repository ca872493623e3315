import hashlib
from pathlib import Path

import pytest

from icon_classifier.dataset.journal import Move, apply_moves
from icon_classifier.dataset.store import PhotoStore, photos_and_labels, suffix_of
from tests.support.pictures import encode, gradient


def test_photo_is_kept_once_per_label(tmp_path: Path) -> None:
    data = encode(gradient())
    store = PhotoStore(tmp_path)

    name = store.add("a", data)

    assert name == hashlib.sha256(data).hexdigest()[:20] + ".png"
    assert store.add("a", data) == name
    assert store.add("b", data) == name
    paths, labels = photos_and_labels(store.photos)
    assert paths == [store.photos / "a" / name, store.photos / "b" / name]
    assert labels == ["a", "b"]
    assert paths[0].read_bytes() == data


def test_file_that_is_not_a_picture_keeps_its_suffix(tmp_path: Path) -> None:
    name = PhotoStore(tmp_path).add("a", b"no picture", "x.JPG")

    assert Path(name).suffix == ".jpg"


def test_name_of_the_user_s_file_is_kept(tmp_path: Path) -> None:
    data = encode(gradient())
    name = PhotoStore(tmp_path).add("a", data, "Käfer am/IMG 12: früh.gif")
    assert name == f"{hashlib.sha256(data).hexdigest()[:20]}-IMG_12_früh.png"
    assert PhotoStore(tmp_path).add("a", data, "copy.png") == name


def test_photos_that_were_not_added_again_are_removed_with_their_originals(
    tmp_path: Path,
) -> None:
    kept, gone = encode(gradient()), encode(gradient("L"))
    store = PhotoStore(tmp_path)
    name, other = store.add("a", kept), store.add("a", gone)
    apply_moves(tmp_path, [Move(f"photos/a/{other}", f"originals/a/{other}", "")], "rewritten")
    (store.photos / "a" / other).with_suffix(".jpg").write_bytes(b"rewritten")

    store = PhotoStore(tmp_path, mirror=True)
    store.add("a", kept)

    store.remove_others()
    assert [path.name for path in tmp_path.glob("*/*/*")] == [name]


def test_photo_that_a_user_has_relabelled_stays_where_it_is(tmp_path: Path) -> None:
    data = encode(gradient())
    name = PhotoStore(tmp_path).add("a", data)
    apply_moves(tmp_path, [Move(f"photos/a/{name}", f"photos/b/{name}", "")], "cleaner")

    store = PhotoStore(tmp_path, mirror=True)
    store.add("a", data)

    store.remove_others()
    assert photos_and_labels(store.photos)[1] == ["b"]


def test_quarantine_of_a_mirrored_folder_is_decided_again(tmp_path: Path) -> None:
    data = encode(gradient())
    name = PhotoStore(tmp_path).add("a", data)
    move = Move(f"photos/a/{name}", f"quarantine/a/{name}", "the same file under several labels")
    apply_moves(tmp_path, [move], "quarantine")

    store = PhotoStore(tmp_path, mirror=True)
    store.add("a", data)

    assert photos_and_labels(store.photos)[1] == ["a"]
    assert not list(tmp_path.glob("quarantine/*/*"))


def test_photo_that_was_moved_away_is_not_added_again(tmp_path: Path) -> None:
    data = encode(gradient())
    name = PhotoStore(tmp_path).add("a", data)
    move = Move(f"photos/a/{name}", f"quarantine/a/{name}", "seen enough of it")
    apply_moves(tmp_path, [move], "cleaner")

    PhotoStore(tmp_path).add("a", data)

    assert photos_and_labels(tmp_path / "photos") == ([], [])


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("HEIF", ".heic"), ("AVIF", ".avif")],
)
def test_suffix_follows_the_contents(kind: str, suffix: str) -> None:
    assert suffix_of(encode(gradient(), kind)) == suffix


@pytest.mark.parametrize("data", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0", b"GIF89a"])
def test_data_that_is_not_a_picture_has_no_suffix(data: bytes) -> None:
    assert suffix_of(data) is None
