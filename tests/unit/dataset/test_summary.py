import io
import re
from pathlib import Path

import pytest
from PIL import Image

from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.json_lines import append_lines
from icon_classifier.dataset.recipes import Recipe
from icon_classifier.dataset.summary import Row, Summary, summarize
from tests.support.pictures import encode


def picture(seed: int) -> bytes:
    pixels = bytes((seed * 31 + at * at * 7) % 256 for at in range(75))
    return encode(Image.frombytes("RGB", (5, 5), pixels).resize((60, 60), Image.Resampling.BICUBIC))


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    """Of a folder with everything that a person should know of."""
    files = {f"train/{label}/{number}.png": 3 * number for number in range(4) for label in ("cat",)}
    files |= {f"train/<dog>/{number}.png": 3 * number + 1 for number in range(4)}
    files |= {"valid/cat/v.png": 20, "test/cat/t.png": 21, "train/cat/copy.png": 0}
    for name, seed in files.items():
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "given" / name).write_bytes(picture(seed))
    small = Image.open(io.BytesIO(picture(1))).resize((40, 40))
    (tmp_path / "given" / "train" / "cat" / "a & b.jpg").write_bytes(encode(small, "JPEG"))
    (tmp_path / "given" / "test" / "cat" / "t2.jpg").write_bytes(encode(small, "JPEG", quality=90))
    (tmp_path / "given" / "train" / "<dog>" / "broken.png").write_bytes(b"broken")
    (tmp_path / "given" / "train" / "cat" / "film.mov").write_bytes(b"film")
    photos = gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=tmp_path / "given")
    return summarize(clean(photos, with_fastai=False, progress=False))


def test_summary_counts_the_photos_of_each_class(summary: Summary) -> None:
    assert summary.rows == (
        Row("<dog>", photos=4, valid=0, test=0, near=1, copies=0, quarantined=1),
        Row("cat", photos=6, valid=1, test=2, near=1, copies=1, quarantined=0),
    )


def test_summary_as_text_names_everything_that_was_left_out(
    summary: Summary, tmp_path: Path
) -> None:
    lines = str(summary).splitlines()

    assert re.split(" {2,}", lines[0]) == [
        *("class", "photos", "of them for validation", "test set"),
        *("near-duplicates", "copies left out", "in quarantine"),
    ]
    assert lines[2].split() == ["cat", "6", "1", "2", "1", "1", "0"]
    assert lines[3:] == [
        "10 photos; their classes are from the folders",
        f"the test set, {tmp_path / 'work' / 'test'}, is not trained on; "
        "it judges the finished model",
        "the test set has no photo of <dog>",
        "near-duplicates stay on one side of the split",
        "1 pair is similar but labelled differently",
        "2 pairs are similar, and one of them is in the test set",
        "1 in quarantine: This file is not a picture that can be read: <dog>/broken.png",
        "1 left out: a copy: train/cat/copy.png",
        "1 left out: not a photo (.mov): train/cat/film.mov",
        f"each with its reason: {tmp_path / 'work' / 'gathered.jsonl'}, "
        f"{tmp_path / 'work' / 'moves.jsonl'}",
        "similar but labelled differently: <dog>/0.png and cat/a_b.jpg",
        "similar, and the second is in the test set: <dog>/0.png and cat/t2.jpg",
        "similar, and the second is in the test set: cat/a_b.jpg and cat/t2.jpg",
    ]


def test_names_that_are_not_unicode_are_escaped(tmp_path: Path) -> None:
    given = tmp_path / "ph\udcff"
    for number in range(4):
        path = given / "ab"[number % 2] / f"{number}\udcff.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(3 * number))
    (given / "a" / "film\udcff.m\udcff").write_bytes(b"film")

    photos = gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=given)
    text = str(summarize(clean(photos, with_fastai=False, progress=False)))

    assert r"1 left out: not a photo (.m\udcff): a/film\udcff.m\udcff" in text
    assert text.isascii()


def test_summary_as_html_has_small_pictures_and_escapes_names(summary: Summary) -> None:
    page = summary._repr_html_()

    assert page.count("<img src=") == 6
    assert page.count("<div") == 7 + 3
    assert "<dog>" not in page
    assert "&lt;dog&gt;/broken.png: This file is not a picture that can be read" in page
    assert len(page) < 100_000


def test_columns_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(3 * number))

    summary = summarize(clean(tmp_path / "photos", with_fastai=False, progress=False))

    assert repr(summary).splitlines()[:3] == ["class  photos", "a           2", "b           2"]


def test_addresses_without_a_photo_and_copies_are_counted(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(3 * number))
    lines = [
        {
            "label": "a",
            "url": f"http://x/{number}",
            "name": name,
            "problem": problem,
            "again": False,
        }
        for number, (name, problem) in enumerate(
            [("0.png", None), ("0.png", None), (None, "http://x/2: HTTP 404 Not Found")]
        )
    ]
    append_lines(tmp_path / "downloads.jsonl", lines)

    summary = summarize(clean(tmp_path / "photos", with_fastai=False, progress=False))

    assert [row.copies for row in summary.rows] == [1, 0]
    assert summary.left_out == {"no photo at the address (HTTP 404 Not Found)": ["http://x/2"]}


def test_changes_since_the_last_run_are_counted(tmp_path: Path) -> None:
    given = tmp_path / "given"
    for number in range(8):
        path = given / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(3 * number))

    def told() -> str:
        photos = gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=given)
        return str(summarize(clean(photos, with_fastai=False, progress=False)))

    assert "since the last run" not in told()
    assert "since the last run" not in told()
    (given / "a" / "0.png").rename(given / "a" / "renamed.png")
    (given / "a" / "2.png").rename(given / "b" / "2.png")
    (given / "b" / "1.png").unlink()
    for number in (20, 21):
        (given / "b" / f"{number}.png").write_bytes(picture(3 * number))
    assert "since the last run: 2 added, 1 removed, 1 moved to another class or set" in told()


def test_few_of_many_files_are_named(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "given" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(3 * number))
    for number in range(5):
        (tmp_path / "given" / "a" / f"{number}.mov").write_bytes(b"film")
    photos = gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=tmp_path / "given")

    summary = summarize(clean(photos, with_fastai=False, progress=False))

    assert "5 left out: not a photo (.mov): a/0.mov, a/1.mov, a/2.mov, …\n" in str(summary)
