from pathlib import Path
from typing import Any

import pytest
from ipywidgets import Dropdown, Image

from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.journal import read_moves
from icon_classifier.dataset.shapes import draw_shapes
from icon_classifier.errors import DatasetError
from icon_classifier.training.review.cleaner import PhotoCleaner


@pytest.fixture(name="learn")
def _learn(tmp_path: Path) -> Any:
    """An untrained learner on a few drawn shapes."""
    from fastai.losses import CrossEntropyLossFlat
    from fastai.torch_core import set_seed
    from fastai.vision.all import ImageDataLoaders, Learner, Resize
    from torch import nn

    set_seed(1)
    photos = tmp_path / "photos"
    draw_photos(photos, ("circle", "square", "triangle"), per_class=6)
    dls = ImageDataLoaders.from_folder(
        photos, valid_pct=0.34, seed=1, item_tfms=Resize(16), bs=4, num_workers=0
    )
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Learner(dls, net, loss_func=CrossEntropyLossFlat())


def draw_photos(folder: Path, labels: tuple[str, ...], per_class: int) -> None:
    for number, (label, image) in enumerate(draw_shapes(labels, per_class=per_class, side=32)):
        path = folder / label / f"{number % per_class:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def show(cleaner: PhotoCleaner, label: str, split: str) -> list[Path]:
    cleaner.dd_cats.value = label
    cleaner.dd_ds.value = split
    return list(cleaner.iw.fns)


def mark(cleaner: PhotoCleaner, path: Path, value: str) -> None:
    """Choose from the photo's menu, as a person would."""
    cleaner.iw.widget.children[cleaner.iw.fns.index(path)].children[1].value = value


def tree(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*.png")}


def test_each_photo_is_shown_once_by_highest_loss(learn: Any) -> None:
    cleaner = PhotoCleaner(learn)
    loss = {row[0]: row[2] for rows in cleaner.iwis for row in rows}
    seen = []
    for label in ("circle", "square", "triangle"):
        for split in ("Train", "Valid"):
            shown = show(cleaner, label, split)
            losses = [loss[path] for path in shown]
            assert losses == sorted(losses, reverse=True)
            assert {path.parent.name for path in shown} <= {label}
            seen += shown

    assert len(seen) == len(set(seen)) == 18
    assert len(set(loss.values())) > 10


def test_photos_are_plain_images_with_a_menu(learn: Any) -> None:
    cleaner = PhotoCleaner(learn, max_n=2)
    boxes = cleaner.iw.widget.children

    assert len(boxes) == 2
    for box in boxes:
        picture, menu, note = box.children
        assert isinstance(picture, Image)
        assert bytes(picture.value[:3]) == b"\xff\xd8\xff"
        assert isinstance(menu, Dropdown)
        assert menu.options == ("<Keep>", "<Delete>", "circle", "square", "triangle")
        assert note.value.startswith("predicted ")


def test_marks_survive_a_change_of_category_and_split(learn: Any) -> None:
    cleaner = PhotoCleaner(learn)
    circle = show(cleaner, "circle", "Train")[0]
    mark(cleaner, circle, "square")
    square = show(cleaner, "square", "Valid")[-1]
    mark(cleaner, square, "<Delete>")

    back = show(cleaner, "circle", "Train")

    assert cleaner.values() == ["square"] + ["<Keep>"] * (len(back) - 1)
    assert list(cleaner.change()) == [(0, "square")]
    assert cleaner.marks == {circle: "square", square: "<Delete>"}
    assert cleaner.status.value == "In all categories: 1 marked to delete, 1 to relabel."
    mark(cleaner, circle, "<Keep>")
    assert cleaner.marks == {square: "<Delete>"}
    show(cleaner, "square", "Valid")
    assert list(cleaner.delete()) == [len(cleaner.iw.fns) - 1]


def test_apply_uses_no_name_twice(learn: Any, tmp_path: Path) -> None:
    cleaner = PhotoCleaner(learn)
    before = tree(tmp_path)
    for label in ("circle", "triangle"):
        for split in ("Train", "Valid"):
            for path in show(cleaner, label, split):
                mark(cleaner, path, "square")  # every name is in use there

    planned = cleaner.apply(dry_run=True)
    assert tree(tmp_path) == before
    assert len(cleaner.marks) == 12

    done = cleaner.apply()

    assert done == planned
    assert len({move.target for move in done}) == 12
    assert len(tree(tmp_path)) == 18
    assert all(name.startswith("photos/square/") for name in tree(tmp_path))
    assert cleaner.marks == {}
    assert show(cleaner, "circle", "Train") == []
    assert read_moves(tmp_path) == done

    assert len(cleaner.undo(dry_run=True)) == 12
    assert len(cleaner.undo()) == 12
    assert tree(tmp_path) == before
    assert len(show(cleaner, "circle", "Train") + show(cleaner, "circle", "Valid")) == 6
    assert cleaner.undo() == []


def test_deleted_photo_goes_to_quarantine(learn: Any, tmp_path: Path) -> None:
    cleaner = PhotoCleaner(learn)
    path = show(cleaner, "circle", "Train")[0]
    mark(cleaner, path, "<Delete>")

    cleaner.apply()

    assert not path.exists()
    assert (tmp_path / "quarantine" / "circle" / path.name).is_file()
    assert path not in cleaner.iw.fns


def test_own_label_moves_nothing(learn: Any) -> None:
    cleaner = PhotoCleaner(learn)
    mark(cleaner, show(cleaner, "circle", "Train")[0], "circle")

    assert cleaner.plan() == []
    assert cleaner.apply() == []


def test_missing_photo_stops_all_moves(learn: Any, tmp_path: Path) -> None:
    cleaner = PhotoCleaner(learn)
    first, second = show(cleaner, "circle", "Train")[:2]
    mark(cleaner, first, "square")
    mark(cleaner, second, "square")
    second.unlink()
    before = tree(tmp_path)

    with pytest.raises(DatasetError, match="does not exist any more; nothing was moved"):
        cleaner.apply()

    assert tree(tmp_path) == before


def test_items_that_are_not_paths_are_refused(learn: Any) -> None:
    learn.dls.train.dataset.items = [str(item) for item in learn.dls.train.items]

    with pytest.raises(DatasetError, match="items are paths of photos"):
        PhotoCleaner(learn)


def test_moved_photo_is_not_gathered_again(tmp_path: Path) -> None:
    """The cleaner's journal is the one that gathering reads."""
    from icon_classifier.dataset.journal import Move, apply_moves
    from icon_classifier.dataset.recipes import Recipe

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
