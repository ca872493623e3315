"""Where a recipe's photos come from: its classes, and one table for each kind of source.

``recipes.py`` reads them from TOML; the metadata of a field is the range that it checks.
"""

from dataclasses import dataclass, field
from typing import Literal

from icon_classifier.dataset.tables import between

SourceKind = Literal["search", "urls", "archive", "folder", "shapes"]


@dataclass(frozen=True)
class ClassRecipe:
    """One class: its label and where its photos are found.

    Attributes
    ----------
    name : str
        The label, as the page shows it and as the folder is named.
    search : tuple of str
        Search terms; the label itself if there are none.
    urls : str or None
        File with one address a line; ``urls_<name>.txt`` if not given.
    folders : tuple of str
        Other names that this class's folder has in an archive or a folder (WordNet ids, say).
    """

    name: str
    search: tuple[str, ...] = ()
    urls: str | None = None
    folders: tuple[str, ...] = ()

    @property
    def terms(self) -> tuple[str, ...]:
        """What to search for: the search terms, or else the label."""
        return self.search or (self.name,)

    @property
    def url_file(self) -> str:
        """Name of the file that lists addresses of this class's photos."""
        return self.urls or f"urls_{self.name}.txt"


@dataclass(frozen=True)
class SearchSource:
    """Photos found by an image search.

    Attributes
    ----------
    per_class : int
        How many different addresses to look for, in each class.
    region : str
        Country and language of the search, as the search engine writes it.
    """

    per_class: int = field(default=150, metadata=between(1, 1000))
    region: str = "us-en"


@dataclass(frozen=True)
class UrlsSource:
    """Photos at addresses listed in one file a class.

    Attributes
    ----------
    path : str or None
        Folder of the lists; the data folder if not given.
    max_pics : int
        How many addresses of each list are used.
    """

    path: str | None = None
    max_pics: int = field(default=1000, metadata=between(1, 100_000))


@dataclass(frozen=True)
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

    url: str
    sha256: str | None = None
    max_bytes: int = field(default=2 * 2**30, metadata=between(1, 2**40))


@dataclass(frozen=True)
class FolderSource:
    """Photos in a folder that holds one folder a class.

    Attributes
    ----------
    path : str or None
        The folder; whoever runs the recipe names it otherwise.
    """

    path: str | None = None


@dataclass(frozen=True)
class ShapesSource:
    """Pictures drawn on the spot.

    Attributes
    ----------
    per_class : int
        Number of pictures of each class.
    side : int
        Width and height (pixels).
    """

    per_class: int = field(default=40, metadata=between(2, 10_000))
    side: int = field(default=64, metadata=between(16, 1024))
