"""What the documents show works: recipes load, links lead somewhere."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from icon_classifier.dataset import recipes
from icon_classifier.dataset.recipes import load_recipe
from icon_classifier.formats import FORMATS
from scripts.environment import ROOT

PAGE = ROOT / "docs" / "your-own-classes.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def _recipe() -> str:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(text)


def test_recipe_of_the_documents_loads_and_has_every_entry(tmp_path: Path) -> None:
    text = _recipe()
    (tmp_path / "bugs.toml").write_text(text)

    recipe = load_recipe(tmp_path / "bugs.toml")

    shown = set(re.findall(r"^(\w+) =", text, re.MULTILINE))
    tables = set(re.findall(r"^\[+(\w+)\]+", text, re.MULTILINE))
    assert tables == set(recipes._TABLES)
    entries = {each.name for table in recipes._TABLES.values() for each in fields(table)}
    assert shown == entries | {each.name for each in fields(recipes.Recipe)} - tables
    assert recipe.labels == ("ladybird", "shield bug")


def test_values_of_the_documents_are_the_defaults() -> None:
    text = _recipe()
    defaults = {
        "search": recipes.SearchSource(),
        "urls": recipes.UrlsSource(),
        "archive": recipes.ArchiveSource("https://x.example"),
        "folder": recipes.FolderSource(),
        "training": recipes.Training(),
    }
    wrong = []
    for table, default in defaults.items():
        section = re.search(rf"^\[{table}\].*?(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
        assert section
        values = tomllib.loads(section[0])[table]
        for line in section[0].splitlines()[1:]:
            name = line.partition(" = ")[0]
            if name in values and not re.search("left out|needed", line):
                expected = getattr(default, name)
                wanted = list(expected) if isinstance(expected, tuple) else expected
                if values[name] != wanted:
                    wrong.append(f"{table}.{name}: {wanted}")
    assert not wrong


def test_short_recipe_of_the_documents_loads(tmp_path: Path) -> None:
    text = PAGE.read_text()
    block = text[text.index("    title = ") : text.index("    make train RECIPE")]
    (tmp_path / "bugs.toml").write_text(block.replace("\n    ", "\n").strip())

    recipe = load_recipe(tmp_path / "bugs.toml")

    assert recipe.classes[1].search == ("green shield bug", "shield bug on a leaf")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
            assert heading in slugs, target


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_documents_name_the_formats_that_are_read(page: str) -> None:
    *some, last = FORMATS.values()
    text = " ".join((ROOT / page).read_text().split())
    assert f"{', '.join(some)} and {last} are read" in text
