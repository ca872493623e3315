from pathlib import Path

import pytest
from PIL import Image

from icon_classifier.dataset import gather, photos_and_labels
from icon_classifier.errors import DatasetError
from icon_classifier.recipes import ClassRecipe, FolderSource, Recipe, load_recipe

PETS = Recipe(
    "pets", "Pets", "folder", (ClassRecipe("cat"), ClassRecipe("dog", folders=("n02084071",)))
)


def photo(path: Path, colour: str, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path, kind)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file()
    }


def test_shapes(tmp_path: Path) -> None:
    photos = gather(load_recipe("shapes"), tmp_path)
    paths, labels = photos_and_labels(photos)

    assert len(paths) == 120
    assert sorted(set(labels)) == ["circle", "square", "triangle"]
    assert all(path.parent.name == label for path, label in zip(paths, labels, strict=True))


def test_folder_is_copied_under_labels_and_left_as_it_was(tmp_path: Path) -> None:
    given = tmp_path / "given"
    photo(given / "train" / "Cat" / "a.JPG", "red")  # a PNG by its contents
    photo(given / "train" / "n02084071" / "b.jpeg", "blue", "JPEG")
    photo(given / "val" / "n02084071" / "b.png", "green")
    photo(given / "val" / "cat" / "the same again.png", "red")
    photo(given / "val" / "horse" / "c.png", "white")
    photo(given / ".cache" / "cat" / "d.png", "black")
    (given / "train" / "Cat" / "Thumbs.db").write_bytes(b"litter")
    before = tree(given)

    photos = gather(PETS, tmp_path / "work", data=given)
    paths, labels = photos_and_labels(photos)

    assert labels == ["cat", "dog", "dog"]
    assert sorted(path.suffix for path in paths) == [".jpg", ".png", ".png"]
    assert tree(given) == before
    again = tree(photos)
    assert gather(PETS, tmp_path / "work", data=given) == photos
    assert tree(photos) == again


def test_folders_name_the_classes_of_a_recipe_without_any(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "b" / "1.png", "red")
    photo(tmp_path / "given" / "a" / "1.png", "blue")
    photo(tmp_path / "given" / "stray.png", "green")
    recipe = Recipe("own", "Own", "folder", folder=FolderSource(str(tmp_path / "given")))

    _, labels = photos_and_labels(gather(recipe, tmp_path / "work"))

    assert labels == ["a", "b"]


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere"):
        gather(PETS, tmp_path, data=tmp_path / "nowhere")


def test_no_folder_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="needs a folder of photos, but none is named"):
        gather(PETS, tmp_path)


def test_class_without_photos(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "a.png", "red")
    (tmp_path / "given" / "dog").mkdir()

    with pytest.raises(DatasetError, match="there are no photos of dog in"):
        gather(PETS, tmp_path / "work", data=tmp_path / "given")


def test_one_class_only(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "a.png", "red")
    recipe = Recipe("own", "Own", "folder")

    with pytest.raises(DatasetError, match="at least two classes, one folder each, got 1: cat"):
        gather(recipe, tmp_path / "work", data=tmp_path / "given")
