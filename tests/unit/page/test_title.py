from pathlib import Path

import pytest

from icon_classifier.page.title import FOLDER, page_title
from tests.support.servers import ROOT

BEARS = ["black", "grizzly", "teddy"]
RECIPE = """
title = "{title}"
[[classes]]
name = "teddy"
[[classes]]
name = "black"
[[classes]]
name = "grizzly"
"""


def write_recipe(folder: Path, text: str) -> None:
    (folder / FOLDER).mkdir()
    (folder / FOLDER / "bears.toml").write_text(text)


def test_title_of_the_shipped_model() -> None:
    assert page_title(BEARS, "bears", ROOT) == "Grizzly, black or teddy bear?"


def test_title_of_a_recipe_that_is_no_question(tmp_path: Path) -> None:
    write_recipe(tmp_path, RECIPE.format(title="Three bears"))
    assert page_title(BEARS, "bears", tmp_path) == "Three bears"


@pytest.mark.parametrize("recipe", [None, "", "dogs", "../recipes/bears", "bears\0"])
def test_title_without_a_recipe_is_made_of_the_labels(tmp_path: Path, recipe: str | None) -> None:
    write_recipe(tmp_path, RECIPE.format(title="Three bears"))
    assert page_title(BEARS, recipe, tmp_path) == "Black, grizzly or teddy?"


def test_title_of_a_recipe_for_other_classes_is_not_used(tmp_path: Path) -> None:
    write_recipe(tmp_path, RECIPE.format(title="Three bears"))
    assert page_title(["oak", "elm"], "bears", tmp_path) == "Oak or elm?"


def test_title_of_a_recipe_whose_folders_name_the_classes(tmp_path: Path) -> None:
    write_recipe(tmp_path, 'title = "Is it a bear?"\nsource = "folder"\n')
    assert page_title(BEARS, "bears", tmp_path) == "Is it a bear?"


@pytest.mark.parametrize(
    "text",
    [
        "title =",
        'title = ""',
        'title = "Bears"\nclasses = 5',
        "title = 5\nclasses = [5]",
        'title = " "\nclasses = []',
    ],
)
def test_malformed_recipe_is_not_used(tmp_path: Path, text: str) -> None:
    write_recipe(tmp_path, text)
    assert page_title(BEARS, "bears", tmp_path) == "Black, grizzly or teddy?"
