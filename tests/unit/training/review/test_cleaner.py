from pathlib import Path

import pytest
from ipywidgets import Dropdown, Image

from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.journal import Move, apply_moves, read_moves
from icon_classifier.dataset.recipes import Recipe
from icon_classifier.dataset.sources.shapes import draw_shapes
from icon_classifier.errors import DatasetError
from icon_classifier.training.review.cleaner import PhotoCleaner
from icon_classifier.training.review.doubts import Doubt

LABELS = ("circle", "square", "triangle")


def draw_photos(folder: Path, labels: tuple[str, ...], per_class: int) -> None:
    for number, (label, image) in enumerate(draw_shapes(labels, per_class=per_class, side=32)):
        path = folder / label / f"{number % per_class:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


@pytest.fixture
def cleaner(tmp_path: Path) -> PhotoCleaner:
    """A cleaner of six photos a class, all of them doubted."""
    photos = tmp_path / "photos"
    draw_photos(photos, LABELS, per_class=6)
    doubts = [
        Doubt(path, path.parent.name, "circle", 0.1, 0.9) for path in sorted(photos.glob("*/*"))
    ]
    return PhotoCleaner(photos, LABELS, doubts)


def show(cleaner: PhotoCleaner, label: str) -> list[Path]:
    cleaner.menu.value = label
    return [doubt.path for doubt in cleaner.shown]


def mark(cleaner: PhotoCleaner, path: Path, value: str) -> None:
    """Choose from the photo's menu, as a person would."""
    index = [doubt.path for doubt in cleaner.shown].index(path)
    cleaner.row.children[index].children[2].value = value


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*.png")}


def test_photos_are_plain_images_with_their_names_and_a_menu(cleaner: PhotoCleaner) -> None:
    assert len(cleaner.row.children) == 18
    for doubt, box in zip(cleaner.doubts, cleaner.row.children, strict=True):
        picture, caption, menu = box.children
        assert isinstance(picture, Image)
        assert bytes(picture.value[:3]) == b"\xff\xd8\xff"
        assert doubt.path.name in caption.value
        assert str(doubt) in caption.value
        assert isinstance(menu, Dropdown)
        assert menu.options == ("<Keep>", "<Delete>", *LABELS)


def test_at_most_so_many_photos_are_shown_and_the_others_counted(cleaner: PhotoCleaner) -> None:
    few = PhotoCleaner(cleaner.photos, LABELS, cleaner.doubts, max_photos=5)

    assert [doubt.path for doubt in few.shown] == [doubt.path for doubt in cleaner.doubts[:5]]
    assert few.status.value == "5 of 18 photos are shown."


def test_marks_survive_a_change_of_class(cleaner: PhotoCleaner) -> None:
    circle = show(cleaner, "circle")[0]
    mark(cleaner, circle, "square")
    square = show(cleaner, "square")[-1]
    mark(cleaner, square, "<Delete>")

    show(cleaner, "circle")

    assert cleaner.row.children[0].children[2].value == "square"
    assert cleaner.marks == {circle: "square", square: "<Delete>"}
    mark(cleaner, circle, "circle")
    assert cleaner.status.value == "1 marked to delete, 0 to relabel."
    mark(cleaner, circle, "<Keep>")
    assert cleaner.marks == {square: "<Delete>"}


def test_apply_uses_no_name_twice_and_undo_moves_all_back(
    cleaner: PhotoCleaner, tmp_path: Path
) -> None:
    before = tree(tmp_path)
    for label in ("circle", "triangle"):
        for path in show(cleaner, label):
            mark(cleaner, path, "square")  # every name is in use there

    done = cleaner.apply()

    assert len({move.target for move in done}) == 12
    assert len(tree(tmp_path)) == 18
    assert all(name.startswith("photos/square/") for name in tree(tmp_path))
    assert cleaner.marks == {}
    assert show(cleaner, "circle") == []
    assert read_moves(tmp_path) == done

    assert len(cleaner.undo()) == 12
    assert tree(tmp_path) == before
    assert len(cleaner.shown) == 6
    assert cleaner.undo() == []


def test_buttons_apply_and_undo_and_say_so(cleaner: PhotoCleaner, tmp_path: Path) -> None:
    path = cleaner.shown[0].path
    mark(cleaner, path, "<Delete>")

    cleaner.button_apply.click()

    assert not path.exists()
    assert (tmp_path / "quarantine" / "circle" / path.name).is_file()
    assert path not in [doubt.path for doubt in cleaner.shown]
    assert cleaner.status.value.startswith("Photos moved: 1.")

    cleaner.button_undo.click()

    assert path.is_file()
    assert cleaner.shown[0].path == path


def test_marks_end_with_a_loop_that_moves_or_deletes_the_photos(cleaner: PhotoCleaner) -> None:
    first, second, third = show(cleaner, "circle")[:3]
    mark(cleaner, first, "<Delete>")
    mark(cleaner, second, "square")
    for path in cleaner.marks:
        path.unlink()
    mark(cleaner, third, "square")

    assert cleaner.status.value == "0 marked to delete, 1 to relabel."
    cleaner.button_apply.click()

    assert cleaner.status.value.startswith("Photos moved: 1.")
    assert not third.exists()
    assert cleaner.marks == {}


def test_photo_that_cannot_be_moved_stops_all_moves_and_the_button_says_why(
    cleaner: PhotoCleaner, tmp_path: Path
) -> None:
    path = show(cleaner, "circle")[0]
    mark(cleaner, path, "<Delete>")
    (tmp_path / "quarantine").write_text("no folder")
    before = tree(tmp_path)

    cleaner.button_apply.click()

    assert "quarantine" in cleaner.status.value
    assert tree(tmp_path) == before
    assert cleaner.marks == {path: "<Delete>"}
    with pytest.raises(DatasetError, match="quarantine"):
        cleaner.apply()


def test_cleaner_without_doubts_can_still_undo(cleaner: PhotoCleaner, tmp_path: Path) -> None:
    before = tree(tmp_path)
    mark(cleaner, cleaner.shown[0].path, "triangle")
    cleaner.apply()

    empty = PhotoCleaner(cleaner.photos, LABELS, [])
    assert empty.status.value == "0 of 0 photos are shown."
    assert len(empty.undo()) == 1

    assert tree(tmp_path) == before


def test_moved_photo_is_not_gathered_again(tmp_path: Path) -> None:
    """The cleaner's journal is the one that gathering reads."""
    given = tmp_path / "given"
    draw_photos(given, ("circle", "square"), per_class=3)
    recipe = Recipe("own", "Own", "folder")
    photos = gather(recipe, tmp_path / "work", data=given)
    name = sorted(path.name for path in (photos / "circle").iterdir())[0]
    apply_moves(
        tmp_path / "work", [Move(f"photos/circle/{name}", f"photos/square/{name}", "")], "cleaner"
    )

    gather(recipe, tmp_path / "work", data=given)

    assert len(list((photos / "circle").iterdir())) == 2
    assert len(list((photos / "square").iterdir())) == 4
