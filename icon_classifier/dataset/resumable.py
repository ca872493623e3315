"""Download one large file; a download that was cut short goes on where it stopped."""

import hashlib
import time
from pathlib import Path

import httpx
from tqdm.auto import tqdm

from icon_classifier.dataset.download import PASSING, Patience
from icon_classifier.errors import DownloadError

_PATIENCE = Patience(tries=5)


def fetch_file(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    max_bytes: int = 2 * 2**30,
    patience: Patience = _PATIENCE,
    progress: bool = True,
) -> Path:
    """Download a large file; a download that was cut short goes on where it stopped.

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
    patience : Patience
        How long to wait; ``total`` does not count, large files take as long as they take.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        If it cannot be had, is too large, or is another one than the checksum says.
    """
    if target.exists():
        _check_sum(target, sha256)
        return target
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    timeout = httpx.Timeout(patience.read, connect=patience.connect, pool=None)
    headers = {"Accept-Encoding": "identity", "User-Agent": "icon-classifier"}
    with (
        httpx.Client(headers=headers, timeout=timeout, follow_redirects=True) as client,
        tqdm(desc=target.name, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        failures = 0
        while True:
            had = part.stat().st_size if part.exists() else 0
            try:
                _fetch_rest(client, url, part, max_bytes, bar)
                break
            except (httpx.HTTPStatusError, httpx.TransportError) as error:
                now = part.stat().st_size if part.exists() else 0
                # Each piece that came and need not come again is new hope.
                failures = 0 if now > had and _tag(part).exists() else failures + 1
                if not _passing(error) or failures >= patience.tries:
                    raise DownloadError(
                        f"{url} cannot be downloaded: {_words(error)}. Run this again to go on"
                    ) from error
                time.sleep(patience.pause * 2**failures)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
                raise DownloadError(f"{url} cannot be downloaded: {error}") from error
    _tag(part).unlink(missing_ok=True)
    _check_sum(part, sha256)
    part.replace(target)
    return target


def _words(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"HTTP {error.response.status_code} {error.response.reason_phrase}".rstrip()
    return str(error) or type(error).__name__


def _passing(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in PASSING
    return not isinstance(error, httpx.UnsupportedProtocol)


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _fetch_rest(client: httpx.Client, url: str, part: Path, max_bytes: int, bar: tqdm) -> None:
    """Ask for what is missing; start over if the server cannot, or has another file by now."""
    had = part.stat().st_size if part.exists() else 0
    headers = {}
    if had and _tag(part).exists():
        # If-Range: the rest of the same file, or all of the new one.
        headers = {"Range": f"bytes={had}-", "If-Range": _tag(part).read_text()}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            complete = response.headers.get("content-range") == f"bytes */{had}"
            if not complete:
                part.unlink()
                raise httpx.ReadError("the part that was here does not fit the file")
            return
        response.raise_for_status()
        start = _start(response)
        if start not in {0, had}:
            raise httpx.ReadError(f"expected bytes from {had}, got them from {start}")
        length = response.headers.get("content-length", "")
        whole = start + int(length) if length.isdecimal() else None
        if whole is not None and whole > max_bytes:
            raise DownloadError(f"{url}: {whole} bytes, larger than {max_bytes}")
        validator = response.headers.get("etag") or response.headers.get("last-modified", "")
        # Without a strong mark, nobody could tell whether the rest is of the same file.
        if validator and not validator.startswith("W/"):
            _tag(part).write_text(validator)
        else:
            _tag(part).unlink(missing_ok=True)
        bar.total = whole
        bar.n = start
        bar.refresh()
        with part.open("ab" if start else "wb") as file:
            for chunk in response.iter_bytes():
                if file.tell() + len(chunk) > max_bytes:
                    raise DownloadError(f"{url}: larger than {max_bytes} bytes")
                file.write(chunk)
                bar.update(len(chunk))


def _start(response: httpx.Response) -> int:
    """First byte of the answer in the whole file."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    span = response.headers.get("content-range", "")  # bytes 100-199/200
    return int(span.removeprefix("bytes ").partition("-")[0])


def _check_sum(file: Path, expected: str | None) -> None:
    if expected is None:
        return
    with file.open("rb") as opened:
        got = hashlib.file_digest(opened, "sha256").hexdigest()
    if got != expected.lower():
        file.unlink()
        raise DownloadError(
            f"{file.name}: expected the SHA-256 {expected.lower()}, got {got}; it was thrown away. "
            "Has the archive changed? Then check it and mend the recipe"
        )
