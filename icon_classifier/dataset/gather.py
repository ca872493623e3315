"""Gather the photos of a recipe in a data folder, from whichever source it names.

A data folder, once gathered, holds::

    photos/<label>/*       what to train on; fastai's parent_label understands it
    photos/credits.csv     where each downloaded photo comes from, its licence and author
    test/<label>/*         photos of a test set: never trained on
    quarantine/<label>/*   bad photos; moves.jsonl says why each is here
    originals/<label>/*    originals of photos that were rewritten
    urls_<label>.txt       addresses that a search found
    searches.jsonl         each page of its results, with licences and authors
    downloads.jsonl        the outcome of each address
    gathered.jsonl         the outcome of each file of a folder or an archive
    further.jsonl          the outcome of each file of a further folder
    origin.jsonl           where the photos come from: one source per data folder

Photos are named by a hash of their contents, so that one photo has one name on every machine. The
user's own folder is copied from, never changed; what was removed or moved there is removed or moved
here by the next run.
"""

import contextlib
import io
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from icon_classifier.dataset.copying import (
    Reader,
    add_files,
    add_further,
    check_classes,
    list_files,
)
from icon_classifier.dataset.json_lines import append_lines, read_lines
from icon_classifier.dataset.recipes import ArchiveSource, ClassRecipe, Recipe
from icon_classifier.dataset.sources.archive import (
    ArchiveLimits,
    is_archive,
    read_archive,
    read_folder,
)
from icon_classifier.dataset.sources.credits import write_credits
from icon_classifier.dataset.sources.download import (
    Timeouts,
    download_photos,
    fetch_file,
    read_url_list,
)
from icon_classifier.dataset.sources.search import search_photos
from icon_classifier.dataset.sources.shapes import draw_shapes
from icon_classifier.dataset.store import PhotoStore, photos_and_labels
from icon_classifier.dataset.tables import is_table
from icon_classifier.errors import DatasetError, DownloadError


def gather(
    recipe: Recipe,
    folder: str | Path,
    *,
    data: str | Path | None = None,
    further: str | Path | None = None,
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
        The data folder to work in; a second run continues where the first stopped. Where it is the
        user's own folder, ``gathered`` in it is used.
    data : str or Path, optional
        The user's photos: a folder, an archive of one, or a table in the folder of its photos.
    further : str or Path, optional
        A folder of more photos to train on, such as those that visitors of the page gave: a folder
        for each class, which adds to the class of that name. Others are reported and left out.
    max_workers : int
        How many photos to download in parallel. With 0 they are downloaded one by one, and the
        first problem is raised instead of recorded.
    timeouts : Timeouts
        How long to wait for each photo. An archive is asked for more often.
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
        of another source, or of a class that the recipe does not have any more.
    DownloadError
        If they cannot be searched for or downloaded.
    """
    root = Path(folder).expanduser()
    kind = "data" if data is not None else recipe.source
    own = None
    if kind in {"data", "folder"}:
        recipe, own = _own_photos(recipe, data)
        if root.resolve() == own.resolve():
            root /= "gathered"  # a data folder of its own, in which no photo of the user is removed
    with _writing(root):
        if own:
            return _gather_own(recipe, own, root, kind, further)
        place = recipe.archive.url if kind == "archive" and recipe.archive else ""
        _check_origin(root, recipe, kind, place)
        if kind == "archive":
            read = _fetch_archive(recipe, root, timeouts, progress)
            return add_files(read, list_files(read, recipe), recipe, root, further)
        store, problems = PhotoStore(root), Counter[str]()
        if others := set(photos_and_labels(store.photos)[1]) - set(recipe.labels):
            raise DatasetError(
                f"expected photos of the recipe's classes in {store.photos}, got photos of "
                f"{', '.join(sorted(others))} too: rename their folders to a class of the recipe, "
                "or remove them"
            )
        if kind == "shapes":
            _add_shapes(recipe, store)
        else:
            lists = (
                _search_lists(recipe, root, first_error=max_workers <= 0)
                if kind == "search"
                else _given_lists(recipe, root)
            )
            for each, urls in lists:
                outcomes = download_photos(
                    urls,
                    each.name,
                    store,
                    timeouts=timeouts,
                    max_workers=max_workers,
                    progress=progress,
                    contact=recipe.search.contact,
                )
                problems.update(
                    f"{each.name}: {outcome.problem.rpartition(': ')[2]}"  # without the address
                    for outcome in outcomes
                    if outcome.problem
                )
            write_credits(store.photos)
        labels = photos_and_labels(store.photos)[1]
        check_classes(labels, recipe, Counter(), problems)
        add_further(further, labels, store, root)
        return store.photos


def _gather_own(
    recipe: Recipe, own: Path, root: Path, kind: str, further: str | Path | None
) -> Path:
    """Gather the user's photos; a run that fails leaves no new data folder."""
    read, is_new = _own_reader(own, root), not root.exists()
    layout = list_files(read, recipe)
    _check_origin(root, recipe, kind, str(own.resolve()))
    try:
        return add_files(read, layout, recipe, root, further)
    except DatasetError:
        if is_new:
            shutil.rmtree(root)
        raise


def check_own_photos(recipe: Recipe, data: str | Path | None = None) -> None:
    """Raise what :func:`gather` would about the user's photos, by the names of their files.

    Takes no longer than listing the files, and writes nothing. Other sources are not looked at.

    Raises
    ------
    DatasetError
        If there are none, or fewer than two classes, or a class of the recipe has none.
    """
    if data is not None or recipe.source == "folder":
        recipe, own = _own_photos(recipe, data)
        list_files(_own_reader(own), recipe)


def _own_photos(recipe: Recipe, data: str | Path | None) -> tuple[Recipe, Path]:
    """Return where the user's photos are, and the recipe with their table if that is given."""
    if data is None and recipe.folder.path is None:
        raise DatasetError(f"recipe {recipe.name!r} needs a folder of photos, got none")
    own = Path(data or recipe.folder.path or "").expanduser()
    try:
        is_file = own.is_file()
    except OSError as error:
        raise DatasetError(f"{own} cannot be opened: {error.strerror}") from error
    if is_file and is_table(PurePosixPath(own.name)):
        return replace(recipe, folder=replace(recipe.folder, table=own.name)), own.parent
    return recipe, own


def _own_reader(own: Path, skip: Path | None = None) -> Reader:
    return partial(read_archive, own) if own.is_file() else partial(read_folder, own, skip=skip)


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or error
        raise DatasetError(f"photos cannot be kept in the folder {root}: {why}") from error


def _check_origin(root: Path, recipe: Recipe, kind: str, place: str) -> None:
    """Refuse to mix photos of two sources, which would go unnoticed."""
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
            "Remove it to start over: it holds copies, not your own photos. Or give your folder "
            "or recipe another name"
        )


def _search_lists(
    recipe: Recipe, root: Path, *, first_error: bool
) -> Iterable[tuple[ClassRecipe, list[str]]]:
    """Search for each class; what earlier runs found is not searched for again."""
    search = recipe.search
    for each in recipe.classes:
        yield (
            each,
            search_photos(
                each.name,
                each.terms,
                search.per_class,
                root,
                sources=search.sources,
                region=search.region,
                contact=search.contact,
                first_error=first_error,
            ),
        )


def _given_lists(recipe: Recipe, root: Path) -> Iterable[tuple[ClassRecipe, list[str]]]:
    """Read the list of each class, all of them before the first download."""
    folder = Path(recipe.urls.path).expanduser() if recipe.urls.path else root
    count = recipe.urls.max_pics
    return [(each, read_url_list(folder / each.url_file)[:count]) for each in recipe.classes]


def _fetch_archive(recipe: Recipe, root: Path, timeouts: Timeouts, progress: bool) -> Reader:
    archive = recipe.archive
    if archive is None:
        raise DatasetError(f"recipe {recipe.name!r} names no archive")
    file = fetch_file(
        archive.url,
        root / "archive" / _archive_name(archive),
        sha256=archive.sha256,
        max_bytes=archive.max_bytes,
        timeouts=replace(timeouts, tries=5),
        progress=progress,
    )
    if not is_archive(file):
        start = file.read_bytes()[:100]
        file.unlink()  # the address is asked again by the next run
        what = "a web page" if start.lstrip().startswith(b"<") else "another file"
        raise DownloadError(f"{archive.url}: expected a zip or tar archive, got {what}")
    return partial(read_archive, file, limits=ArchiveLimits(max_bytes=10 * archive.max_bytes))


def _archive_name(archive: ArchiveSource) -> str:
    return archive.url.partition("?")[0].rstrip("/").rpartition("/")[2] or "archive"


def _add_shapes(recipe: Recipe, store: PhotoStore) -> None:
    for label, image in draw_shapes(recipe.labels, seed=recipe.training.seed):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        store.add(label, buffer.getvalue())
