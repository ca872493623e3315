"""Photos to train on: gather them, clean them, find duplicates, split them.

The public face; the parts are download, archive, search, shapes, clean and duplicates. None of them
imports torch or fastai.

A data folder, once gathered, holds ``photos/<label>/*``: what :func:`gather` returns and fastai's
``parent_label`` understands. Names are hashes of the contents, so that the same photo has the same
name on every machine and comes once. A folder that was given is copied from, never changed.
"""

import hashlib
import io
import threading
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from icon_classifier.duplicates import Split, group_duplicates, near_duplicates, split
from icon_classifier.errors import DatasetError
from icon_classifier.recipes import Recipe, SourceKind
from icon_classifier.shapes import write_shapes

__all__ = [
    "Split",
    "gather",
    "group_duplicates",
    "near_duplicates",
    "photos_and_labels",
    "split",
]

# What systems leave in folders; no photo of anybody's.
_LITTER = {"thumbs.db", "desktop.ini"}


def gather(
    recipe: Recipe,
    folder: str | Path,
    *,
    source: SourceKind | None = None,
    data: str | Path | None = None,
) -> Path:
    """Bring a recipe's photos together.

    Parameters
    ----------
    recipe : Recipe
        What to gather.
    folder : str or Path
        Where to work; a second run takes up where the first stopped.
    source : {"search", "urls", "archive", "folder", "shapes"}, optional
        Another source than the recipe's own.
    data : str or Path, optional
        A folder of photos, one sub-folder a class; it makes the source ``folder``.

    Returns
    -------
    Path
        The folder that holds one folder of photos for each label.

    Raises
    ------
    DatasetError
        If photos are missing, or there are fewer than two classes.
    DownloadError
        If they cannot be searched for or downloaded.
    """
    photos = Path(folder) / "photos"
    kind = "folder" if data is not None else source or recipe.source
    if kind == "shapes":
        shapes = recipe.shapes
        write_shapes(
            photos,
            recipe.labels,
            per_class=shapes.per_class,
            side=shapes.side,
            seed=recipe.training.seed,
        )
    elif kind == "folder":
        given = data if data is not None else recipe.folder.path
        if given is None:
            raise DatasetError(
                f"recipe {recipe.name!r} needs a folder of photos, but none is named"
            )
        _copy_folder(Path(given), recipe, photos)
    else:
        raise DatasetError(f"source {kind!r} cannot be gathered yet")
    _check_classes(photos, recipe)
    return photos


def photos_and_labels(photos: Path) -> tuple[list[Path], list[str]]:
    """List gathered photos and their labels.

    Parameters
    ----------
    photos : Path
        What :func:`gather` returned.

    Returns
    -------
    paths : list of Path
        Sorted by label and name: the same order on every machine.
    labels : list of str
        The label of each, which is the name of its folder.
    """
    paths = sorted(each for each in photos.glob("*/*") if _is_photo(each))
    return paths, [each.parent.name for each in paths]


def _is_photo(path: Path) -> bool:
    name = path.name.casefold()
    # What ends in .tmp was left by a run that was cut short.
    litter = name.startswith(".") or name.endswith(".tmp") or name in _LITTER
    return path.is_file() and not litter


def _copy_folder(given: Path, recipe: Recipe, photos: Path) -> None:
    """Copy photos under their label; classes the recipe does not name are left alone."""
    if not given.is_dir():
        raise DatasetError(f"there is no folder {given}")
    label_of = {
        name.casefold(): each.name for each in recipe.classes for name in (each.name, *each.folders)
    }
    for path in sorted(given.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(given).parts):
            continue
        label = label_of.get(path.parent.name.casefold())
        if not recipe.classes and path.parent != given:
            label = path.parent.name
        if label is not None and _is_photo(path):
            _keep(path.read_bytes(), photos / label, path.suffix)


def _keep(data: bytes, folder: Path, suffix: str = "") -> Path:
    """Write a photo under the hash of its contents; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (hashlib.sha256(data).hexdigest()[:20] + _suffix(data, suffix))
    if not path.exists():
        beside = path.with_name(f"{path.name}.{threading.get_ident()}.tmp")
        beside.write_bytes(data)
        beside.replace(path)
    return path


def _suffix(data: bytes, otherwise: str) -> str:
    """Suffix that fits the contents, whatever the file was called."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = (image.format or "").lower()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return otherwise.lower()
    return {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")


def _check_classes(photos: Path, recipe: Recipe) -> None:
    found = sorted({path.parent.name for path in photos.glob("*/*") if _is_photo(path)})
    empty = [label for label in recipe.labels if label not in found]
    if empty:
        raise DatasetError(f"there are no photos of {', '.join(empty)} in {photos}")
    if len(found) < 2:
        raise DatasetError(
            f"expected photos of at least two classes, one folder each, got {len(found)}"
            f"{': ' + found[0] if found else ''}"
        )
