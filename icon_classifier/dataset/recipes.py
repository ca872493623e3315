"""Recipes: what to train, read from a small TOML file into frozen dataclasses.

A recipe is named like its file. ``load_recipe("bears")`` reads ``recipes/bears.toml``; a path to a
file of your own works as well. Every entry is checked: its name, its kind and its range, so that a
slip of the pen is told before any photo is downloaded.
"""

import sysconfig
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from icon_classifier.dataset.sources import (
    ArchiveSource,
    ClassRecipe,
    FolderSource,
    SearchSource,
    ShapesSource,
    SourceKind,
    UrlsSource,
)
from icon_classifier.dataset.tables import between, build, suggestion, wrong
from icon_classifier.errors import RecipeError

_CHECKOUT = Path(__file__).resolve().parents[2] / "recipes"
_INSTALLED = Path(sysconfig.get_path("data"), "share", "icon-classifier", "recipes")
# The working folder comes before it: a user's own recipes win.
_SHIPPED = _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes
    ----------
    architecture : str
        Name of a torchvision or timm network.
    offline_architecture : str
        The network to take when the pretrained weights of ``architecture`` cannot be fetched.
    image_size : int
        Side of the square that the network sees (pixels).
    resize : {"crop", "squish", "pad"}
        How a photo is brought to that square.
    batch_size : int
        Photos a step. Halve it when the GPU runs out of memory, and the learning rate with it.
    frozen_epochs, epochs : int
        Epochs with only the head trained, then with everything trained.
    learning_rate : float or None
        Largest learning rate of the head; None takes the suggestion of ``lr_find``.
    weight_decay : float
        Weight decay of the optimizer.
    fp16 : bool
        Train in half precision where a GPU is there; without one it is ignored.
    tune : bool
        Try gentle fine-tuning after the linear probe; cross-validation says whether it stays.
    min_scale : float
        Smallest share of a photo's area that ``RandomResizedCrop`` may keep.
    valid_share : float
        Share of the photos kept for validation.
    seed : int
        Seed of the split and of the training.
    """

    architecture: str = "resnet18"
    offline_architecture: str = "tf_efficientnet_lite0"
    image_size: int = field(default=224, metadata=between(16, 1024))
    resize: Literal["crop", "squish", "pad"] = "crop"
    batch_size: int = field(default=32, metadata=between(2, 1024))
    frozen_epochs: int = field(default=1, metadata=between(0, 1000))
    epochs: int = field(default=3, metadata=between(0, 1000))
    learning_rate: float | None = field(default=None, metadata=between(1e-8, 10))
    weight_decay: float = field(default=0.01, metadata=between(0, 10))
    fp16: bool = False
    tune: bool = False
    min_scale: float = field(default=0.5, metadata=between(0.01, 1))
    valid_share: float = field(default=0.2, metadata=between(0.01, 0.9))
    seed: int = field(default=42, metadata=between(0, 2**32 - 1))


@dataclass(frozen=True)
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
        What the model is for, in words for its model card.
    archive : ArchiveSource or None
        Only a recipe that names one has an archive.
    """

    name: str
    title: str
    source: SourceKind
    classes: tuple[ClassRecipe, ...] = ()
    use: str = ""
    search: SearchSource = SearchSource()
    urls: UrlsSource = UrlsSource()
    archive: ArchiveSource | None = None
    folder: FolderSource = FolderSource()
    shapes: ShapesSource = ShapesSource()
    training: Training = Training()

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the recipe's order."""
        return tuple(each.name for each in self.classes)


def _places() -> tuple[Path, ...]:
    return Path("recipes"), _SHIPPED


def recipe_names() -> list[str]:
    """Names of the recipes that ``load_recipe`` finds by name, sorted."""
    return sorted({file.stem for place in _places() for file in place.glob("*.toml")})


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
        If there is no such recipe, or one of its entries is missing, unknown or senseless; the
        message names the file and the entry, what was expected and what came.
    """
    file = _find(recipe)
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{file} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file} is not written in TOML: {error}") from error
    if "name" in table:
        raise RecipeError(f"{file}: name: a recipe is named like its file; leave this entry out")
    read = build(Recipe, {**table, "name": file.stem}, file, "")
    _check(read, file)
    return read


def _find(recipe: str | Path) -> Path:
    if isinstance(recipe, Path) or recipe.endswith(".toml"):
        file = Path(recipe)
        if not file.is_file():
            raise RecipeError(f"there is no recipe file {file}")
        return file
    for place in _places():
        file = place / f"{recipe}.toml"
        # A name with a slash would leave the folder of recipes.
        if Path(recipe).name == recipe and file.is_file():
            return file
    known = recipe_names()
    raise RecipeError(f"there is no recipe {recipe!r}{suggestion(recipe, known)}")


def _check(recipe: Recipe, file: Path) -> None:
    """Refuse what each entry alone cannot show to be senseless."""
    names: dict[str, str] = {}
    for each in recipe.classes:
        # Labels become folders, also on systems that don't tell capitals from small letters.
        if Path(each.name).name != each.name or each.name.startswith(".") or "\\" in each.name:
            raise wrong(file, "classes.name", "a label that can name a folder", each.name)
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
    if recipe.training.frozen_epochs + recipe.training.epochs == 0:
        raise RecipeError(f"{file}: training.epochs: expected at least one epoch, got none at all")
