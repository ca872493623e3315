import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from icon_classifier.dataset.download import Patience
from icon_classifier.dataset.resumable import fetch_file
from icon_classifier.errors import DownloadError
from tests.support.photo_server import (
    PhotoServer,
    body,
    endless,
    in_turn,
    photo_server,
    ranged,
    redirect,
    silent,
    status,
)

DATA = bytes(range(256)) * 4000
SUM = hashlib.sha256(DATA).hexdigest()
PATIENCE = Patience(connect=10, read=10, tries=2, pause=0)
IMPATIENT = Patience(connect=10, read=0.3, tries=2, pause=0)


@pytest.fixture(name="server")
def _server() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


def fetch(server: PhotoServer, folder: Path, **options: object) -> Path:
    settings = {"patience": PATIENCE, "progress": False, **options}
    return fetch_file(server.url("/set.zip"), folder / "x" / "set.zip", **settings)  # type: ignore[arg-type]


def ranges(server: PhotoServer) -> list[str | None]:
    return [headers.get("Range") for path, headers in server.requests if path == "/set.zip"]


def test_file_is_fetched(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": redirect("/moved"), "/moved": ranged(DATA)}

    path = fetch(server, tmp_path, sha256=SUM.upper())

    assert path.read_bytes() == DATA
    assert [each.name for each in path.parent.iterdir()] == ["set.zip"]


def test_file_that_is_there_is_not_fetched_again(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": ranged(DATA)}
    fetch(server, tmp_path)

    fetch(server, tmp_path, sha256=SUM)

    assert len(server.requests) == 1


def test_broken_download_goes_on_at_once(server: PhotoServer, tmp_path: Path) -> None:
    # Each answer breaks off, but each brings something: more often than there are tries.
    server.routes = {"/set.zip": ranged(DATA, break_after=300_000)}

    path = fetch(server, tmp_path, sha256=SUM)

    assert path.read_bytes() == DATA
    asked = ranges(server)
    assert asked[0] is None
    assert len(asked) >= 4
    starts = [int(each.removeprefix("bytes=").removesuffix("-")) for each in asked[1:] if each]
    assert starts == sorted(starts)
    assert len(starts) == len(asked) - 1


def test_second_run_goes_on_where_the_first_stopped(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": in_turn(ranged(DATA, break_after=300_000), status(500))}
    with pytest.raises(DownloadError, match=r"set\.zip cannot be downloaded.* Run this again"):
        fetch(server, tmp_path)
    had = (tmp_path / "x" / "set.zip.part").stat().st_size
    server.routes = {"/set.zip": ranged(DATA)}
    server.requests.clear()

    path = fetch(server, tmp_path)

    assert path.read_bytes() == DATA
    assert 0 < had <= 300_000
    assert ranges(server) == [f"bytes={had}-"]


def test_changed_file_is_fetched_from_the_start(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": in_turn(ranged(DATA, break_after=300_000), status(500))}
    with pytest.raises(DownloadError):
        fetch(server, tmp_path)
    server.routes = {"/set.zip": ranged(DATA[::-1], etag='"two"')}

    assert fetch(server, tmp_path).read_bytes() == DATA[::-1]


def test_server_without_ranges_starts_over(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {
        "/set.zip": in_turn(ranged(DATA, break_after=1000), body(DATA, "application/zip"))
    }

    assert fetch(server, tmp_path).read_bytes() == DATA


def test_part_that_is_whole_is_taken(server: PhotoServer, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "set.zip.part").write_bytes(DATA)
    (tmp_path / "x" / "set.zip.part.etag").write_text('"one"')
    server.routes = {"/set.zip": ranged(DATA)}

    assert fetch(server, tmp_path, sha256=SUM).read_bytes() == DATA


def test_part_that_is_too_long_is_thrown_away(server: PhotoServer, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "set.zip.part").write_bytes(DATA + b"more")
    (tmp_path / "x" / "set.zip.part.etag").write_text('"one"')
    server.routes = {"/set.zip": ranged(DATA)}

    assert fetch(server, tmp_path, sha256=SUM).read_bytes() == DATA


def test_part_of_nobody_knows_what_is_not_used(server: PhotoServer, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "set.zip.part").write_bytes(b"of another file")
    server.routes = {"/set.zip": ranged(DATA)}

    assert fetch(server, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None]


def test_wrong_checksum(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": ranged(DATA)}

    with pytest.raises(DownloadError, match=f"expected the SHA-256 {'0' * 64}, got {SUM}"):
        fetch(server, tmp_path, sha256="0" * 64)

    assert not list((tmp_path / "x").glob("*"))


@pytest.mark.parametrize("code", [404, 403])
def test_final_answer_is_not_asked_again(server: PhotoServer, tmp_path: Path, code: int) -> None:
    server.routes = {"/set.zip": status(code)}

    with pytest.raises(DownloadError, match=str(code)):
        fetch(server, tmp_path)

    assert len(server.requests) == 1


def test_busy_server_is_asked_again(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": in_turn(status(503), ranged(DATA))}

    assert fetch(server, tmp_path).read_bytes() == DATA


def test_server_that_does_not_answer(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": silent()}

    with pytest.raises(DownloadError, match="cannot be downloaded: timed out"):
        fetch(server, tmp_path, patience=IMPATIENT)

    assert len(server.requests) == 2


def test_too_large(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": ranged(DATA)}
    with pytest.raises(DownloadError, match="1024000 bytes, larger than 1000"):
        fetch(server, tmp_path, max_bytes=1000)

    server.routes = {"/set.zip": endless(b"PK")}
    with pytest.raises(DownloadError, match="larger than 200000 bytes"):
        fetch(server, tmp_path, max_bytes=200_000)


@pytest.mark.parametrize("url", ["ftp://x/set.zip", "set.zip", "http://"])
def test_address_that_is_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        fetch_file(url, tmp_path / "set.zip", patience=PATIENCE, progress=False)
