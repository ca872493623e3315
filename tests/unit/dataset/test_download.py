import gzip
import hashlib
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from icon_classifier.dataset.download import Outcome, Patience, download_photos, read_url_list
from icon_classifier.errors import DownloadError
from icon_classifier.images import Limits
from tests.support.photo_server import (
    PhotoHandler,
    PhotoServer,
    Route,
    body,
    endless,
    in_turn,
    photo_server,
    redirect,
    silent,
    status,
    trickle,
    truncated,
)
from tests.support.pictures import encode, gradient

PATIENCE = Patience(connect=10, read=10, total=20, tries=2, pause=0)
IMPATIENT = Patience(connect=10, read=1, total=2, tries=1, pause=0)


@pytest.fixture(name="server")
def _server() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


def photo(seed: int = 0, kind: str = "PNG") -> bytes:
    return encode(Image.new("RGB", (32, 32), (seed, 2 * seed, 99)), kind)


def packed(encoding: str, data: bytes) -> Route:
    def route(handler: PhotoHandler) -> None:
        handler.head(Content_Encoding=encoding, Content_Length=str(len(data)))
        handler.wfile.write(data)

    return route


def get(server: PhotoServer, folder: Path, *paths: str, **options: object) -> list[Outcome]:
    urls = [server.url(path) for path in paths]
    settings = {"patience": PATIENCE, "progress": False, **options}
    return download_photos(urls, "bear", folder, **settings)  # type: ignore[arg-type]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "photos" / "bear").glob("*"))


def test_photos_are_named_by_their_contents(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a.gif?x=1": body(photo(1), "text/html"), "/b": body(photo(2, "JPEG"))}

    first, second = get(server, tmp_path, "/a.gif?x=1", "/b")

    assert first.name == hashlib.sha256(photo(1)).hexdigest()[:20] + ".png"
    assert second.name == hashlib.sha256(photo(2, "JPEG")).hexdigest()[:20] + ".jpg"
    assert files(tmp_path) == sorted([first.name, second.name])
    assert (tmp_path / "photos" / "bear" / first.name).read_bytes() == photo(1)


def test_same_photo_at_two_addresses_comes_once(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": body(photo()), "/b": body(photo())}

    outcomes = get(server, tmp_path, "/a", "/b", "/a")

    assert [each.url for each in outcomes] == [server.url("/a"), server.url("/b")]
    assert len(files(tmp_path)) == 1
    assert server.asked("/a") == 1


BAD: dict[str, tuple[Route, str, bool]] = {
    "missing": (status(404), "HTTP 404 Not Found", False),
    "forbidden": (status(403), "HTTP 403 Forbidden", False),
    "busy": (status(503), "HTTP 503 Service Unavailable", True),
    "empty": (body(b""), r"not a picture \(image/png, 0 bytes\)", False),
    "html": (body(b"<html>sorry</html>", "text/html"), r"not a picture \(text/html", False),
    "named a picture": (body(b"GIF89 not really", "image/gif"), "not a picture", False),
    "svg": (body(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not a picture", False),
    "truncated": (truncated(photo()), "closed connection without sending complete", True),
    "endless": (endless(photo()), "larger than 200000 bytes", False),
    "trickle": (trickle(photo(), 0.05), "not complete after 2 seconds", True),
    "silent": (silent(), r"no answer in time \(ReadTimeout\)", True),
    "announced too large": (
        lambda handler: handler.head(Content_Length="300000"),
        "300000 bytes, larger than 200000",
        False,
    ),
    "bomb": (packed("gzip", gzip.compress(bytes(5_000_000))), "larger than 200000", False),
    "odd packing": (packed("br", b"x"), "packed as br, which was not asked for", False),
    "bad packing": (packed("gzip", b"no gzip"), "an answer that makes no sense", False),
    "loop": (redirect("/photo"), "Exceeded maximum allowed redirects", False),
    "redirect to a file": (redirect("file:///etc/passwd"), "unsupported protocol", False),
}


@pytest.mark.parametrize(("route", "problem", "again"), BAD.values(), ids=BAD)
def test_bad_answer_is_recorded(
    server: PhotoServer, tmp_path: Path, route: Route, problem: str, again: bool
) -> None:
    server.routes = {"/photo": route, "/good": body(photo())}
    limits = Limits(max_bytes=200_000)

    patience = IMPATIENT if "in time" in problem or "not complete after" in problem else PATIENCE

    bad, good = get(server, tmp_path, "/photo", "/good", limits=limits, patience=patience)

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

    assert get(server, tmp_path, "/a")[0].name == files(tmp_path)[0]


def test_failure_that_passes_is_tried_again(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": in_turn(status(503), body(photo())), "/b": status(404)}

    outcomes = get(server, tmp_path, "/a", "/b")

    assert outcomes[0].problem is None
    assert server.asked("/a") == 2
    assert server.asked("/b") == 1


def test_second_run_takes_up_where_the_first_stopped(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": body(photo(1)), "/gone": status(404), "/later": status(503)}
    get(server, tmp_path, "/a", "/gone", "/later")
    server.routes["/later"] = body(photo(2))
    server.routes["/new"] = body(photo(3))
    server.requests.clear()

    outcomes = get(server, tmp_path, "/a", "/gone", "/later", "/new")

    assert sorted(path for path, _ in server.requests) == ["/later", "/new"]
    assert [each.name is not None for each in outcomes] == [True, False, True, True]
    assert len(files(tmp_path)) == 3
    get(server, tmp_path, "/a", "/gone", "/later", "/new")
    assert len(server.requests) == 2


def test_downloads_run_at_once(server: PhotoServer, tmp_path: Path) -> None:
    waiting: list[int] = []

    def together(handler: PhotoHandler) -> None:
        waiting.append(1)
        deadline = time.monotonic() + 5
        # Only answers once four are here: one after the other they would never be.
        while len(waiting) < 4 and not server.stopping.wait(0.005):
            assert time.monotonic() < deadline
        body(photo(len(waiting)))(handler)

    server.routes = {f"/{number}": together for number in range(4)}

    outcomes = get(
        server, tmp_path, *server.routes, max_workers=4, patience=Patience(read=6, total=6)
    )

    assert all(each.name for each in outcomes)


def test_no_workers_show_the_exception(server: PhotoServer, tmp_path: Path) -> None:
    server.routes = {"/a": body(photo()), "/b": truncated(photo()), "/c": body(photo(2))}

    with pytest.raises(DownloadError, match="/b: peer closed connection") as caught:
        get(server, tmp_path, "/a", "/b", "/c", max_workers=0)

    assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
    assert server.asked("/c") == 0
    assert len(files(tmp_path)) == 1


def test_no_network_is_told(server: PhotoServer, tmp_path: Path) -> None:
    # The port was free a moment ago: nobody listens there.
    with photo_server() as gone:
        urls = [gone.url("/a"), gone.url("/b")]

    with pytest.raises(DownloadError, match=r"none of 2 photos of bear .* on the network"):
        download_photos(urls, "bear", tmp_path, patience=PATIENCE, progress=False)


@pytest.mark.parametrize(
    "url", ["ftp://x/y.png", "data:image/png;base64,xx", "http://", "a b", "x"]
)
def test_address_that_is_none(server: PhotoServer, tmp_path: Path, url: str) -> None:
    outcomes = download_photos([url], "bear", tmp_path, patience=PATIENCE, progress=False)

    assert outcomes[0].problem
    assert not outcomes[0].again


def test_no_addresses(tmp_path: Path) -> None:
    assert download_photos([], "bear", tmp_path, progress=False) == []


def test_progress_bar_is_shown(
    server: PhotoServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes = {"/a": body(photo())}

    get(server, tmp_path, "/a", progress=True)

    assert "1/1" in capsys.readouterr().err


def test_every_format_gets_its_suffix(server: PhotoServer, tmp_path: Path) -> None:
    kinds = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "TIFF": ".tif"}
    server.routes = {f"/{kind}": body(encode(gradient(), kind)) for kind in kinds}

    outcomes = get(server, tmp_path, *server.routes)

    assert [Path(each.name or "").suffix for each in outcomes] == list(kinds.values())


def test_url_list_as_the_course_wrote_it(tmp_path: Path) -> None:
    file = tmp_path / "urls_black.txt"
    file.write_bytes("\ufeffhttp://x/1\r\n\r\n# seen\r\nhttp://x/2\r\nhttp://x/1\r\n".encode())

    assert read_url_list(file) == ["http://x/1", "http://x/2"]
    assert read_url_list(file, max_pics=1) == ["http://x/1"]


def test_missing_or_empty_url_list(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"urls_x\.txt cannot be read"):
        read_url_list(tmp_path / "urls_x.txt")
    (tmp_path / "urls_x.txt").write_text("\n# nothing\n")
    with pytest.raises(DownloadError, match=r"urls_x\.txt is empty"):
        read_url_list(tmp_path / "urls_x.txt")


def test_picture_of_the_server_is_whole(server: PhotoServer, tmp_path: Path) -> None:
    large = encode(gradient(size=(900, 700)), "PNG")
    server.routes = {"/large": body(large)}

    name = get(server, tmp_path, "/large")[0].name

    assert name is not None
    kept = (tmp_path / "photos" / "bear" / name).read_bytes()
    assert kept == large
    with Image.open(io.BytesIO(kept)) as image:
        image.load()
