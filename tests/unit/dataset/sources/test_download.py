import gzip
import hashlib
import io
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image

from icon_classifier.dataset.sources.download import (
    Outcome,
    Timeouts,
    download_photos,
    fetch_file,
    read_url_list,
)
from icon_classifier.dataset.store import PhotoStore
from icon_classifier.errors import DownloadError
from tests.support.photo_server import (
    PhotoHandler,
    PhotoServer,
    Route,
    body,
    endless,
    in_turn,
    photo_server,
    ranged,
    redirect,
    silent,
    status,
    trickle,
    truncated,
)
from tests.support.pictures import encode, gradient

TIMEOUTS = Timeouts(connect=10, read=10, total=20, tries=2, pause=0)
SHORT = Timeouts(connect=10, read=1, total=2, tries=1, pause=0)

DATA = bytes(range(256)) * 4000
SUM = hashlib.sha256(DATA).hexdigest()


def photo(seed: int = 0, kind: str = "PNG") -> bytes:
    return encode(Image.new("RGB", (32, 32), (seed, 2 * seed, 99)), kind)


def compressed(encoding: str, data: bytes) -> Route:
    def route(handler: PhotoHandler) -> None:
        handler.head(Content_Encoding=encoding, Content_Length=str(len(data)))
        handler.wfile.write(data)

    return route


def download(server: PhotoServer, folder: Path, *paths: str, **options: object) -> list[Outcome]:
    urls = [server.url(path) for path in paths]
    settings = {"timeouts": TIMEOUTS, "progress": False, **options}
    return download_photos(urls, "bear", PhotoStore(folder), **settings)  # type: ignore[arg-type]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "photos" / "bear").glob("*"))


def test_photos_are_named_by_their_contents(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a.gif?x=1": body(photo(1), "text/html"), "/b": body(photo(2, "JPEG"))}

    first, second = download(server, tmp_path, "/a.gif?x=1", "/b")

    assert first.name == hashlib.sha256(photo(1)).hexdigest()[:20] + ".png"
    assert second.name == hashlib.sha256(photo(2, "JPEG")).hexdigest()[:20] + ".jpg"
    assert files(tmp_path) == sorted([first.name, second.name])
    assert (tmp_path / "photos" / "bear" / first.name).read_bytes() == photo(1)


def test_same_photo_at_two_addresses_is_kept_once(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": body(photo()), "/b": body(photo())}

    outcomes = download(server, tmp_path, "/a", "/b", "/a")

    assert [each.url for each in outcomes] == [server.url("/a"), server.url("/b")]
    assert len(files(tmp_path)) == 1
    assert server.asked("/a") == 1


def refuse(code: int, retry_after: str) -> Route:
    return lambda handler: handler.head(code, Retry_After=retry_after, Content_Length="0")


def test_wait_that_a_site_asks_for_is_kept(
    server: PhotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.routes = {"/a": in_turn(refuse(429, "7"), body(photo())), "/b": refuse(503, "3600")}
    waits: list[float] = []
    monkeypatch.setattr("icon_classifier.dataset.sources.download.time.sleep", waits.append)

    first, second = download(server, tmp_path, "/a", "/b", max_workers=1)

    assert first.name
    assert second.again  # the next run asks again
    assert waits == [7]
    assert server.asked("/b") == 1


BAD: dict[str, tuple[Route, str, bool]] = {
    "missing": (status(404), "HTTP 404 Not Found", False),
    "forbidden": (status(403), "HTTP 403 Forbidden", False),
    "busy": (status(503), "HTTP 503 Service Unavailable", True),
    "empty": (body(b""), r"not a picture \(image/png, 0 bytes\)", False),
    "html": (body(b"<html>sorry</html>", "text/html"), r"not a picture \(text/html", False),
    "named a picture": (body(b"GIF89 not really", "image/gif"), "not a picture", False),
    "svg": (body(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not a picture", False),
    "truncated": (truncated(photo()), "closed connection without sending complete", True),
    "endless": (endless(photo()), "larger than 26214400 bytes", False),
    "trickle": (trickle(photo(), 0.05), "not complete after 2 seconds", True),
    "silent": (silent(), r"no answer in time \(ReadTimeout\)", True),
    "announced too large": (
        lambda handler: handler.head(Content_Length="30000000"),
        "30000000 bytes, larger than 26214400",
        False,
    ),
    "bomb": (
        compressed("gzip", gzip.compress(bytes(30_000_000), 1)),
        "larger than 26214400",
        False,
    ),
    "unknown encoding": (
        compressed("br", b"x"),
        "compressed as br, which was not asked for",
        False,
    ),
    "damaged encoding": (compressed("gzip", b"no gzip"), "an invalid answer", False),
    "loop": (redirect("/photo"), "Exceeded maximum allowed redirects", False),
    "redirect to a file": (redirect("file:///etc/passwd"), "unsupported protocol", False),
}


@pytest.mark.parametrize(("route", "problem", "again"), BAD.values(), ids=BAD)
def test_bad_answer_is_recorded(
    server: PhotoServer, tmp_path: Path, route: Route, problem: str, again: bool
) -> None:
    server.routes = {"/photo": route, "/good": body(photo())}
    timeouts = SHORT if "in time" in problem or "not complete after" in problem else TIMEOUTS

    bad, good = download(server, tmp_path, "/photo", "/good", timeouts=timeouts)

    assert good.problem is None
    assert bad.name is None
    assert bad.again is again
    assert bad.problem is not None
    assert re.search(problem, bad.problem)
    assert files(tmp_path) == [good.name]
    lines = (tmp_path / "downloads.jsonl").read_text().splitlines()
    assert {json.loads(line)["problem"] for line in lines} == {None, bad.problem}


def test_redirect_is_followed(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": redirect("/b"), "/b": redirect("/c"), "/c": body(photo())}

    assert download(server, tmp_path, "/a")[0].name == files(tmp_path)[0]


def test_transient_failure_is_retried(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": in_turn(status(503), body(photo())), "/b": status(404)}

    outcomes = download(server, tmp_path, "/a", "/b")

    assert outcomes[0].problem is None
    assert server.asked("/a") == 2
    assert server.asked("/b") == 1


def test_second_run_asks_only_for_what_is_missing(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": body(photo(1)), "/gone": status(404), "/later": status(503)}
    download(server, tmp_path, "/a", "/gone", "/later")
    server.routes["/later"] = body(photo(2))
    server.routes["/new"] = body(photo(3))
    server.requests.clear()

    outcomes = download(server, tmp_path, "/a", "/gone", "/later", "/new")

    assert sorted(path for path, _ in server.requests) == ["/later", "/new"]
    assert [each.name is not None for each in outcomes] == [True, False, True, True]
    assert len(files(tmp_path)) == 3
    download(server, tmp_path, "/a", "/gone", "/later", "/new")
    assert len(server.requests) == 2


def test_downloads_run_in_parallel(server: PhotoServer, tmp_path: Path) -> None:
    waiting: list[int] = []

    def together(handler: PhotoHandler) -> None:
        waiting.append(1)
        deadline = time.monotonic() + 60
        # Answers only when four requests are here, which never happens one by one.
        while len(waiting) < 4 and not server.stopping.wait(0.005):
            assert time.monotonic() < deadline
        body(photo(len(waiting)))(handler)

    server.routes = {f"/{number}": together for number in range(4)}

    outcomes = download(
        server, tmp_path, *server.routes, max_workers=4, timeouts=Timeouts(read=6, total=6)
    )

    assert all(each.name for each in outcomes)


def test_without_workers_the_first_problem_is_raised(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": body(photo()), "/b": truncated(photo()), "/c": body(photo(2))}

    with pytest.raises(DownloadError, match="/b: peer closed connection") as caught:
        download(server, tmp_path, "/a", "/b", "/c", max_workers=0)

    assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
    assert server.asked("/c") == 0
    assert len(files(tmp_path)) == 1


def test_missing_network_is_reported(server: PhotoServer, tmp_path: Path) -> None:
    # The server has ended: nothing listens on its port.
    with photo_server() as gone:
        urls = [gone.url("/a"), gone.url("/b")]

    with pytest.raises(DownloadError, match=r"none of 2 photos of bear .* on the network"):
        download_photos(urls, "bear", PhotoStore(tmp_path), timeouts=TIMEOUTS, progress=False)


@pytest.mark.parametrize(
    "url", ["ftp://x/y.png", "data:image/png;base64,xx", "http://", "a b", "x"]
)
def test_invalid_address_is_recorded(server: PhotoServer, tmp_path: Path, url: str) -> None:
    outcomes = download_photos(
        [url], "bear", PhotoStore(tmp_path), timeouts=TIMEOUTS, progress=False
    )

    assert outcomes[0].problem
    assert not outcomes[0].again


def test_no_addresses_download_nothing(tmp_path: Path) -> None:
    assert download_photos([], "bear", PhotoStore(tmp_path), progress=False) == []


def test_progress_bar_is_shown(
    server: PhotoServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes = {"/a": body(photo())}

    download(server, tmp_path, "/a", progress=True)

    shown = capsys.readouterr().err
    assert "bear" in shown
    assert "100%" in shown


def test_every_format_gets_its_suffix(server: PhotoServer, tmp_path: Path) -> None:
    kinds = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif"}
    server.routes = {f"/{kind}": body(encode(gradient(), kind)) for kind in kinds}

    outcomes = download(server, tmp_path, *server.routes)

    assert [Path(each.name or "").suffix for each in outcomes] == list(kinds.values())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_url_list_of_the_course_is_read(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "urls_black.txt"
    text = "\ufeffhttp://x/1\r\n\r\n# seen\r\nhttp://x/2\r\nhttp://x/1\r\n"
    file.write_bytes(text.encode(encoding))

    assert read_url_list(file) == ["http://x/1", "http://x/2"]


def test_missing_or_empty_url_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"urls_x\.txt cannot be read"):
        read_url_list(tmp_path / "urls_x.txt")
    (tmp_path / "urls_x.txt").write_text("\n# nothing\n")
    with pytest.raises(DownloadError, match=r"urls_x\.txt is empty"):
        read_url_list(tmp_path / "urls_x.txt")


def test_large_photo_is_kept_byte_for_byte(server: PhotoServer, tmp_path: Path) -> None:
    large = encode(gradient(size=(900, 700)), "PNG")
    server.routes = {"/large": body(large)}

    name = download(server, tmp_path, "/large")[0].name

    assert name is not None
    kept = (tmp_path / "photos" / "bear" / name).read_bytes()
    assert kept == large
    with Image.open(io.BytesIO(kept)) as image:
        image.load()


def fetch(server: PhotoServer, folder: Path, **options: object) -> Path:
    settings = {"timeouts": TIMEOUTS, "progress": False, **options}
    return fetch_file(server.url("/set.zip"), folder / "x" / "set.zip", **settings)  # type: ignore[arg-type]


def ranges(server: PhotoServer) -> list[str | None]:
    return [headers.get("Range") for path, headers in server.requests if path == "/set.zip"]


def test_file_is_downloaded(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": redirect("/moved"), "/moved": ranged(DATA)}

    path = fetch(server, tmp_path, sha256=SUM.upper())

    assert path.read_bytes() == DATA
    assert [each.name for each in path.parent.iterdir()] == ["set.zip"]


def test_file_that_exists_is_not_downloaded_again(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": ranged(DATA)}
    fetch(server, tmp_path)

    fetch(server, tmp_path, sha256=SUM)

    assert len(server.requests) == 1


def test_interrupted_download_continues_in_the_same_run(
    server: PhotoServer, tmp_path: Path
) -> None:
    # More interruptions than there are tries, but each answer brings some bytes.
    server.routes = {"/set.zip": ranged(DATA, break_after=300_000)}

    path = fetch(server, tmp_path, sha256=SUM)

    assert path.read_bytes() == DATA
    asked = ranges(server)
    assert asked[0] is None
    assert len(asked) >= 4
    starts = [int(each.removeprefix("bytes=").removesuffix("-")) for each in asked[1:] if each]
    assert starts == sorted(starts)
    assert len(starts) == len(asked) - 1


def test_second_run_continues_where_the_first_stopped(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": in_turn(ranged(DATA, break_after=300_000), status(500))}
    with pytest.raises(
        DownloadError, match=r"set\.zip cannot be downloaded.* Run this again to continue"
    ):
        fetch(server, tmp_path)
    size = (tmp_path / "x" / "set.zip.part").stat().st_size
    server.routes = {"/set.zip": ranged(DATA)}
    server.requests.clear()

    path = fetch(server, tmp_path)

    assert path.read_bytes() == DATA
    assert 0 < size <= 300_000
    assert ranges(server) == [f"bytes={size}-"]


def test_changed_file_is_downloaded_from_the_start(server: PhotoServer, tmp_path: Path) -> None:
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


def test_complete_part_is_used(server: PhotoServer, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "set.zip.part").write_bytes(DATA)
    (tmp_path / "x" / "set.zip.part.etag").write_text('"one"')
    server.routes = {"/set.zip": ranged(DATA)}

    assert fetch(server, tmp_path, sha256=SUM).read_bytes() == DATA


def test_part_that_is_too_long_is_discarded(server: PhotoServer, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "set.zip.part").write_bytes(DATA + b"more")
    (tmp_path / "x" / "set.zip.part.etag").write_text('"one"')
    server.routes = {"/set.zip": ranged(DATA)}

    assert fetch(server, tmp_path, sha256=SUM).read_bytes() == DATA


def test_part_without_an_etag_is_not_used(server: PhotoServer, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "set.zip.part").write_bytes(b"of another file")
    server.routes = {"/set.zip": ranged(DATA)}

    assert fetch(server, tmp_path).read_bytes() == DATA
    assert ranges(server) == [None]


def test_file_with_a_wrong_checksum_is_deleted(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": ranged(DATA)}

    with pytest.raises(DownloadError, match=f"expected the SHA-256 {'0' * 64}, got {SUM}"):
        fetch(server, tmp_path, sha256="0" * 64)

    assert not list((tmp_path / "x").glob("*"))


@pytest.mark.parametrize("code", [404, 403])
def test_permanent_failure_is_not_retried(server: PhotoServer, tmp_path: Path, code: int) -> None:
    server.routes = {"/set.zip": status(code)}

    with pytest.raises(DownloadError, match=str(code)):
        fetch(server, tmp_path)

    assert len(server.requests) == 1


def test_busy_server_is_retried(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": in_turn(status(503), ranged(DATA))}

    assert fetch(server, tmp_path).read_bytes() == DATA


def test_server_that_does_not_answer_is_given_up(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": silent()}

    with pytest.raises(DownloadError, match="cannot be downloaded: timed out"):
        fetch(server, tmp_path, timeouts=replace(TIMEOUTS, read=0.3))

    assert len(server.requests) == 2


def test_file_larger_than_the_limit_is_refused(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/set.zip": ranged(DATA)}
    with pytest.raises(DownloadError, match="1024000 bytes, larger than 1000"):
        fetch(server, tmp_path, max_bytes=1000)

    server.routes = {"/set.zip": endless(b"PK")}
    with pytest.raises(DownloadError, match="larger than 200000 bytes"):
        fetch(server, tmp_path, max_bytes=200_000)


@pytest.mark.parametrize("url", ["ftp://x/set.zip", "set.zip", "http://"])
def test_invalid_address_of_a_file_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DownloadError, match="cannot be downloaded"):
        fetch_file(url, tmp_path / "set.zip", timeouts=TIMEOUTS, progress=False)
