"""Download photos: many at once, with limits on time and size, and from where a run stopped.

What came of each address is recorded, one JSON line each, in ``downloads.jsonl``: a second run asks
only for what has not been asked for, or failed in a way that may pass (a time-out, a busy server).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm.auto import tqdm

from icon_classifier.dataset.journal import append_lines, read_lines
from icon_classifier.dataset.store import PhotoStore, suffix_of
from icon_classifier.errors import DownloadError
from icon_classifier.images import Limits

RECORD = "downloads.jsonl"

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Answers of a server that may be another one later."""

_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; icon-classifier)",
    "Accept": "image/*,*/*;q=0.5",
    # A photo is compressed already, and a packed answer might unpack to anything.
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    Attributes
    ----------
    connect : float
        For a connection.
    read : float
        For the next bytes.
    total : float
        For the whole photo.
    tries : int
        How often to ask for a photo while the failure is one that may pass.
    pause : float
        Between two tries.
    """

    connect: float = 5.0
    read: float = 10.0
    total: float = 60.0
    tries: int = 2
    pause: float = 1.0


@dataclass(frozen=True)
class Outcome:
    """What came of one address.

    Attributes
    ----------
    url : str
        The address.
    name : str or None
        Name of the photo's file, if it came.
    problem : str or None
        Why it did not come.
    again : bool
        Whether it is worth asking again another time.
    """

    url: str
    name: str | None = None
    problem: str | None = None
    again: bool = False


class _RefusedError(DownloadError):
    """A photo did not come; ``again`` tells whether it may come later."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


def read_url_list(path: Path, max_pics: int = 1000) -> list[str]:
    """Read a list of addresses, one a line, as fast.ai's course used them.

    Parameters
    ----------
    path : Path
        The list. Empty lines and lines that begin with ``#`` do not count.
    max_pics : int
        How many addresses to return at most.

    Returns
    -------
    list of str
        The first addresses, each once, in order.

    Raises
    ------
    DownloadError
        If the list cannot be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DownloadError(f"the list of addresses {path} cannot be read: {error}") from error
    urls = dict.fromkeys(line.strip() for line in lines if line.strip() and line.strip()[0] != "#")
    if not urls:
        raise DownloadError(f"the list of addresses {path} is empty")
    return list(urls)[:max_pics]


def download_photos(
    urls: Sequence[str],
    label: str,
    root: Path,
    *,
    store: PhotoStore | None = None,
    limits: Limits = Limits(),
    patience: Patience = Patience(),
    max_workers: int = 8,
    progress: bool = True,
) -> list[Outcome]:
    """Download the photos of one label.

    Parameters
    ----------
    urls : sequence of str
        Where the photos are.
    label : str
        Their label.
    root : Path
        The data folder.
    store : PhotoStore, optional
        Where to keep them; the data folder's own if not given.
    limits : Limits
        What a photo may cost.
    patience : Patience
        How long to wait.
    max_workers : int
        How many to download at once. With 0 they come one by one, and the first problem is raised.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Outcome
        What came of each address, earlier runs included, in the order of `urls`.

    Raises
    ------
    DownloadError
        If no server could be reached at all; with ``max_workers=0`` whatever goes wrong.
    """
    store = store or PhotoStore(root)
    outcomes = _earlier(root, label)
    todo = [url for url in dict.fromkeys(urls) if url not in outcomes]
    timeout = httpx.Timeout(patience.read, connect=patience.connect, pool=None)
    with (
        httpx.Client(headers=_HEADERS, timeout=timeout, follow_redirects=True) as client,
        tqdm(total=len(todo), desc=label, unit="photo", disable=not progress) as bar,
    ):
        client.max_redirects = 5

        def one(url: str) -> Outcome:
            data = _fetch(client, url, limits, patience)
            return Outcome(url, store.keep(label, data))

        for outcome in _each(one, todo, max_workers):
            outcomes[outcome.url] = outcome
            append_lines(root / RECORD, [{"label": label, **outcome.__dict__}])
            bar.update()
    came = [outcomes[url] for url in dict.fromkeys(urls)]
    if todo and all(each.again for each in came):
        raise DownloadError(
            f"none of {len(came)} photos of {label} could be downloaded; the first: "
            f"{came[0].problem}. Is this machine on the network? Run this again to go on."
        )
    return came


def _earlier(root: Path, label: str) -> dict[str, Outcome]:
    """Outcomes of earlier runs that another try would not change."""
    known = {}
    for line in read_lines(root / RECORD):
        if line.pop("label") == label:
            outcome = Outcome(**line)
            known[outcome.url] = outcome
    return {url: outcome for url, outcome in known.items() if not outcome.again}


def _each(one: Callable[[str], Outcome], urls: list[str], max_workers: int) -> Iterator[Outcome]:
    """Run `one` on every address, and give what came of each as soon as it is known."""
    if max_workers <= 0:
        for url in urls:
            yield one(url)
        return
    pool = ThreadPoolExecutor(max_workers, thread_name_prefix="download")
    try:
        running = {pool.submit(one, url): url for url in urls}
        for done in as_completed(running):
            try:
                yield done.result()
            except _RefusedError as error:
                yield Outcome(running[done], None, str(error), error.again)
    finally:
        # Stopped by the user: what has not begun need not begin.
        pool.shutdown(cancel_futures=True)


def _fetch(client: httpx.Client, url: str, limits: Limits, patience: Patience) -> bytes:
    """Download one picture, and try again where that may help."""
    for left in range(patience.tries - 1, -1, -1):
        try:
            return _fetch_once(client, url, limits, patience.total)
        except _RefusedError as error:
            if not (left and error.again):
                raise
            time.sleep(patience.pause)
    raise _RefusedError(f"{url}: expected at least one try, got {patience.tries}")


def _fetch_once(client: httpx.Client, url: str, limits: Limits, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    data = bytearray()
    try:
        with client.stream("GET", url) as response:
            kind = response.headers.get("content-type", "nothing said of its kind")
            _check_answer(response, url, limits)
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > limits.max_bytes:
                    raise _RefusedError(f"{url}: larger than {limits.max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise _RefusedError(
                        f"{url}: not complete after {seconds:g} seconds", again=True
                    )
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise _RefusedError(f"{url}: {error}") from error
    except (httpx.DecodingError, UnicodeError, ValueError) as error:
        raise _RefusedError(f"{url}: an answer that makes no sense: {error}") from error
    except httpx.TimeoutException as error:
        raise _RefusedError(
            f"{url}: no answer in time ({type(error).__name__})", again=True
        ) from error
    except httpx.HTTPError as error:  # no connection, or one that broke off
        raise _RefusedError(f"{url}: {error}", again=True) from error
    if suffix_of(bytes(data)) is None:
        raise _RefusedError(f"{url}: not a picture ({kind}, {len(data)} bytes)")
    return bytes(data)


def _check_answer(response: httpx.Response, url: str, limits: Limits) -> None:
    status = response.status_code
    if status != httpx.codes.OK:
        raise _RefusedError(
            f"{url}: HTTP {status} {response.reason_phrase}".rstrip(), again=status in PASSING
        )
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip", "deflate"}:
        raise _RefusedError(f"{url}: packed as {encoding}, which was not asked for")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.max_bytes:
        raise _RefusedError(f"{url}: {length} bytes, larger than {limits.max_bytes}")
