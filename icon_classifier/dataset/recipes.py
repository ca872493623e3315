"""Recipes: what to train and where its photos are found, read from a small TOML file.

A recipe is named like its file. ``load_recipe("bears")`` reads ``recipes/bears.toml``; a path to a
file of your own works as well. pydantic checks every entry (its name, type and range), so that a
typing mistake is reported before any photo is downloaded.
"""

import re
import sysconfig
import tomllib
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter
from pydantic import ValidationError as PydanticError
from pydantic.dataclasses import dataclass

from icon_classifier.errors import RecipeError
from icon_classifier.files import decode_text

_CHECKOUT = Path(__file__).resolve().parents[2] / "recipes"
_INSTALLED = Path(sysconfig.get_path("data"), "share", "icon-classifier", "recipes")
# The working folder comes before it: a user's own recipes win.
_SHIPPED = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED

SourceKind = Literal["search", "urls", "archive", "folder", "shapes"]

_CONFIG = ConfigDict(extra="forbid")

Text = Annotated[str, StringConstraints(strict=True, pattern=r"\S")]
"""A string that is not empty."""

# A single entry needs no brackets.
_LIST = BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)

Texts = Annotated[tuple[Text, ...], _LIST]

SearchSources = Annotated[
    tuple[Literal["ddgs", "openverse", "wikimedia"], ...], _LIST, Field(min_length=1)
]


def _number(default: float | None, low: float, high: float) -> Any:
    """Declare a number in ``[low, high]``; strict, so that "3" and true are no numbers."""
    return Field(default=default, strict=True, ge=low, le=high)


@dataclass(frozen=True, config=_CONFIG)
class ClassRecipe:
    """One class: its label and where its photos are found.

    Attributes
    ----------
    name : str
        The label, as the page shows it and as the folder is named.
    search : tuple of str
        Search terms; the label itself if there are none.
    urls : str or None
        File with one address per line; ``urls_<name>.txt`` if not given.
    folders : tuple of str
        Other names that this class's folder has in an archive or a folder (WordNet ids, say).
    """

    name: Text
    search: Texts = ()
    urls: Text | None = None
    folders: Texts = ()

    @property
    def terms(self) -> tuple[str, ...]:
        """What to search for: the search terms, or else the label."""
        return self.search or (self.name,)

    @property
    def url_file(self) -> str:
        """Name of the file that lists addresses of this class's photos."""
        return self.urls or f"urls_{self.name}.txt"


@dataclass(frozen=True, config=_CONFIG)
class SearchSource:
    """Photos found by an image search.

    Attributes
    ----------
    per_class : int
        How many different addresses to look for, in each class.
    sources : tuple of {"ddgs", "openverse", "wikimedia"}
        Which ones to search: the next one where the one before has no more photos or refuses. All
        but ddgs know licences and authors.
    region : str
        Country and language of the search, as ddgs writes it.
    contact : str or None
        Your e-mail or web address, sent to each site that is searched or downloaded from.
        Wikimedia refuses programs without one when it is busy.
    """

    per_class: int = _number(150, 1, 1000)
    sources: SearchSources = ("ddgs", "openverse", "wikimedia")
    region: Text = "us-en"
    contact: Text | None = None


@dataclass(frozen=True, config=_CONFIG)
class UrlsSource:
    """Photos at addresses listed in one file per class.

    Attributes
    ----------
    path : str or None
        Folder of the lists; the data folder if not given.
    max_pics : int
        How many addresses of each list are used.
    """

    path: Text | None = None
    max_pics: int = _number(1000, 1, 100_000)


@dataclass(frozen=True, config=_CONFIG)
class ArchiveSource:
    """Photos in one archive (tar, tar.gz or zip) at an address.

    Attributes
    ----------
    url : str
        Address of the archive.
    sha256 : str or None
        Checksum of the archive, in hexadecimal.
    max_bytes : int
        Limit of the archive's size, and of a tenth of what it may unpack to (bytes).
    """

    url: Text
    sha256: Text | None = None
    max_bytes: int = _number(2 * 2**30, 1, 2**40)


@dataclass(frozen=True, config=_CONFIG)
class FolderSource:
    """Photos in a folder; see :func:`~icon_classifier.dataset.layout.find_layout` for its classes.

    Attributes
    ----------
    path : str or None
        The folder; if missing, whoever runs the recipe names it.
    table : str or None
        Name of a CSV file in it that holds the labels.
    pattern : str or None
        A regular expression whose first group is the label in a photo's path.
    """

    path: Text | None = None
    table: Text | None = None
    pattern: Text | None = None


@dataclass(frozen=True, config=_CONFIG)
class Training:
    """How to train.

    Attributes
    ----------
    architecture : str
        Name of a torchvision or timm network.
    offline_architecture : str
        The network to use when the pretrained weights of ``architecture`` cannot be fetched.
    image_size : int or None
        Side of the square that the network sees (pixels); None lets cross-validation choose.
    resize : {"crop", "squish", "pad"} or None
        How a photo is brought to that square; None lets cross-validation choose.
    batch_size : int
        Photos per step. Halve it when the GPU runs out of memory, and the learning rate with it.
    frozen_epochs, epochs : int
        Epochs with only the head trained, then with everything trained.
    learning_rate : float or None
        Largest learning rate of the head; None uses the suggestion of ``lr_find``.
    weight_decay : float
        Weight decay of the optimizer.
    fp16 : bool
        Train in half precision on a GPU; ignored without one.
    min_scale : float
        Smallest share of a photo's area that ``RandomResizedCrop`` may keep.
    valid_share : float
        Share of the photos kept for validation.
    seed : int
        Seed of the split and of the training.
    """

    architecture: Text = "tf_efficientnet_lite0"
    offline_architecture: Text = "tf_efficientnet_lite0"
    image_size: int | None = _number(None, 16, 1024)
    resize: Literal["crop", "squish", "pad"] | None = None
    batch_size: int = _number(32, 2, 1024)
    frozen_epochs: int = _number(1, 0, 1000)
    epochs: int = _number(3, 0, 1000)
    learning_rate: float | None = _number(None, 1e-8, 10)
    weight_decay: float = _number(0.01, 0, 10)
    fp16: bool = Field(default=False, strict=True)
    min_scale: float = _number(0.5, 0.01, 1)
    valid_share: float = _number(0.2, 0.01, 0.9)
    seed: int = _number(42, 0, 2**32 - 1)


@dataclass(frozen=True, config=_CONFIG)
class Recipe:
    """What to train: the classes, where their photos are found and how to train.

    Attributes
    ----------
    name : str
        Name of the file, without ``.toml``.
    title : str
        One line for people.
    source : {"search", "urls", "archive", "folder", "shapes"}
        Where photos come from unless whoever runs the recipe says otherwise.
    classes : tuple of ClassRecipe
        The classes; none means that an archive's or a folder's own folders name them.
    use : str
        What the model is for, for its model card.
    archive : ArchiveSource or None
        Only a recipe that names one has an archive.
    """

    name: Text
    title: Text
    source: SourceKind
    classes: tuple[ClassRecipe, ...] = ()
    use: Annotated[str, Field(strict=True)] = ""
    search: SearchSource = SearchSource()
    urls: UrlsSource = UrlsSource()
    archive: ArchiveSource | None = None
    folder: FolderSource = FolderSource()
    training: Training = Training()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the recipe's order."""
        return tuple(each.name for each in self.classes)


_TABLES: dict[str, type] = {
    "classes": ClassRecipe,
    "search": SearchSource,
    "urls": UrlsSource,
    "archive": ArchiveSource,
    "folder": FolderSource,
    "training": Training,
}

_UNKNOWN = "unexpected_keyword_argument"
"""pydantic's name for an entry that a table does not have."""

_EXPECTED = {
    "string_type": "a text",
    "string_pattern_mismatch": "a text that is not empty",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_short": "a list that is not empty",
    "dataclass_type": "a table",
    "literal_error": "{expected}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
}
"""What pydantic's other errors mean, as format strings for its context."""


def _search_path() -> tuple[Path, ...]:
    return Path("recipes"), _SHIPPED


def recipe_names() -> list[str]:
    """Names of the recipes that ``load_recipe`` finds by name, sorted."""
    return sorted({file.stem for folder in _search_path() for file in folder.glob("*.toml")})


def load_recipe(recipe: str | Path) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    recipe : str or Path
        A name (``bears``) or the path of a ``.toml`` file.

    Returns
    -------
    Recipe

    Raises
    ------
    RecipeError
        If there is no such recipe, or one of its entries is missing, unknown or invalid; the
        message names the file and the entry, what was expected and what was found.
    """
    file = _find(recipe)
    try:
        table = tomllib.loads(decode_text(file.read_bytes()))
    except FileNotFoundError as error:
        raise RecipeError(f"there is no recipe file {file}") from error
    except OSError as error:
        raise RecipeError(f"{file} cannot be read: {error.strerror or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file} is not valid TOML: {error}") from error
    if "name" in table:
        raise RecipeError(f"{file}: name: a recipe is named like its file; leave this entry out")
    try:
        read = TypeAdapter(Recipe).validate_python({**table, "name": file.stem})
    except PydanticError as error:
        raise RecipeError(f"{file}: {_describe(error)}") from error
    _check(read, file)
    return read


def folder_recipe(folder: str | Path) -> Recipe:
    """Return a recipe for the user's photos, which takes the classes from them.

    Parameters
    ----------
    folder : str or Path
        A folder of photos, an archive of one, or a table of names and labels beside its photos.

    Raises
    ------
    RecipeError
        If there is no such folder or file, it cannot be opened, or its path is not UTF-8.
    """
    path = Path(folder).expanduser()
    try:
        path.stat()
        path = path.resolve()
        str(path).encode()
    except FileNotFoundError as error:
        raise RecipeError(f"there is no folder {folder}: check its name") from error
    except OSError as error:
        raise RecipeError(f"{folder} cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise RecipeError(f"expected a path in UTF-8, got {str(path)!r}: rename it") from error
    place = path.parent if path.suffix.lower() in {".csv", ".tsv"} else path
    name = (place.name if place.is_dir() else place.name.partition(".")[0]) or "photos"
    use = f"Answering for photos like those of the folder {name}."
    source = FolderSource(str(path))
    return Recipe(name, f"The photos of {name}", "folder", (), use, folder=source)


def suggestion(name: str, known: Sequence[str]) -> str:
    """End of a message about an unknown name: the one probably meant, or all there are."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(known)}" if known else ""


def _find(recipe: str | Path) -> Path:
    if isinstance(recipe, Path) or recipe.endswith(".toml"):
        return Path(recipe).expanduser()
    for folder in _search_path():
        file = folder / f"{recipe}.toml"
        # A name with a slash would leave the folder of recipes.
        if Path(recipe).name == recipe and file.is_file():
            return file
    if Path(recipe).expanduser().exists():
        raise RecipeError(
            f"{recipe} is no recipe; for photos of your own: make train DATA={recipe}"
        )
    raise RecipeError(f"there is no recipe {recipe!r}{suggestion(recipe, recipe_names())}")


def _describe(error: PydanticError) -> str:
    """Name the first entry that is wrong, what was expected and what was found."""
    # An unknown entry first: it is often the misspelt form of another that is then missing.
    problem: Any = min(error.errors(), key=lambda each: each["type"] != _UNKNOWN)
    path, kind = problem["loc"], problem["type"]
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")
    if kind == _UNKNOWN:
        table = Recipe if len(path) == 1 else _TABLES[path[0]]
        known = sorted(each.name for each in fields(table))
        return f"{where}: unknown entry{suggestion(path[-1], known)}"
    if kind == "missing":
        return f"{where}: missing"
    expected = _EXPECTED.get(kind, "another value").format(**problem.get("ctx", {}))
    return f"{where}: expected {expected}, got {problem['input']!r}"


def _check(recipe: Recipe, file: Path) -> None:
    """Refuse what is wrong only in combination with other entries."""
    names: dict[str, str] = {}
    for each in recipe.classes:
        # Labels become folders, also on systems that do not distinguish capital letters.
        if Path(each.name).name != each.name or each.name.startswith(".") or "\\" in each.name:
            raise RecipeError(
                f"{file}: classes.name: expected a label that can name a folder, got {each.name!r}"
            )
        for name in {each.name.casefold(), *(other.casefold() for other in each.folders)}:
            if name in names:
                raise RecipeError(
                    f"{file}: classes: {name!r} is a name of both {names[name]!r} and {each.name!r}"
                )
            names[name] = each.name
    if len(recipe.classes) == 1:
        raise RecipeError(
            f"{file}: classes: expected at least two, got only {recipe.classes[0].name!r}"
        )
    if not recipe.classes and recipe.source in {"search", "urls", "shapes"}:
        raise RecipeError(f"{file}: classes: missing; source {recipe.source!r} needs them")
    if recipe.source == "archive" and recipe.archive is None:
        raise RecipeError(f"{file}: archive: missing; source 'archive' needs its url")
    _check_pattern(recipe.folder.pattern or "()", f"{file}: folder.pattern")
    if recipe.training.frozen_epochs + recipe.training.epochs == 0:
        raise RecipeError(f"{file}: training.epochs: expected at least one epoch, got 0")


def _check_pattern(pattern: str, where: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise RecipeError(f"{where}: no regular expression: {error}") from error
    if not groups:
        raise RecipeError(f"{where}: expected a group in (brackets) for the label, got {pattern!r}")
