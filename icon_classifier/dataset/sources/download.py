"""Download photos, many at a time, and large files, with limits on time and size.

Both continue where an earlier run stopped. The outcome of each photo's address is recorded, one
JSON line each, in ``downloads.jsonl``: a second run asks only for what has not been asked for, or
failed for a reason that may pass (a time-out, a busy server).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, track

from icon_classifier.dataset.json_lines import append_lines, read_lines
from icon_classifier.dataset.sources.json_api import (
    TRANSIENT,
    retry_after,
    status_line,
    user_agent,
)
from icon_classifier.dataset.store import PhotoStore, suffix_of
from icon_classifier.errors import DownloadError
from icon_classifier.files import decode_text, sha256_of
from icon_classifier.images import Limits

RECORD = "downloads.jsonl"

_MAX_BYTES = Limits().max_bytes

_MAX_WAIT = 30.0
"""Seconds; a site that asks to wait for longer is left to the next run."""

_PHOTO_HEADERS = {
    "Accept": "image/*,*/*;q=0.5",
    # A photo is compressed already, and a compressed answer might unpack to anything.
    "Accept-Encoding": "identity",
}


@dataclass(frozen=True)
class Timeouts:
    """How long to wait, in seconds, and how often to try.

    Attributes
    ----------
    connect : float
        For a connection.
    read : float
        For the next bytes.
    total : float
        For the whole photo; does not apply to :func:`fetch_file`.
    tries : int
        How often to ask while the failure is one that may pass.
    pause : float
        Between two tries.
    """

    connect: float = 5.0
    read: float = 10.0
    total: float = 60.0
    tries: int = 2
    pause: float = 1.0

    @property
    def as_httpx(self) -> httpx.Timeout:
        """The same for httpx; waiting for a free connection is not limited."""
        return httpx.Timeout(self.read, connect=self.connect, pool=None)


@dataclass(frozen=True)
class Outcome:
    """The outcome of one address.

    Attributes
    ----------
    url : str
        The address.
    name : str or None
        Name of the photo's file, if it was downloaded.
    problem : str or None
        Why it was not.
    again : bool
        Whether it is worth asking again another time.
    """

    url: str
    name: str | None = None
    problem: str | None = None
    again: bool = False


class _PhotoError(DownloadError):
    """A photo could not be downloaded.

    ``again`` says whether it may work later, ``wait`` after how many seconds, if the site says so.
    """

    def __init__(self, message: str, *, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(message)
        self.again = again
        self.wait = wait


def read_url_list(path: Path) -> list[str]:
    """Read a list of addresses, one per line; return each once, in order.

    Empty lines and lines that begin with ``#`` do not count.

    Raises
    ------
    DownloadError
        If the list cannot be read or is empty.
    """
    urls = read_urls(path)
    if not urls:
        raise DownloadError(f"the list of addresses {path} is empty")
    return urls


def read_urls(path: Path) -> list[str]:
    """Read a list of addresses that may be empty; see :func:`read_url_list`."""
    try:
        lines = decode_text(path.read_bytes()).splitlines()
    except OSError as error:
        raise DownloadError(f"the list of addresses {path} cannot be read: {error}") from error
    stripped = (line.strip() for line in lines)
    return list(dict.fromkeys(line for line in stripped if line and not line.startswith("#")))


def download_photos(
    urls: Sequence[str],
    label: str,
    store: PhotoStore,
    *,
    timeouts: Timeouts = Timeouts(),
    max_workers: int = 8,
    progress: bool = True,
    contact: str | None = None,
) -> list[Outcome]:
    """Download the photos of one label.

    Parameters
    ----------
    urls : sequence of str
        Where the photos are.
    label : str
        Their label.
    store : PhotoStore
        Where to keep them.
    timeouts : Timeouts
        How long to wait.
    max_workers : int
        How many to download in parallel. With 0 they are downloaded one by one, and the first
        problem is raised.
    progress : bool
        Show a progress bar on stderr.
    contact : str, optional
        Address of whoever downloads, for the sites that want one.

    Returns
    -------
    list of Outcome
        The outcome of each address, earlier runs included, in the order of `urls`.

    Raises
    ------
    DownloadError
        If no server could be reached; with ``max_workers=0`` at any problem.
    """
    record = store.photos.with_name(RECORD)
    outcomes = _earlier(record, label)
    todo = [url for url in dict.fromkeys(urls) if url not in outcomes]
    # Some sites refuse whatever does not begin like a browser.
    headers = {"User-Agent": f"Mozilla/5.0 (compatible) {user_agent(contact)}", **_PHOTO_HEADERS}
    with httpx.Client(
        headers=headers, timeout=timeouts.as_httpx, follow_redirects=True, max_redirects=5
    ) as client:

        def download(url: str) -> Outcome:
            data = _fetch_photo(client, url, timeouts)
            return Outcome(url, store.add(label, data))

        for outcome in track(
            _map_parallel(download, todo, max_workers),
            label,
            len(todo),
            console=Console(stderr=True),
            disable=not progress,
        ):
            outcomes[outcome.url] = outcome
            append_lines(record, [{"label": label, **asdict(outcome)}])
    results = [outcomes[url] for url in dict.fromkeys(urls)]
    if todo and all(each.again for each in results):
        raise DownloadError(
            f"none of {len(results)} photos of {label} could be downloaded; the first: "
            f"{results[0].problem}. Is this machine on the network? Run this again to continue."
        )
    return results


def _earlier(record: Path, label: str) -> dict[str, Outcome]:
    """Outcomes of earlier runs that another try would not change."""
    known = {}
    for line in read_lines(record):
        if line.pop("label") == label:
            outcome = Outcome(**line)
            known[outcome.url] = outcome
    return {url: outcome for url, outcome in known.items() if not outcome.again}


def _map_parallel(
    download: Callable[[str], Outcome], urls: list[str], max_workers: int
) -> Iterator[Outcome]:
    """Download each address, and yield outcomes as soon as they are known."""
    if max_workers <= 0:
        yield from map(download, urls)
        return
    pool = ThreadPoolExecutor(max_workers, thread_name_prefix="download")
    try:
        running = {pool.submit(download, url): url for url in urls}
        for done in as_completed(running):
            try:
                yield done.result()
            except _PhotoError as error:
                yield Outcome(running[done], None, str(error), error.again)
    finally:
        # Interrupted by the user: what has not begun need not begin.
        pool.shutdown(cancel_futures=True)


def _fetch_photo(client: httpx.Client, url: str, timeouts: Timeouts) -> bytes:
    """Download one photo, and retry where that may help."""
    for left in range(timeouts.tries - 1, -1, -1):
        try:
            return _fetch_once(client, url, timeouts.total)
        except _PhotoError as error:
            if not (left and error.again) or error.wait > _MAX_WAIT:
                raise
            time.sleep(max(timeouts.pause, error.wait))
    raise _PhotoError(f"{url}: expected at least one try, got {timeouts.tries}")


def _fetch_once(client: httpx.Client, url: str, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    data = bytearray()
    try:
        with client.stream("GET", url) as response:
            kind = response.headers.get("content-type", "no content type")
            _check_headers(response, url)
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise _PhotoError(f"{url}: larger than {_MAX_BYTES} bytes")
                if time.monotonic() > deadline:
                    raise _PhotoError(f"{url}: not complete after {seconds:g} seconds", again=True)
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
        raise _PhotoError(f"{url}: {error}") from error
    except (httpx.DecodingError, UnicodeError, ValueError) as error:
        raise _PhotoError(f"{url}: an invalid answer: {error}") from error
    except httpx.TimeoutException as error:
        raise _PhotoError(
            f"{url}: no answer in time ({type(error).__name__})", again=True
        ) from error
    except httpx.HTTPError as error:  # no connection, or one that was lost
        raise _PhotoError(f"{url}: {error}", again=True) from error
    if suffix_of(bytes(data)) is None:
        raise _PhotoError(f"{url}: not a picture ({kind}, {len(data)} bytes)")
    return bytes(data)


def _check_headers(response: httpx.Response, url: str) -> None:
    if response.status_code != httpx.codes.OK:
        raise _PhotoError(
            f"{url}: {status_line(response)}",
            again=response.status_code in TRANSIENT,
            wait=retry_after(response.headers),
        )
    encoding = response.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", "gzip", "deflate"}:
        raise _PhotoError(f"{url}: compressed as {encoding}, which was not asked for")
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length) > _MAX_BYTES:
        raise _PhotoError(f"{url}: {length} bytes, larger than {_MAX_BYTES}")


def fetch_file(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    max_bytes: int = 2 * 2**30,
    timeouts: Timeouts,
    progress: bool = True,
) -> Path:
    """Download a large file; an interrupted download continues where it stopped.

    Parameters
    ----------
    url : str
        Its address.
    target : Path
        Where to keep it; while incomplete it has ``.part`` at the end of its name.
    sha256 : str, optional
        Its checksum, in hexadecimal.
    max_bytes : int
        Limit of its size (bytes).
    timeouts : Timeouts
        How long to wait.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        If it cannot be downloaded, is too large, or does not match the checksum.
    """
    if target.exists():
        _check_sum(target, sha256)
        return target
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    headers = {"Accept-Encoding": "identity", "User-Agent": "icon-classifier"}
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with (
        httpx.Client(headers=headers, timeout=timeouts.as_httpx, follow_redirects=True) as client,
        Progress(*columns, console=Console(stderr=True), disable=not progress) as bar,
    ):
        bar.add_task(target.name, total=None)
        failures = 0
        while True:
            before = _size(part)
            try:
                _fetch_rest(client, url, part, max_bytes, bar)
                break
            except (httpx.HTTPStatusError, httpx.TransportError) as error:
                # Only tries that brought nothing to keep are counted.
                failures = 0 if _size(part) > before and _etag(part).exists() else failures + 1
                if not _is_transient(error) or failures >= timeouts.tries:
                    raise DownloadError(
                        f"{url} cannot be downloaded: {_reason(error)}. Run this again to continue"
                    ) from error
                time.sleep(timeouts.pause * 2**failures)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
                raise DownloadError(f"{url} cannot be downloaded: {error}") from error
    _etag(part).unlink(missing_ok=True)
    _check_sum(part, sha256)
    part.replace(target)
    return target


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _etag(part: Path) -> Path:
    """Return the file that holds the ETag of a partial download."""
    return part.with_name(part.name + ".etag")


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return status_line(error.response)
    return str(error) or type(error).__name__


def _is_transient(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in TRANSIENT
    return not isinstance(error, httpx.UnsupportedProtocol)


def _fetch_rest(client: httpx.Client, url: str, part: Path, max_bytes: int, bar: Progress) -> None:
    """Ask for what is missing; start over if the server cannot, or has another file by now."""
    before = _size(part)
    headers = {}
    if before and _etag(part).exists():
        # If-Range: the rest of the same file, or all of the new one.
        headers = {"Range": f"bytes={before}-", "If-Range": _etag(part).read_text()}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            complete = response.headers.get("content-range") == f"bytes */{before}"
            if not complete:
                part.unlink()
                raise httpx.ReadError("the partial download does not fit the file")
            return
        response.raise_for_status()
        start = _first_byte(response)
        if start not in {0, before}:
            raise httpx.ReadError(f"expected bytes from {before}, got them from {start}")
        length = response.headers.get("content-length", "")
        total = start + int(length) if length.isdecimal() else None
        if total is not None and total > max_bytes:
            raise DownloadError(f"{url}: {total} bytes, larger than {max_bytes}")
        validator = response.headers.get("etag") or response.headers.get("last-modified", "")
        # Without a strong validator, the rest might be of another file.
        if validator and not validator.startswith("W/"):
            _etag(part).write_text(validator)
        else:
            _etag(part).unlink(missing_ok=True)
        (task,) = bar.task_ids
        with part.open("ab" if start else "wb") as file:
            for chunk in response.iter_bytes():
                if file.tell() + len(chunk) > max_bytes:
                    raise DownloadError(f"{url}: larger than {max_bytes} bytes")
                file.write(chunk)
                bar.update(task, completed=file.tell(), total=total)


def _first_byte(response: httpx.Response) -> int:
    """Offset of the answer's first byte in the whole file."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    span = response.headers.get("content-range", "")  # bytes 100-199/200
    return int(span.removeprefix("bytes ").partition("-")[0])


def _check_sum(file: Path, expected: str | None) -> None:
    if expected is None:
        return
    actual = sha256_of(file)
    if actual != expected.lower():
        file.unlink()
        raise DownloadError(
            f"{file.name}: expected the SHA-256 {expected.lower()}, got {actual}; the file was "
            "deleted. If the archive has changed, check it and update the recipe"
        )
