"""Gather the photos of a recipe in a data folder, from whichever source it names.

A data folder, once gathered, holds::

    photos/<label>/*       what to train on; fastai's parent_label understands it
    photos/credits.csv     where each downloaded photo comes from, its licence and author
    quarantine/<label>/*   bad photos; moves.jsonl says why each is here
    originals/<label>/*    originals of photos that were rewritten
    urls_<label>.txt       addresses that a search found
    searches.jsonl         each page of its results, with licences and authors
    downloads.jsonl        the outcome of each address
    origin.jsonl           where the photos come from: one source per data folder

Photos are named by a hash of their contents, so that one photo has one name on every machine. The
user's own folder is copied from, never changed.
"""

import io
import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from icon_classifier.dataset.archive import ArchiveLimits, read_archive
from icon_classifier.dataset.journal import append_lines, read_lines
from icon_classifier.dataset.layout import LabelOf, by_names, by_places, fold
from icon_classifier.dataset.recipes import ArchiveSource, ClassRecipe, Recipe, SourceKind
from icon_classifier.dataset.shapes import draw_shapes
from icon_classifier.dataset.sources.credits import write_credits
from icon_classifier.dataset.sources.download import (
    Outcome,
    Timeouts,
    download_photos,
    fetch_file,
    read_url_list,
)
from icon_classifier.dataset.sources.search import search_photos
from icon_classifier.dataset.store import PhotoStore, is_photo_name, photos_and_labels
from icon_classifier.errors import DatasetError
from icon_classifier.images import Limits

_log = logging.getLogger(__name__)


def gather(
    recipe: Recipe,
    folder: str | Path,
    *,
    source: SourceKind | None = None,
    data: str | Path | None = None,
    max_pics: int | None = None,
    max_workers: int = 8,
    timeouts: Timeouts = Timeouts(),
    progress: bool = True,
) -> Path:
    """Gather a recipe's photos.

    Parameters
    ----------
    recipe : Recipe
        What to gather.
    folder : str or Path
        The data folder to work in; a second run continues where the first stopped.
    source : {"search", "urls", "archive", "folder", "shapes"}, optional
        Another source than the recipe's own.
    data : str or Path, optional
        Photos of your own: a folder with one sub-folder per class, or an archive of such a folder.
    max_pics : int, optional
        How many photos of each class to search for or download, if not as many as the recipe says.
    max_workers : int
        How many photos to download in parallel. With 0 they are downloaded one by one, and the
        first problem is raised instead of recorded.
    timeouts : Timeouts
        How long to wait for each photo.
    progress : bool
        Show progress bars on stderr.

    Returns
    -------
    Path
        The folder that holds one folder of photos for each label.

    Raises
    ------
    DatasetError
        If photos are missing, there are fewer than two classes, or the data folder holds photos
        of another source.
    DownloadError
        If they cannot be searched for or downloaded.
    """
    root = Path(folder).expanduser()
    kind = "data" if data is not None else source or recipe.source
    own = Path(data or recipe.folder.path or "").expanduser()
    _check_origin(root, recipe, kind, own)
    is_folder = kind == "folder" or (kind == "data" and not own.is_file())
    store = PhotoStore(root, mirror=is_folder)
    left_out: Counter[str] = Counter()
    if is_folder:
        if kind == "folder" and recipe.folder.path is None:
            raise DatasetError(f"recipe {recipe.name!r} needs a folder of photos, got none")
        left_out = _add_folder(own, recipe, store)
    elif kind == "data":
        left_out = _add_archive(read_archive(own), recipe, store)
    elif kind == "shapes":
        shapes, seed = recipe.shapes, recipe.training.seed
        drawn = draw_shapes(recipe.labels, per_class=shapes.per_class, side=shapes.side, seed=seed)
        for label, image in drawn:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            store.add(label, buffer.getvalue())
    elif kind == "archive":
        left_out = _add_archive(_fetch_archive(recipe, root, timeouts, progress), recipe, store)
    else:
        lists = (
            _search_lists(recipe, root, max_pics, first_error=max_workers <= 0)
            if kind == "search"
            else _given_lists(recipe, root, max_pics)
        )
        for each, urls in lists:
            outcomes = download_photos(
                urls,
                each.name,
                root,
                store=store,
                timeouts=timeouts,
                max_workers=max_workers,
                progress=progress,
                contact=recipe.search.contact,
            )
            _log_failures(each.name, outcomes)
        write_credits(store.photos)
    _check_classes(store.photos, recipe, left_out)
    return store.photos


def _check_origin(root: Path, recipe: Recipe, kind: str, own: Path) -> None:
    """Refuse to mix photos of two sources, which would go unnoticed."""
    place = ""
    if kind in {"data", "folder"}:
        place = str(own.resolve())
    elif kind == "archive" and recipe.archive is not None:
        place = recipe.archive.url
    origin = {"recipe": recipe.name, "source": kind, "place": place}
    earlier = read_lines(root / "origin.jsonl")
    if earlier and earlier[-1] == origin:
        return
    # A run that brought no photos (a misspelt folder, no network) does not count.
    if not earlier or not photos_and_labels(root / "photos")[0]:
        append_lines(root / "origin.jsonl", [origin])
    else:
        found = ", ".join(each for each in earlier[-1].values() if each)
        expected = ", ".join(each for each in origin.values() if each)
        raise DatasetError(
            f"{root}: expected an empty folder or photos of ({expected}), got photos of ({found}). "
            "Choose another data folder, or remove this one to start over"
        )


def _search_lists(
    recipe: Recipe, root: Path, max_pics: int | None, *, first_error: bool
) -> Iterable[tuple[ClassRecipe, list[str]]]:
    """Search for each class; what earlier runs found is not searched for again."""
    search = recipe.search
    for each in recipe.classes:
        yield (
            each,
            search_photos(
                each.name,
                each.terms,
                max_pics or search.per_class,
                root,
                sources=search.sources,
                region=search.region,
                contact=search.contact,
                first_error=first_error,
            ),
        )


def _given_lists(
    recipe: Recipe, root: Path, max_pics: int | None
) -> Iterable[tuple[ClassRecipe, list[str]]]:
    """Read the list of each class, all of them before the first download."""
    folder = Path(recipe.urls.path) if recipe.urls.path else root
    count = max_pics or recipe.urls.max_pics
    return [(each, read_url_list(folder / each.url_file, count)) for each in recipe.classes]


def _fetch_archive(
    recipe: Recipe, root: Path, timeouts: Timeouts, progress: bool
) -> Iterable[tuple[PurePosixPath, bytes]]:
    archive = recipe.archive
    if archive is None:
        raise DatasetError(f"recipe {recipe.name!r} names no archive")
    file = fetch_file(
        archive.url,
        root / "archive" / _archive_name(archive),
        sha256=archive.sha256,
        max_bytes=archive.max_bytes,
        timeouts=timeouts,
        progress=progress,
    )
    return read_archive(file, limits=ArchiveLimits(max_bytes=10 * archive.max_bytes))


def _archive_name(archive: ArchiveSource) -> str:
    return archive.url.partition("?")[0].rstrip("/").rpartition("/")[2] or "archive"


def _add_folder(folder: Path, recipe: Recipe, store: PhotoStore) -> Counter[str]:
    """Make the store hold the photos of a folder, and no others; return what was left out."""
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    names = [
        PurePosixPath(path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    names = [name for name in names if all(map(is_photo_name, name.parts))]
    label_of = _label_of_names(recipe) or by_places(names)
    left_out: Counter[str] = Counter()
    largest = Limits().max_bytes
    for name in names:
        path = folder / name
        label = label_of(name)
        if label is None:
            left_out[name.parent.name] += 1
        elif path.stat().st_size > largest:
            _log.warning("%s is left out: larger than %d bytes", path, largest)
        else:
            store.add(label, path.read_bytes(), name.name)
    if removed := store.remove_others():
        _log.warning("%d photos are not in %s any more and were removed", removed, folder)
    return left_out


def _add_archive(
    files: Iterable[tuple[PurePosixPath, bytes]], recipe: Recipe, store: PhotoStore
) -> Counter[str]:
    """Add the photos of an archive, in folders named like a class; return what was left out."""
    label_of = _label_of_names(recipe) or (lambda path: path.parent.name or None)
    left_out: Counter[str] = Counter()
    for path, data in files:
        if all(map(is_photo_name, path.parts)):
            if (label := label_of(path)) is None:
                left_out[path.parent.name] += 1
            else:
                store.add(label, data, path.name)
    return left_out


def _label_of_names(recipe: Recipe) -> LabelOf | None:
    """Return how the recipe's classes are found by name; None where it names none."""
    if not recipe.classes:
        return None
    names = ((name, each.name) for each in recipe.classes for name in (each.name, *each.folders))
    return by_names({fold(name): label for name, label in names})


def _log_failures(label: str, outcomes: list[Outcome]) -> None:
    problems = [each.problem for each in outcomes if each.problem]
    if problems:
        # "https://...: HTTP 404 Not Found" without the address: equal reasons are counted.
        kinds = Counter(problem.rpartition(": ")[2] for problem in problems)
        most = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
        _log.warning(
            "%s: %d of %d addresses returned no photo (%s); downloads.jsonl says why",
            label,
            len(problems),
            len(outcomes),
            most,
        )


def _check_classes(photos: Path, recipe: Recipe, left_out: Counter[str]) -> None:
    _, labels = photos_and_labels(photos)
    found = Counter(labels)
    empty = [label for label in recipe.labels if label not in found]
    others = ", ".join(f"{name or '(no folder)'} ({n})" for name, n in left_out.most_common(8))
    if empty:
        raise DatasetError(
            f"there are no photos of {', '.join(empty)}"
            + (f"; other folders have photos: {others}. " if others else ". ")
            + "Name the folders like the classes, or use no recipe: they then name the classes"
        )
    if len(found) < 2:
        raise DatasetError(
            f"expected photos of at least two classes, one folder each, got {len(found)}"
            f"{': ' + next(iter(found)) if found else ''}"
        )
    if others:
        _log.warning("photos of no class were left out, in the folders: %s", others)
