"""What a search of photos returns, and how its refusal is told apart from an empty answer."""

from dataclasses import dataclass, replace

from icon_classifier.errors import DownloadError
from icon_classifier.system.texts import printable


@dataclass(frozen=True)
class Query:
    """One page of one search.

    Attributes
    ----------
    term : str
        What to search for.
    page : int
        Number of the page, from 1.
    region : str
        Country and language, as ``us-en``; not every source knows regions.
    contact : str or None
        Address of whoever searches, which Wikimedia wants to know.
    """

    term: str
    page: int = 1
    region: str = "us-en"
    contact: str | None = None


@dataclass(frozen=True)
class FoundPhoto:
    """A photo that was found, and whom to credit for it.

    Attributes
    ----------
    url : str
        Address of the photo.
    page : str
        Address of the web page that shows it; empty if unknown.
    licence, author : str
        Empty if unknown.
    """

    url: str
    page: str = ""
    licence: str = ""
    author: str = ""


@dataclass(frozen=True)
class FoundPage:
    """One page of results; ``last`` if there are no more."""

    photos: tuple[FoundPhoto, ...]
    last: bool


class RefusedError(DownloadError):
    """A source did not answer a search.

    Attributes
    ----------
    again : bool
        Whether the same request may be answered later.
    wait : float
        For how many seconds the source asks to wait.
    status : int or None
        The HTTP status, if there was an answer.
    """

    def __init__(
        self, message: str, *, again: bool = True, wait: float = 0.0, status: int | None = None
    ) -> None:
        super().__init__(printable(message))  # which may hold what a stranger's server wrote
        self.again = again
        self.wait = wait
        self.status = status


def found_photo(
    url: object, page: object, licence: object = "", author: object = ""
) -> FoundPhoto | None:
    """Check one untrusted result: None without a web address; what is no text counts as empty."""
    texts = (
        printable(" ".join(each.split())) if isinstance(each, str) else ""
        for each in (url, page, licence, author)
    )
    photo = FoundPhoto(*texts)
    if not _is_web_address(photo.url):
        return None
    return photo if _is_web_address(photo.page) else replace(photo, page="")


def _is_web_address(text: str) -> bool:
    return text.startswith(("http://", "https://")) and " " not in text
