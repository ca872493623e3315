import csv
from pathlib import Path

from PIL import Image

from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.json_lines import append_lines
from icon_classifier.dataset.sources import search
from icon_classifier.dataset.sources.credits import credit_lines, write_credits
from icon_classifier.dataset.sources.download import Timeouts, download_photos
from icon_classifier.dataset.store import PhotoStore
from tests.support.photo_server import PhotoServer, body
from tests.support.pictures import encode, gradient

TIMEOUTS = Timeouts(tries=1, pause=0)


def gathered(server: PhotoServer, root: Path, *found: dict[str, str], label: str = "bear") -> Path:
    """Download one photo for each result of a search, and one that is only in a list."""
    photos = [{**each, "url": server.url(each["url"])} for each in found]
    line = {"label": label, "term": "", "source": "openverse", "page": 1, "last": True}
    append_lines(root / search.RECORD, [{**line, "photos": photos}])
    urls = [*(each["url"] for each in photos), server.url(f"/{label}/listed")]
    for number, url in enumerate(urls):
        picture = gradient(size=(40 + number, 30 + len(label)))
        server.routes[url.removeprefix(server.base)] = body(encode(picture, "WEBP", lossless=True))
    download_photos(urls, label, PhotoStore(root), timeouts=TIMEOUTS, progress=False)
    return root / "photos"


def result(url: str, licence: str = "CC BY 2.0", author: str = "Anna") -> dict[str, str]:
    return {"url": url, "page": f"https://x.example{url}", "licence": licence, "author": author}


def table(photos: Path) -> dict[str, list[str]]:
    with (photos / "credits.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "source", "page", "licence", "author"]
    assert all((photos / row[0]).is_file() for row in rows[1:])
    return {row[2]: [row[1], *row[3:]] for row in rows[1:]}


def test_each_photo_has_one_line(server: PhotoServer, tmp_path: Path) -> None:
    photos = gathered(server, tmp_path, result("/1"), result("/2", "", ""))

    write_credits(photos)

    assert table(photos) == {
        "https://x.example/1": ["openverse", "CC BY 2.0", "Anna"],
        "https://x.example/2": ["openverse", "unknown", ""],
        server.url("/bear/listed"): ["list", "unknown", ""],
    }


def test_licence_that_one_of_two_sources_knows_is_kept(server: PhotoServer, tmp_path: Path) -> None:
    photos = gathered(server, tmp_path, result("/1"))
    unknown = {**result("/1", "", ""), "url": server.url("/1")}
    line = {"label": "bear", "term": "", "source": "ddgs", "page": 1, "last": True}
    append_lines(tmp_path / search.RECORD, [{**line, "photos": [unknown]}])

    write_credits(photos)

    assert table(photos)["https://x.example/1"] == ["openverse", "CC BY 2.0", "Anna"]


def test_rewritten_and_relabelled_photos_keep_their_credit(
    server: PhotoServer, tmp_path: Path
) -> None:
    photos = gathered(server, tmp_path, result("/1"))
    gathered(server, tmp_path, result("/2"), label="cub")
    clean(photos, with_fastai=False, progress=False)  # WebP becomes PNG or JPEG
    moved = next((photos / "bear").glob("*"))
    moved.rename(photos / "cub" / moved.name)

    write_credits(photos)

    assert len(table(photos)) == 4
    assert credit_lines(photos) == [
        "licence CC BY 2.0: 2 photos by Anna",
        "licence unknown: 2 photos",
    ]


def test_table_names_the_files_that_cleaning_left(server: PhotoServer, tmp_path: Path) -> None:
    photos = gathered(server, tmp_path, result("/1"))
    write_credits(photos)
    gathered(server, tmp_path, result("/2"), label="cub")

    clean(photos, with_fastai=False, progress=False)

    with (photos / "credits.csv").open(encoding="utf-8", newline="") as file:
        assert {row["file"] for row in csv.DictReader(file)} == {
            path.relative_to(photos).as_posix() for path in photos.glob("*/*")
        }


def test_name_that_a_spreadsheet_would_run_is_quoted(server: PhotoServer, tmp_path: Path) -> None:
    author = '=HYPERLINK("http://x.example";"Anna, B")'
    photos = gathered(server, tmp_path, result("/1", author=author))

    write_credits(photos)

    assert table(photos)["https://x.example/1"][2] == f"'{author}"
    assert credit_lines(photos)[0] == f"licence CC BY 2.0: 1 photo by {author}"


def test_authors_are_named_once_for_each_licence(server: PhotoServer, tmp_path: Path) -> None:
    photos = gathered(
        server,
        tmp_path,
        result("/1", author="Zoë"),
        result("/2", author="Anna"),
        result("/3", author="Zoë"),
        result("/4", "CC0 1.0", ""),
    )

    assert credit_lines(photos) == [
        "licence CC BY 2.0: 3 photos by Anna, Zoë",
        "licence CC0 1.0: 1 photo",
        "licence unknown: 1 photo",
    ]


def test_photos_of_a_folder_need_no_table(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "bear").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(photos / "bear" / "1.png")

    write_credits(photos)

    assert not (photos / "credits.csv").exists()
    assert credit_lines(photos) == []
