from pathlib import Path

import pytest

from icon_classifier.dataset.recipes import (
    Recipe,
    Training,
    folder_recipe,
    load_recipe,
    recipe_names,
)
from icon_classifier.errors import RecipeError

SMALL = """
title = "Cats and dogs"
source = "search"

[[classes]]
name = "cat"

[[classes]]
name = "dog"
search = "dog on grass"
folders = ["n02084071"]
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "pets.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", ["bears", "dogs", "icons", "shapes"])
def test_shipped_recipe_is_read(name: str) -> None:
    recipe = load_recipe(name)

    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert len(recipe.labels) >= 3
    assert recipe.use


def test_shipped_recipes_are_listed() -> None:
    assert {"bears", "dogs", "icons", "shapes"} <= set(recipe_names())


def test_entries_are_read_and_defaults_filled_in(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL + "[training]\nmin_scale = 1\nseed = 7\n"))

    assert recipe.name == "pets"
    assert recipe.labels == ("cat", "dog")
    assert recipe.classes[0].terms == ("cat",)
    assert recipe.classes[0].url_file == "urls_cat.txt"
    assert recipe.classes[1].terms == ("dog on grass",)
    assert recipe.classes[1].folders == ("n02084071",)
    assert recipe.training == Training(min_scale=1.0, seed=7)
    assert isinstance(recipe.training.min_scale, float)


def test_recipe_of_the_working_folder_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bears.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)

    assert load_recipe("bears").labels == ("cat", "dog")
    assert "shapes" in recipe_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "is not valid TOML"),
        (
            SMALL + "\n[training]\nepoch = 3\n",
            r"training.epoch: unknown entry; did you mean 'epochs'",
        ),
        (
            SMALL + "\n[training]\nepochs = '3'\n",
            "training.epochs: expected a whole number, got '3'",
        ),
        (
            SMALL + "\n[training]\nepochs = true\n",
            "training.epochs: expected a whole number, got True",
        ),
        (SMALL + "\n[training]\nepochs = 0\nfrozen_epochs = 0\n", "expected at least one epoch"),
        (
            SMALL + "\n[training]\nvalid_share = 1.5\n",
            "valid_share: expected a number of at most 0.9, got 1.5",
        ),
        (
            SMALL + "\n[training]\nmin_scale = nan\n",
            "min_scale: expected a number of at most 1.0, got nan",
        ),
        (SMALL + "\n[archive]\nsha256 = 'abc'\n", "archive.url: missing"),
        (
            SMALL.replace('"search"', '"serch"'),
            "source: expected 'search', 'urls', .* or 'shapes', got 'serch'",
        ),
        (
            SMALL.replace('"search"', '"archive"'),
            "archive: missing; source 'archive' needs its url",
        ),
        (SMALL.replace('title = "Cats and dogs"', ""), "title: missing"),
        (SMALL.replace("Cats and dogs", " "), "title: expected a text that is not empty"),
        (
            SMALL.replace('"dog on grass"', "3"),
            r"classes\[1\].search: expected a list, got 3",
        ),
        (
            SMALL.replace('["n02084071"]', "[3]"),
            r"classes\[1\].folders\[0\]: expected a text, got 3",
        ),
        (SMALL.replace('"n02084071"', '"CAT"'), "'cat' is a name of both 'cat' and 'dog'"),
        (SMALL.replace('"cat"', '"../cat"'), "expected a label that can name a folder"),
        (SMALL.replace('"cat"', '".cat"'), "expected a label that can name a folder"),
        ('name = "x"\n' + SMALL, "name: a recipe is named like its file"),
        ("title = 'x'\nsource = 'search'", "classes: missing; source 'search' needs them"),
        (
            "title = 'x'\nsource = 'folder'\n[[classes]]\nname='a'",
            "expected at least two, got only",
        ),
        (
            "title = 'x'\nsource = 'folder'\nclasses = 3",
            "classes: expected a list, got 3",
        ),
        ("title = 'x'\nsource = 'folder'\ntraining = 3", "training: expected a table, got 3"),
        (
            SMALL + "\n[search]\nsources = ['ddgs', 'bing']\n",
            r"search.sources\[1\]: expected 'ddgs', 'openverse' or 'wikimedia', got 'bing'",
        ),
        (SMALL + "\n[search]\nsources = []\n", "sources: expected a list that is not empty"),
        (SMALL + "\n[training]\nfp16 = 1\n", "training.fp16: expected true or false, got 1"),
        (SMALL + "\n[training]\nseed = -1\n", "seed: expected a number of at least 0, got -1"),
        (SMALL.replace("title", "titel"), "titel: unknown entry; did you mean 'title'"),
    ],
)
def test_wrong_entry_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)

    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(file)

    assert str(file) in str(caught.value)


def test_one_source_needs_no_brackets(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL + "\n[search]\nsources = 'openverse'\n"))
    assert recipe.search.sources == ("openverse",)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no recipe 'beers'; did you mean 'bears'"):
        load_recipe("beers")


def test_name_cannot_leave_the_folder_of_recipes() -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe("../recipes/bears")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe file .*none\.toml"):
        load_recipe(tmp_path / "none.toml")


def test_path_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)  # longer than a name may be, for root as well
    with pytest.raises(RecipeError, match="cannot be read: File name too long"):
        load_recipe(path.with_suffix(".toml"))
    with pytest.raises(RecipeError, match="cannot be opened: File name too long"):
        folder_recipe(path)


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RecipeError, match="is not valid TOML"):
        load_recipe(file)


def test_folder_needs_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "my pets").mkdir()
    recipe = folder_recipe(tmp_path / "my pets")
    assert (recipe.name, recipe.source, recipe.classes) == ("my pets", "folder", ())
    assert recipe.training == Training()


def test_network_needs_no_download_unless_a_recipe_names_another(tmp_path: Path) -> None:
    training = load_recipe(write(tmp_path, SMALL)).training

    assert training.architecture == training.offline_architecture == "tf_efficientnet_lite0"


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no folder"):
        folder_recipe(tmp_path / "nowhere")


@pytest.mark.parametrize("place", ["ph\udcff", "ph\udcff/photos", "a\0b"])
def test_path_that_is_not_utf8_is_reported(tmp_path: Path, place: str) -> None:
    if "\0" not in place:
        (tmp_path / place).mkdir(parents=True)

    with pytest.raises(RecipeError, match=r"expected a path in UTF-8, got .*: rename it"):
        folder_recipe(tmp_path / place)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(a", "pattern: no regular expression"), ("a_1", "pattern: expected a group in")],
)
def test_pattern_without_a_group_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    file = tmp_path / "pets.toml"
    file.write_text(f"title = 'Pets'\nsource = 'folder'\n[folder]\npattern = '{pattern}'\n")

    with pytest.raises(RecipeError, match=message):
        load_recipe(file)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_recipe_that_notepad_saved_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "pets.toml"
    file.write_text("title = 'Käfer'\nsource = 'folder'\n", encoding)

    assert load_recipe(file).title == "Käfer"


@pytest.mark.parametrize(
    ("place", "name"), [("v1.2/", "v1.2"), ("pets.tar.gz", "pets"), ("v1.2/train.csv", "v1.2")]
)
def test_recipe_of_own_photos_is_named_like_them(tmp_path: Path, place: str, name: str) -> None:
    (tmp_path / "v1.2").mkdir()
    if not place.endswith("/"):
        (tmp_path / place).write_text("")

    assert folder_recipe(tmp_path / place).name == name
