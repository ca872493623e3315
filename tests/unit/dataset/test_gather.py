import hashlib
import io
import random
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ddgs
import pytest
from ddgs.exceptions import RatelimitException
from PIL import Image

from icon_classifier.dataset.clean import CleanReport, clean
from icon_classifier.dataset.gather import check_own_photos, gather
from icon_classifier.dataset.journal import Move, apply_moves, undo_moves
from icon_classifier.dataset.json_lines import read_lines
from icon_classifier.dataset.recipes import (
    ArchiveSource,
    ClassRecipe,
    FolderSource,
    Recipe,
    SearchSource,
    UrlsSource,
    folder_recipe,
    load_recipe,
)
from icon_classifier.dataset.sources import search
from icon_classifier.dataset.sources.archive import read_folder
from icon_classifier.dataset.sources.download import Timeouts
from icon_classifier.dataset.store import original_name, photos_and_labels, valid_indices
from icon_classifier.dataset.summary import summarize
from icon_classifier.errors import DatasetError, DownloadError
from tests.support.photo_searches import (
    OPENVERSE,
    WIKIMEDIA,
    FakeDdgs,
    openverse_photo,
    serve,
    wikimedia_photo,
)
from tests.support.photo_server import PhotoServer, body, in_turn, photo_server, ranged, status
from tests.support.pictures import encode

PETS = Recipe(
    "pets", "Pets", "folder", (ClassRecipe("cat"), ClassRecipe("dog", folders=("n02084071",)))
)


QUICK = Timeouts(connect=10, read=10, total=20, tries=1, pause=0)


def coloured(number: int) -> bytes:
    return encode(Image.new("RGB", (20, 20), (number, 255 - number, 7)))


def photo(path: Path, colour: str, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 20), colour).save(path, kind)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file()
    }


def test_shapes_are_drawn_for_each_class(tmp_path: Path) -> None:
    photos = gather(load_recipe("shapes"), tmp_path)
    paths, labels = photos_and_labels(photos)

    assert len(paths) == 120
    assert sorted(set(labels)) == ["circle", "square", "triangle"]
    assert all(path.parent.name == label for path, label in zip(paths, labels, strict=True))


def test_folder_is_copied_under_labels_and_not_changed(tmp_path: Path) -> None:
    given = tmp_path / "given"
    photo(given / "train" / "Cat" / "a.JPG", "red")  # a PNG by its contents
    photo(given / "train" / "n02084071" / "b.jpeg", "blue", "JPEG")
    photo(given / "val" / "n02084071" / "b.png", "green")
    photo(given / "val" / "cat" / "the same again.png", "red")
    photo(given / "val" / "horse" / "c.png", "white")
    photo(given / ".cache" / "cat" / "d.png", "black")
    (given / "train" / "Cat" / "Thumbs.db").write_bytes(b"not a photo")
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


def test_changes_in_the_folder_show_in_the_next_run(tmp_path: Path) -> None:
    given, work = tmp_path / "given", tmp_path / "work"
    for name, colour in {
        "cat/1": "red",
        "cat/2": "blue",
        "dog/3": "green",
        "cow/4": "white",
    }.items():
        photo(given / f"{name}.png", colour)
    recipe = Recipe("own", "Own", "folder")
    gather(recipe, work, data=given)

    (given / "cat" / "2.png").rename(given / "dog" / "2.png")
    (given / "dog" / "3.png").unlink()
    (given / "cow").rename(given / "horse")
    paths, labels = photos_and_labels(gather(recipe, work, data=given))

    names = [path.stem.partition("-")[2] for path in paths]
    assert list(zip(labels, names, strict=True)) == [("cat", "1"), ("dog", "2"), ("horse", "4")]


def own(given: Path, work: Path) -> CleanReport:
    """Gather and clean a user's own folder."""
    photos = gather(Recipe("own", "Own", "folder"), work, data=given)
    return clean(photos, with_fastai=False, progress=False)


def found(report: CleanReport) -> list[str]:
    return sorted(f"{path.parent.name}/{original_name(path)}" for path in report.paths)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """A user's folder of cats, dogs and cows, with a broken photo and two that look alike."""
    folder = tmp_path / "given"
    for label in ("cat", "cow", "dog"):
        for number in range(3):
            name = f"{label}{number}"
            (folder / label).mkdir(parents=True, exist_ok=True)
            (folder / label / f"{name}.png").write_bytes(pattern(name))
    (folder / "cat" / "broken.jpg").write_bytes(b"broken")
    alike = Image.open(io.BytesIO(pattern("cat0"))).resize((40, 40))
    (folder / "dog" / "alike.webp").write_bytes(encode(alike, "WEBP", quality=95))
    return folder


def pattern(name: str) -> bytes:
    rng = random.Random(name)
    image = Image.frombytes("RGB", (6, 6), rng.randbytes(108))
    return encode(image.resize((60, 60), Image.Resampling.BICUBIC))


ALL = [
    *("cat/cat0.png", "cat/cat1.png", "cat/cat2.png"),
    *("cow/cow0.png", "cow/cow1.png", "cow/cow2.png"),
    *("dog/alike.jpg", "dog/dog0.png", "dog/dog1.png", "dog/dog2.png"),
]


def without(*names: str, added: tuple[str, ...] = ()) -> list[str]:
    return sorted([*(name for name in ALL if name not in names), *added])


def remove_class(given: Path) -> None:
    shutil.rmtree(given / "cow")


def delete_photos(given: Path) -> None:
    for name in ("cat/cat1.png", "cat/broken.jpg", "dog/alike.webp"):
        (given / name).unlink()


def correct_class(given: Path) -> None:
    (given / "dog" / "alike.webp").rename(given / "cat" / "alike.webp")


def rename_folder(given: Path) -> None:
    (given / "dog").rename(given / "hound")


def mend_photo(given: Path) -> None:
    (given / "cat" / "broken.jpg").write_bytes(pattern("mended"))


CHANGES: dict[Callable[[Path], None], tuple[list[str], int, int]] = {
    remove_class: (without(*(name for name in ALL if "cow" in name)), 1, 1),
    delete_photos: (without("cat/cat1.png", "dog/alike.jpg"), 0, 0),
    correct_class: (without("dog/alike.jpg", added=("cat/alike.jpg",)), 1, 0),
    rename_folder: (
        without(
            *(name for name in ALL if "dog/" in name),
            added=tuple(name.replace("dog/", "hound/") for name in ALL if "dog/" in name),
        ),
        1,
        1,
    ),
    mend_photo: (without(added=("cat/broken.png",)), 0, 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_in_the_user_s_folder_shows_in_the_next_run(
    given: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    first = own(given, tmp_path / "work")
    assert found(first) == ALL
    assert len(first.quarantined) == 1
    assert len(first.conflicts) == 1

    change(given)
    again = own(given, tmp_path / "work")

    photos, quarantined, conflicts = CHANGES[change]
    assert found(again) == photos
    folders = {each.name for each in (tmp_path / "work" / "photos").iterdir()}
    assert folders == set(again.labels)
    assert len(again.quarantined) == quarantined
    assert len(list((tmp_path / "work" / "quarantine").glob("*/*"))) == quarantined
    assert len(again.conflicts) == conflicts
    originals = sorted((tmp_path / "work" / "originals").glob("*/*"))
    assert len(originals) == sum("alike" in photo for photo in photos)


def clean_by_hand(work: Path, report: CleanReport) -> None:
    """Move the photo that looks like a cat to the cats, and delete a cow, as the cleaner does."""
    [alike] = (path for path in report.paths if "alike" in path.name)
    [cow] = (path for path in report.paths if "cow0" in path.name)
    moves = [
        Move(f"photos/dog/{alike.name}", f"photos/cat/{alike.name}", ""),
        Move(f"photos/cow/{cow.name}", f"quarantine/cow/{cow.name}", "deleted in the cleaner"),
    ]
    apply_moves(work, moves, "cleaner")


def test_what_the_cleaner_moved_stays_there_until_it_is_undone(given: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    clean_by_hand(work, own(given, work))
    cleaned = without("dog/alike.jpg", "cow/cow0.png", added=("cat/alike.jpg",))

    assert found(own(given, work)) == cleaned
    (given / "cat" / "cat2.png").unlink()
    cleaned.remove("cat/cat2.png")
    assert found(own(given, work)) == cleaned

    assert len(undo_moves(work)) == 2
    assert found(own(given, work)) == without("cat/cat2.png")


def test_photo_that_the_cleaner_deleted_goes_with_the_user_s_file(
    given: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    clean_by_hand(work, own(given, work))
    shutil.rmtree(given / "cow")
    report = own(given, work)

    assert found(report) == without(
        "dog/alike.jpg", *(name for name in ALL if "cow" in name), added=("cat/alike.jpg",)
    )
    assert [row.label for row in summarize(report).rows] == ["cat", "dog"]


def test_photo_that_returned_from_quarantine_can_be_deleted_and_brought_back(
    given: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copy(given / "cow" / "cow0.png", given / "dog" / "a cow.png")
    assert found(own(given, work)) == without("cow/cow0.png")
    (given / "dog" / "a cow.png").unlink()
    clean_by_hand(work, own(given, work))
    deleted = own(given, work)
    assert "cow/cow0.png" not in found(deleted)
    assert sum(row.quarantined for row in summarize(deleted).rows) == 2

    assert len(undo_moves(work)) == 2
    assert found(own(given, work)) == ALL


def test_photo_that_the_cleaner_relabelled_follows_the_user_s_folder(
    given: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    clean_by_hand(work, own(given, work))
    (given / "dog" / "alike.webp").rename(given / "cow" / "alike.webp")

    assert found(own(given, work)) == without(
        "dog/alike.jpg", "cow/cow0.png", added=("cow/alike.jpg",)
    )


def test_photo_that_was_relabelled_before_it_is_rewritten_keeps_its_label(
    given: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    photos = gather(Recipe("own", "Own", "folder"), work, data=given)
    [alike] = photos.glob("dog/*alike.webp")
    apply_moves(work, [Move(f"photos/dog/{alike.name}", f"photos/cat/{alike.name}", "")], "cleaner")
    relabelled = without("dog/alike.jpg", added=("cat/alike.jpg",))

    assert found(clean(photos, with_fastai=False, progress=False)) == relabelled
    assert found(own(given, work)) == relabelled
    assert len(undo_moves(work)) == 1
    assert found(own(given, work)) == ALL


def test_photo_under_two_labels_returns_when_its_copy_is_deleted(tmp_path: Path) -> None:
    given, work = tmp_path / "given", tmp_path / "work"
    for name in ("cat/1", "dog/1"):
        photo(given / f"{name}.png", "red")
    for number in range(4):
        for label, channel in (("cat", number), ("dog", 9 - number)):
            (given / label / f"{channel}{label}.png").write_bytes(coloured(channel))
    recipe = Recipe("own", "Own", "folder")
    first = clean(gather(recipe, work, data=given), with_fastai=False, progress=False)
    assert len(first.quarantined) == 2

    (given / "dog" / "1.png").unlink()
    again = clean(gather(recipe, work, data=given), with_fastai=False, progress=False)

    assert not again.quarantined
    assert Counter(again.labels) == {"cat": 5, "dog": 4}


def test_sets_of_the_user_are_kept_apart(tmp_path: Path) -> None:
    given, work = tmp_path / "given", tmp_path / "work"
    for number, name in enumerate(
        f"{part}/{label}/{number}.png"
        for part, count in (("train", 4), ("valid", 2), ("test", 2))
        for label in ("cat", "dog")
        for number in range(count)
    ):
        photo(given / name, f"#{number:02}{99 - number:02}40")

    photos = gather(Recipe("own", "Own", "folder"), work, data=given)
    paths, labels = photos_and_labels(photos)

    assert Counter(labels) == {"cat": 6, "dog": 6}
    valid = {paths[index].read_bytes() for index in valid_indices(paths)}
    assert valid == {path.read_bytes() for path in given.glob("valid/*/*")}
    test, _ = photos_and_labels(work / "test")
    assert {path.read_bytes() for path in test} == {
        path.read_bytes() for path in given.glob("test/*/*")
    }
    (given / "test" / "cat" / "0.png").rename(given / "train" / "cat" / "was test.png")
    gather(Recipe("own", "Own", "folder"), work, data=given)
    assert len(photos_and_labels(work / "test")[0]) == 3
    assert len(photos_and_labels(photos)[0]) == 13


def test_labels_of_a_table_are_used_for_a_folder_and_for_an_archive(tmp_path: Path) -> None:
    given = tmp_path / "given"
    for number, colour in enumerate(("red", "blue", "green")):
        photo(given / "train" / f"{number}.png", colour)
    photo(given / "test" / "3.png", "white")
    (given / "train.csv").write_bytes("id,label\n0,Käfer\n1,a/b\n2,Käfer\n".encode("utf-16"))
    (given / "sample_submission.csv").write_text("id,label\n3,Käfer\n")
    shutil.make_archive(str(tmp_path / "packed"), "zip", given)
    recipe = Recipe("own", "Own", "folder")

    for number, source in enumerate((given, tmp_path / "packed.zip")):
        photos = gather(recipe, tmp_path / f"work{number}", data=source)

        assert photos_and_labels(photos)[1] == ["Käfer", "Käfer", "a_b"]
        assert left_out(tmp_path / f"work{number}") == {
            "sample_submission.csv": "not a photo (.csv)",
            "test/3.png": "no single class is found in train.csv",
        }


def test_table_may_be_given_in_place_of_its_folder(tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "blue")):
        photo(tmp_path / "pets" / f"part{number}" / f"{number}.png", colour)
    table = tmp_path / "pets" / "train.csv"
    table.write_text("what,name,width\ncat,0,20\ndog,1,20\n")
    recipe = folder_recipe(table)

    photos = gather(recipe, tmp_path / "work")

    assert recipe.name == "pets"
    assert photos_and_labels(photos)[1] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], r"got none; left out: a folder without files \(1\)$"),
        (
            ["cat/1.png", "cat/2.png"],
            r"got only 'cat'; left out: a folder without files \(1\)$",
        ),
        (
            ["1.png", "2.png"],
            r"got none; left out: .* \(2\), .* \(1\); without a class: \(no folder\) \(2\)$",
        ),
        (["cats.zip", "dogs.zip"], r"left out: .*archive within: unpack it first \(2\)"),
        (["test/1.png", "train/2.png"], r"without a class: test \(1\), train \(1\)$"),
    ],
)
def test_folder_without_classes_is_refused_with_what_was_found(
    tmp_path: Path, files: list[str], message: str
) -> None:
    (tmp_path / "given" / "empty" / "folder").mkdir(parents=True)
    for name in files:
        photo(tmp_path / "given" / name, "red")

    recipe = Recipe("own", "Own", "folder")
    with pytest.raises(DatasetError, match=message):
        gather(recipe, tmp_path / "work", data=tmp_path / "given")
    with pytest.raises(DatasetError, match=message):
        check_own_photos(recipe, tmp_path / "given")
    assert not (tmp_path / "work").exists()


def test_class_of_films_alone_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "1.png", "red")
    (tmp_path / "given" / "dog").mkdir()
    (tmp_path / "given" / "dog" / "film.mov").write_bytes(b"a film")

    with pytest.raises(DatasetError, match=r"got only 'cat'; left out: not a photo \(.mov\) \(1\)"):
        gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=tmp_path / "given")

    assert not (tmp_path / "work").exists()


def test_photos_that_a_table_names_in_vain_are_recorded(tmp_path: Path) -> None:
    for number, colour in enumerate(("red", "blue")):
        photo(tmp_path / "given" / f"{number}.png", colour)
    table = "file,label\n0.png,cat\n1.png,dog\n2.png,dog\n,dog\n"
    (tmp_path / "given" / "labels.csv").write_text(table)

    gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=tmp_path / "given")

    assert left_out(tmp_path / "work") == {
        "2.png": "named in labels.csv, but there is no such file"
    }


def test_pattern_of_a_recipe_names_the_classes(tmp_path: Path) -> None:
    for name, colour in {"IMG_1_cat": "red", "IMG_2_dog": "blue", "IMG_3": "green"}.items():
        photo(tmp_path / "given" / f"{name}.png", colour)
    source = FolderSource(str(tmp_path / "given"), pattern=r"IMG_\d+_(\w+)\.")

    photos = gather(Recipe("own", "Own", "folder", folder=source), tmp_path / "work")

    assert photos_and_labels(photos)[1] == ["cat", "dog"]


def test_names_of_folders_may_be_unusual(tmp_path: Path) -> None:
    names = ("_cat", "~dog", "Beyonce\u0301", " cow ", "b\udcff", "c%20d;'&", "e.f")
    for number, name in enumerate(names):
        photo(tmp_path / "given" / name / f"{'x' * 200}{number}.PNG", f"#{number}{number}0000")

    report = own(tmp_path / "given", tmp_path / "work")

    expected = ["Beyoncé", "_cat", "b_", "c%20d;'&", "cow", "e.f", "~dog"]
    assert list(report.labels) == expected
    assert [row.label for row in summarize(report).rows] == expected


def test_photos_in_the_data_folder_itself_are_gathered_beside_them(tmp_path: Path) -> None:
    for label, colour in {"cat": "red", "dog": "blue"}.items():
        photo(tmp_path / "pets" / label / "1.png", colour)
    before = tree(tmp_path / "pets")
    recipe = Recipe("own", "Own", "folder")

    for _ in range(2):
        photos = gather(recipe, tmp_path / "pets", data=tmp_path / "pets")
        assert photos == tmp_path / "pets" / "gathered" / "photos"
        assert photos_and_labels(photos)[1] == ["cat", "dog"]

    shutil.rmtree(tmp_path / "pets" / "gathered")
    assert tree(tmp_path / "pets") == before


def test_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "1.png", "red")
    photo(tmp_path / "given" / "dog" / "2.png", "blue")
    (tmp_path / "file").write_text("")

    with pytest.raises(DatasetError, match=r"photos cannot be kept in the folder .*file/work: Not"):
        gather(Recipe("own", "Own", "folder"), tmp_path / "file" / "work", data=tmp_path / "given")


def test_address_of_an_archive_that_failed_or_returned_a_web_page_is_asked_again(
    server: PhotoServer, tmp_path: Path
) -> None:
    page, archive = body(b" <html>busy</html>"), body(archive_of_pets())
    server.routes["/pets.tgz"] = in_turn(*[status(503)] * 4, page, archive)
    recipe = replace(PETS, source="archive", archive=ArchiveSource(server.url("/pets.tgz")))

    with pytest.raises(DownloadError, match="expected a zip or tar archive, got a web page"):
        gather(recipe, tmp_path, timeouts=QUICK, progress=False)
    photos = gather(recipe, tmp_path, timeouts=QUICK, progress=False)

    assert photos_and_labels(photos)[1] == ["cat", "cat", "dog"]


def test_folders_of_other_names_than_the_classes_are_listed(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "a.png", "red")
    photo(tmp_path / "given" / "Hund" / "b.png", "blue")
    (tmp_path / "given" / "Hund" / "b.json").write_text("{}")

    with pytest.raises(DatasetError, match=r"no photos of dog; found instead: Hund \(1\)\. Name"):
        gather(PETS, tmp_path / "work", data=tmp_path / "given")


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere"):
        gather(PETS, tmp_path, data=tmp_path / "nowhere")


def test_folder_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)  # longer than a name may be, for root as well
    with pytest.raises(DatasetError, match="cannot be opened: File name too long"):
        gather(PETS, tmp_path, data=path)
    with pytest.raises(DatasetError, match="cannot be opened: File name too long"):
        next(read_folder(path, lambda path: True))


def test_recipe_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="needs a folder of photos, got none"):
        gather(PETS, tmp_path)


def test_class_without_photos_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "a.png", "red")
    (tmp_path / "given" / "dog").mkdir()

    with pytest.raises(DatasetError, match="there are no photos of dog"):
        gather(PETS, tmp_path / "work", data=tmp_path / "given")


def test_single_class_is_refused(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "a.png", "red")
    recipe = Recipe("own", "Own", "folder")

    with pytest.raises(
        DatasetError, match=r"at least two classes: a folder for each, .* got only 'cat'"
    ):
        gather(recipe, tmp_path / "work", data=tmp_path / "given")


def left_out(work: Path) -> dict[str, str]:
    lines = read_lines(work / "gathered.jsonl")
    return {line["file"]: line["left_out"] for line in lines if "left_out" in line}


def test_files_that_are_no_photos_or_too_large_are_left_out_with_a_reason(tmp_path: Path) -> None:
    given = tmp_path / "given"
    photo(given / "cat" / "a.png", "red")
    photo(given / "dog" / "b.png", "blue")
    with (given / "dog" / "film.mp4").open("wb") as film:
        film.truncate(26 * 2**20)
    photo(given / "cat" / "copy of a.png", "red")
    (given / "cat" / "a.mov").write_bytes(b"a film")
    (given / "cat" / "notes.json").write_text("{}")
    (given / "dog" / "inner.zip").write_bytes(b"PK")
    (given / "fox").mkdir()
    (given / ".git" / "refs").mkdir(parents=True)

    _, labels = photos_and_labels(gather(PETS, tmp_path / "work", data=given))

    assert labels == ["cat", "dog"]
    assert left_out(tmp_path / "work") == {
        ".git/refs": "hidden",
        "cat/a.mov": "not a photo (.mov)",
        "cat/copy of a.png": "a copy of cat/a.png",
        "cat/notes.json": "not a photo (.json)",
        "dog/film.mp4": "larger than 25 MB",
        "dog/inner.zip": "an archive within: unpack it first",
        "fox": "a folder without files",
    }


def lists(folder: Path, server: PhotoServer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(("cat", "dog")):
        paths = [f"/{name}/{each}" for each in range(4)]
        for each, path in enumerate(paths):
            server.routes[path] = body(coloured(10 * number + each))
        (folder / f"urls_{name}.txt").write_text("\n".join(server.url(path) for path in paths))


def test_photos_of_url_lists_are_downloaded(server: PhotoServer, tmp_path: Path) -> None:
    lists(tmp_path, server)
    server.routes["/dog/2"] = status(404)

    photos = gather(replace(PETS, source="urls"), tmp_path, timeouts=QUICK, progress=False)

    assert photos_and_labels(photos)[1] == ["cat"] * 4 + ["dog"] * 3
    summed_up = str(summarize(clean(photos)))
    assert "1 left out: no photo at the address (HTTP 404 Not Found): http" in summed_up


def test_url_lists_of_another_folder_are_read_up_to_a_limit(
    server: PhotoServer, tmp_path: Path
) -> None:
    lists(tmp_path / "lists", server)
    recipe = replace(PETS, source="urls", urls=UrlsSource(str(tmp_path / "lists"), 2))

    photos = gather(recipe, tmp_path / "work", timeouts=QUICK, progress=False)

    assert photos_and_labels(photos)[1] == ["cat", "cat", "dog", "dog"]


def test_missing_list_is_reported_before_any_download(server: PhotoServer, tmp_path: Path) -> None:
    lists(tmp_path, server)
    (tmp_path / "urls_dog.txt").unlink()

    with pytest.raises(DownloadError, match=r"urls_dog\.txt cannot be read"):
        gather(replace(PETS, source="urls"), tmp_path, progress=False)

    assert not server.requests


def test_without_workers_the_first_problem_is_raised(server: PhotoServer, tmp_path: Path) -> None:
    lists(tmp_path, server)
    server.routes["/cat/1"] = status(404)

    with pytest.raises(DownloadError, match="/cat/1: HTTP 404"):
        gather(
            replace(PETS, source="urls"), tmp_path, max_workers=0, timeouts=QUICK, progress=False
        )


def test_class_of_which_no_photo_was_downloaded_is_refused(
    server: PhotoServer, tmp_path: Path
) -> None:
    lists(tmp_path, server)
    server.routes.update({f"/dog/{each}": status(404) for each in range(4)})

    with pytest.raises(
        DatasetError, match=r"photos of dog; left out: dog: HTTP 404 Not Found \(4\)$"
    ):
        gather(replace(PETS, source="urls"), tmp_path, timeouts=QUICK, progress=False)


@pytest.fixture(name="fake")
def _fake(server: PhotoServer, monkeypatch: pytest.MonkeyPatch) -> FakeDdgs:
    """A search that finds what `lists` serves, on a server where the other sources are as well."""
    pages = {
        (name, 1): [server.url(f"/{name}/{each}") for each in range(4)] for name in ("cat", "dog")
    }
    fake = FakeDdgs(pages)
    monkeypatch.setattr(ddgs, "DDGS", fake)
    monkeypatch.setattr(search, "_WAITS", (0,))
    monkeypatch.setattr(search, "_PAUSE", 0)
    return fake


FOUR = replace(PETS, source="search", search=SearchSource(per_class=4))


def test_second_run_does_not_search_again(
    server: PhotoServer, fake: FakeDdgs, tmp_path: Path
) -> None:
    lists(tmp_path / "unused", server)
    server.routes["/dog/3"] = in_turn(status(503), body(coloured(99)))

    def run() -> list[str]:
        photos = gather(FOUR, tmp_path / "w", timeouts=QUICK, progress=False)
        return photos_and_labels(photos)[1]

    assert run() == ["cat"] * 4 + ["dog"] * 3
    asked = len(fake.asked)
    server.requests.clear()
    assert run() == ["cat"] * 4 + ["dog"] * 4
    assert len(fake.asked) == asked
    assert [path for path, _ in server.requests] == ["/dog/3"]


def test_photo_that_people_deleted_does_not_come_back(
    server: PhotoServer, fake: FakeDdgs, tmp_path: Path
) -> None:
    lists(tmp_path / "unused", server)
    photos = gather(FOUR, tmp_path / "w", timeouts=QUICK, progress=False)
    photos_and_labels(photos)[0][0].unlink()

    gather(FOUR, tmp_path / "w", timeouts=QUICK, progress=False)

    assert photos_and_labels(photos)[1] == ["cat"] * 3 + ["dog"] * 4


def test_new_words_and_more_photos_are_searched_for(
    server: PhotoServer, fake: FakeDdgs, tmp_path: Path
) -> None:
    lists(tmp_path / "unused", server)
    two = replace(FOUR, search=SearchSource(per_class=2))
    gather(two, tmp_path, timeouts=QUICK, progress=False)
    fake.pages["kitten", 1] = [server.url(f"/kitten/{each}") for each in range(9)]
    server.routes |= {f"/kitten/{each}": body(coloured(50 + each)) for each in range(9)}

    cat = ClassRecipe("cat", search=("cat", "kitten"))
    recipe = replace(FOUR, classes=(cat, ClassRecipe("dog")))
    photos = gather(recipe, tmp_path, timeouts=QUICK, progress=False)

    assert photos_and_labels(photos)[1] == ["cat"] * 4 + ["dog"] * 4
    assert sum(server.asked(f"/kitten/{each}") for each in range(9)) == 2


def test_refused_search_is_reported(server: PhotoServer, fake: FakeDdgs, tmp_path: Path) -> None:
    fake.refusals = [RatelimitException("202 Ratelimit") for _ in range(9)]
    server.routes |= {path: status(403) for path in (OPENVERSE, WIKIMEDIA)}

    with pytest.raises(
        DownloadError,
        match=r"refused for 'cat': ddgs refuses \(202 Ratelimit\), openverse refuses \(HTTP 403",
    ):
        gather(FOUR, tmp_path, progress=False)

    assert not list(tmp_path.glob("urls_*"))


def test_without_workers_the_first_refusal_is_raised(
    server: PhotoServer, fake: FakeDdgs, tmp_path: Path
) -> None:
    fake.refusals = [RatelimitException("202 Ratelimit")]

    with pytest.raises(DownloadError, match="ddgs refuses 'cat': 202 Ratelimit"):
        gather(FOUR, tmp_path, max_workers=0, progress=False)

    assert not server.requests


def test_photos_of_free_sources_keep_their_licence_and_author(
    server: PhotoServer, fake: FakeDdgs, tmp_path: Path
) -> None:
    lists(tmp_path / "unused", server)
    one, two = serve(server)
    one.found["cat"] = [openverse_photo(server.url("/cat/0"))]
    two.found["cat"] = [wikimedia_photo(server.url("/cat/1"), thumburl=server.url("/cat/1"))]
    two.found["dog"] = [wikimedia_photo(server.url("/dog/1"), thumburl=server.url("/dog/1"))]
    sources = SearchSource(4, ("openverse", "wikimedia"), contact="me@x.example")

    photos = gather(replace(FOUR, search=sources), tmp_path, timeouts=QUICK, progress=False)

    table = (photos / "credits.csv").read_text("utf-8").splitlines()
    assert table[0] == "file,source,page,licence,author"
    assert sorted(row.partition(",")[2] for row in table[1:]) == [
        f"openverse,{server.url('/cat/0')}/about,CC BY-SA 2.0,Anna B",
        f"wikimedia,{server.url('/cat/1')}/about,CC BY 4.0,Zoë & Max",
        f"wikimedia,{server.url('/dog/1')}/about,CC BY 4.0,Zoë & Max",
    ]
    assert all((photos / row.partition(",")[0]).is_file() for row in table[1:])
    assert not fake.asked
    assert all("me@x.example" in headers["User-Agent"] for _, headers in server.requests)


def archive_of_pets() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, number in {
            "set/train/cat/1.JPEG": 1,
            "set/val/cat/2.JPEG": 2,
            "set/train/n02084071/1.JPEG": 3,
            "set/train/horse/1.JPEG": 4,
            "set/train/cat/._1.JPEG": 5,
            "__MACOSX/set/cat/1.JPEG": 1,
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(coloured(number))
            tar.addfile(info, io.BytesIO(coloured(number)))
    return buffer.getvalue()


def test_archive_is_downloaded_once(server: PhotoServer, tmp_path: Path) -> None:
    data = archive_of_pets()
    server.routes["/pets.tgz?raw=1"] = ranged(data, break_after=len(data) // 2)
    checksum = hashlib.sha256(data).hexdigest()
    recipe = replace(
        PETS, source="archive", archive=ArchiveSource(server.url("/pets.tgz?raw=1"), checksum)
    )

    photos = gather(recipe, tmp_path, timeouts=QUICK, progress=False)

    paths, labels = photos_and_labels(photos)
    assert labels == ["cat", "cat", "dog"]
    assert {path.read_bytes() for path in paths} == {coloured(1), coloured(2), coloured(3)}
    asked = len(server.requests)
    gather(recipe, tmp_path, timeouts=QUICK, progress=False)
    assert len(server.requests) == asked
    assert photos_and_labels(photos)[0] == paths


def test_local_archive_is_read(tmp_path: Path) -> None:
    file = tmp_path / "pets.zip"
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a/1.png", coloured(1))
        packed.writestr("b/1.png", coloured(2))
        packed.writestr("readme.txt", "no photo")

    photos = gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=file)

    assert photos_and_labels(photos)[1] == ["a", "b"]


def test_recipe_without_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="recipe 'pets' names no archive"):
        gather(replace(PETS, source="archive"), tmp_path)


def test_missing_network_is_reported(tmp_path: Path) -> None:
    with photo_server() as gone:
        url = gone.url("/pets.tgz")
    recipe = replace(PETS, source="archive", archive=ArchiveSource(url))

    with pytest.raises(DownloadError, match="cannot be downloaded"):
        gather(recipe, tmp_path, timeouts=QUICK, progress=False)


def test_two_sources_are_not_mixed(tmp_path: Path) -> None:
    for given in ("one", "two"):
        photo(tmp_path / given / "cat" / "a.png", "red")
        photo(tmp_path / given / "dog" / "b.png", "blue")
    photos = gather(PETS, tmp_path / "work", data=tmp_path / "one")
    before = tree(photos)

    with pytest.raises(DatasetError, match=r"expected .*two.* got photos of .*one.*another name"):
        gather(PETS, tmp_path / "work", data=tmp_path / "two")

    assert tree(photos) == before
    assert gather(PETS, tmp_path / "work", data=tmp_path / "one") == photos


def test_misspelt_folder_is_not_recorded_as_the_source(tmp_path: Path) -> None:
    photo(tmp_path / "given" / "cat" / "a.png", "red")
    photo(tmp_path / "given" / "dog" / "b.png", "blue")
    with pytest.raises(DatasetError, match="there is no folder"):
        gather(PETS, tmp_path / "work", data=tmp_path / "gievn")

    photos = gather(PETS, tmp_path / "work", data=tmp_path / "given")

    assert photos_and_labels(photos)[1] == ["cat", "dog"]


def test_shapes_that_were_moved_away_are_not_drawn_again(tmp_path: Path) -> None:
    photos = gather(load_recipe("shapes"), tmp_path)
    first = photos_and_labels(photos)[0][0]
    source = first.relative_to(tmp_path).as_posix()
    apply_moves(tmp_path, [Move(source, f"quarantine/{first.name}", "")], "cleaner")

    gather(load_recipe("shapes"), tmp_path)

    assert len(photos_and_labels(photos)[0]) == 119


def test_photos_of_a_class_that_left_the_recipe_are_refused(tmp_path: Path) -> None:
    shapes = load_recipe("shapes")
    triangles = gather(shapes, tmp_path) / "triangle"
    two = replace(shapes, classes=shapes.classes[:2])
    with pytest.raises(DatasetError, match=r"got photos of triangle too: rename their folders"):
        gather(two, tmp_path)
    shutil.rmtree(triangles)
    assert set(photos_and_labels(gather(two, tmp_path))[1]) == {"circle", "square"}


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(coloured(number))


@pytest.fixture(name="further")
def _further(tmp_path: Path) -> Path:
    """What visitors gave: two photos of circles, one of no class and one of an unknown class."""
    for number, name in enumerate(("circle/a", "circle/b", "_something_else/c", "hexagon/d")):
        picture(tmp_path / "feedback" / f"{name}.png", number)
    return tmp_path / "feedback"


def given_by_visitors(root: Path) -> list[str]:
    return sorted(original_name(path) for path in (root / "photos" / "circle").glob("*-*.png"))


def test_further_photos_join_the_class_of_their_folder(
    further: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "shapes"
    drawn = Counter(photos_and_labels(gather(load_recipe("shapes"), root))[1])
    for _ in range(2):
        photos = gather(load_recipe("shapes"), root, further=further)
        expected = drawn + Counter(circle=2)
        assert Counter(photos_and_labels(photos)[1]) == expected
        assert given_by_visitors(root) == ["a.png", "b.png"]
    assert "of no class were left out, in: _something_else (1), hexagon (1)" in caplog.text
    left_out = {line["file"]: line.get("left_out") for line in read_lines(root / "further.jsonl")}
    assert left_out == {
        "circle/a.png": None,
        "circle/b.png": None,
        "_something_else/c.png": "it shows none of the classes",
        "hexagon/d.png": "no single class is found in the folders",
    }


def test_further_photo_that_is_deleted_there_goes_with_the_next_run(
    further: Path, tmp_path: Path
) -> None:
    root = tmp_path / "shapes"
    for choices in ({"further": further}, {"further": further}, {}):
        photos = gather(load_recipe("shapes"), root, **choices)
        (further / "circle" / "a.png").unlink(missing_ok=True)
    assert given_by_visitors(root) == []
    drawn = gather(load_recipe("shapes"), tmp_path / "drawn")
    assert len(photos_and_labels(photos)[0]) == len(photos_and_labels(drawn)[0])


def test_further_photo_that_was_moved_or_rewritten_goes_when_it_is_deleted_there(
    tmp_path: Path,
) -> None:
    root, further = tmp_path / "shapes", tmp_path / "feedback" / "circle"
    further.mkdir(parents=True)
    for number, name in enumerate(("rewritten.webp", "relabelled.webp", "deleted.png")):
        Image.new("RGB", (20, 20), (90 * number, 200, 7)).save(further / name)

    def left() -> list[str]:
        return sorted(
            f"{path.parent.parent.name}/{path.parent.name}/{original_name(path)}"
            for path in root.glob("*/*/*-*")
        )

    photos = gather(load_recipe("shapes"), root, further=further.parent)
    clean(photos, with_fastai=False, progress=False)
    moves = []
    for path in photos.glob("*/*-*"):
        for name, folder in (("relabelled", "photos/square"), ("deleted", "quarantine/circle")):
            if name in path.name:
                source = path.relative_to(root).as_posix()
                moves.append(Move(source, f"{folder}/{path.name}", name))
    apply_moves(root, moves, "cleaner")
    before = left()
    assert before == [
        "originals/circle/relabelled.webp",
        "originals/circle/rewritten.webp",
        "photos/circle/rewritten.jpg",
        "photos/square/relabelled.jpg",
        "quarantine/circle/deleted.png",
    ]
    gather(load_recipe("shapes"), root, further=further.parent)
    assert left() == before
    for path in further.iterdir():
        path.unlink()
    gather(load_recipe("shapes"), root, further=further.parent)
    assert left() == []


def test_further_photos_join_a_folder_and_keep_no_class_alive(tmp_path: Path) -> None:
    own, further, root = tmp_path / "own", tmp_path / "feedback", tmp_path / "data"
    for number, name in enumerate(("cat/1", "dog/2", "cow/3", "test/dog/4")):
        picture(own / f"{name}.png", number)
    for number, name in enumerate(("cat/5", "cow/6", "test/cat/7"), start=5):
        picture(further / f"{name}.png", number)
    shutil.copy(own / "dog" / "2.png", further / "cat" / "copy.png")
    shutil.copy(own / "cat" / "1.png", further / "cat" / "1.png")
    photos = gather(folder_recipe(own), root, data=own, further=further)
    labels = Counter(photos_and_labels(photos)[1])
    assert labels == {"cat": 3, "dog": 1, "cow": 2}
    assert [original_name(path) for path in photos_and_labels(root / "test")[0]] == ["4.png"]
    shutil.rmtree(own / "cow")
    shutil.move(further / "cat" / "5.png", own / "cat" / "5.png")
    photos = gather(folder_recipe(own), root, data=own, further=further)
    assert Counter(photos_and_labels(photos)[1]) == {"cat": 3, "dog": 1}
    assert gather(folder_recipe(own), root, data=own) == photos
    assert Counter(photos_and_labels(photos)[1]) == {"cat": 2, "dog": 1}


def test_further_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*feedback"):
        gather(load_recipe("shapes"), tmp_path, further=tmp_path / "feedback")
