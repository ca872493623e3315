from pathlib import Path

import pytest

from icon_classifier.dataset.recipes import Recipe, Training, load_recipe, recipe_names
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


def test_entries_and_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL + "[training]\nmin_scale = 1\nseed = 7\n"))

    assert recipe.name == "pets"
    assert recipe.labels == ("cat", "dog")
    assert recipe.classes[0].terms == ("cat",)
    assert recipe.classes[0].url_file == "urls_cat.txt"
    assert recipe.classes[1].terms == ("dog on grass",)
    assert recipe.classes[1].folders == ("n02084071",)
    assert recipe.training == Training(min_scale=1.0, seed=7)
    assert isinstance(recipe.training.min_scale, float)


def test_recipes_of_the_working_folder_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bears.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)

    assert load_recipe("bears").labels == ("cat", "dog")
    assert "shapes" in recipe_names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "is not written in TOML"),
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
            "training.epochs: expected a whole number, got Tr",
        ),
        (SMALL + "\n[training]\nepochs = 0\nfrozen_epochs = 0\n", "expected at least one epoch"),
        (
            SMALL + "\n[training]\nvalid_share = 1.5\n",
            "valid_share: expected a number from 0.01 to",
        ),
        (SMALL + "\n[training]\nmin_scale = nan\n", "min_scale: expected a number from"),
        (SMALL + "\n[archive]\nsha256 = 'abc'\n", "archive.url: missing; a text is expected"),
        (
            SMALL.replace('"search"', '"serch"'),
            "source: expected one of .* got 'serch'; did you me",
        ),
        (
            SMALL.replace('"search"', '"archive"'),
            "archive: missing; source 'archive' needs its url",
        ),
        (SMALL.replace('title = "Cats and dogs"', ""), "title: missing; a text is expected"),
        (SMALL.replace("Cats and dogs", " "), "title: expected a text that is not empty"),
        (
            SMALL.replace('"dog on grass"', "3"),
            r"classes\[1\].search: expected a list of texts, got",
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
            "classes: expected a list of tables, got 3",
        ),
        ("title = 'x'\nsource = 'folder'\ntraining = 3", "training: expected a table, got 3"),
    ],
)
def test_slip_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)

    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(file)

    assert str(file) in str(caught.value)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no recipe 'beers'; did you mean 'bears'"):
        load_recipe("beers")


def test_name_cannot_leave_the_folder_of_recipes() -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe("../recipes/bears")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe file .*none\.toml"):
        load_recipe(tmp_path / "none.toml")


def test_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(RecipeError, match="is not written in TOML"):
        load_recipe(file)
