import random
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from icon_classifier.dataset.clean import CleanReport, _verify, clean
from icon_classifier.dataset.duplicates import Pair, fingerprint, group_pairs, near_duplicates
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.journal import read_moves
from icon_classifier.dataset.recipes import Recipe
from icon_classifier.dataset.sources.shapes import draw_shapes
from icon_classifier.dataset.splits import split
from icon_classifier.dataset.store import original_name
from icon_classifier.dataset.summary import summarize
from icon_classifier.errors import DatasetError
from icon_classifier.images import read_image_file
from tests.support.costly_pictures import chunk, segment, tiff
from tests.support.pictures import encode, gradient, turned


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A blurred random picture: like a photo, most of its energy is in low frequencies."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def save(folder: Path, **photos: bytes) -> Path:
    """Photos by "label_number_suffix"; returns the folder of photos."""
    for name, data in photos.items():
        label, number, suffix = name.split("_")
        path = folder / "photos" / label / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / "photos"


def good(folder: Path) -> Path:
    return save(
        folder,
        a_1_png=encode(picture(1)),
        a_2_png=encode(picture(2)),
        b_1_png=encode(picture(3)),
        b_2_png=encode(picture(4)),
    )


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))


def test_good_photos_are_not_changed(tmp_path: Path) -> None:
    photos = good(tmp_path)
    before = {path: path.read_bytes() for path in photos.glob("*/*")}

    report = clean(photos, with_fastai=False, progress=False)

    assert {path: path.read_bytes() for path in report.paths} == before
    assert report.labels == ("a", "a", "b", "b")
    assert report.groups == (0, 1, 2, 3)
    assert not report.quarantined
    assert not report.rewritten


def test_bad_photos_go_to_quarantine_with_the_reason(tmp_path: Path) -> None:
    photos = good(tmp_path)
    whole = encode(picture(5), "JPEG")
    bad = {
        "a_html_jpg": b"<html>not found</html>",
        "b_cut_jpg": whole[: len(whole) // 2],
        "b_empty_png": b"",
        "b_header_avif": encode(gradient(), "AVIF").replace(b"iloc", b"xloc"),
    }
    save(tmp_path, **bad)

    report = clean(photos, with_fastai=False, progress=False)

    assert names(tmp_path / "quarantine") == [
        *("a/html.jpg", "b/cut.jpg", "b/empty.png", "b/header.avif"),
    ]
    assert (tmp_path / "quarantine" / "a" / "html.jpg").read_bytes() == bad["a_html_jpg"]
    assert len(report.paths) == 4
    assert [move.reason for move in report.quarantined] == [
        "This file is not a picture that can be read",
        "This picture is damaged or incomplete",
        "This file is empty",
        "This picture is damaged or incomplete",
    ]
    assert read_moves(tmp_path) == list(report.quarantined)


def test_photo_with_broken_exif_is_used_as_it_is(tmp_path: Path) -> None:
    photos = good(tmp_path)
    jpeg, png = encode(picture(5), "JPEG", dpi=(72, 72)), encode(picture(6))
    exif = segment(0xE1, b"Exif\0\0b'Exif\\x00\\x00MM\\x00*'")
    save(
        tmp_path,
        a_quoted_jpg=jpeg[:20] + exif + jpeg[20:],
        b_noise_png=png[:33] + chunk(b"eXIf", b"\0\x08\0\2\1\x12\0\3ab") + png[33:],
    )

    report = clean(photos, with_fastai=False, progress=False)

    assert len(report.paths) == 6
    assert not report.rewritten
    assert report.groups == (0, 1, 2, 3, 4, 5)


def test_most_photos_may_be_broken(tmp_path: Path) -> None:
    photos = good(tmp_path)
    save(tmp_path, **{f"a_{number}x_jpg": b"broken %d" % number for number in range(9)})

    report = clean(photos, with_fastai=False, progress=False)

    assert len(report.quarantined) == 9
    assert len(report.paths) == 4


def test_nothing_is_moved_when_a_class_would_be_empty(tmp_path: Path) -> None:
    photos = good(tmp_path)
    save(tmp_path, c_1_png=b"no picture")

    with pytest.raises(DatasetError, match="no photo of c would be left; nothing was moved"):
        clean(photos, with_fastai=False, progress=False)

    assert len(names(photos)) == 5


def test_same_file_under_two_labels_is_removed_from_both(tmp_path: Path) -> None:
    photos = good(tmp_path)
    placeholder = encode(Image.new("RGB", (50, 50), "gray"))
    save(tmp_path, a_none_png=placeholder, b_none_png=placeholder, b_other_png=placeholder)

    report = clean(photos, with_fastai=False, progress=False)

    assert names(tmp_path / "quarantine") == ["a/none.png", "b/none.png", "b/other.png"]
    assert {move.reason for move in report.quarantined} == {
        "the same file under several labels: a, b"
    }


def test_copy_under_the_same_label_is_removed(tmp_path: Path) -> None:
    photos = good(tmp_path)
    save(tmp_path, a_3_png=encode(picture(1)))

    report = clean(photos, with_fastai=False, progress=False)

    assert [(move.source, move.reason) for move in report.quarantined] == [
        ("photos/a/3.png", "a copy: of 1.png")
    ]


def test_near_duplicates_stay_in_one_group(tmp_path: Path) -> None:
    photos = good(tmp_path)
    save(tmp_path, a_3_jpg=encode(ImageOps.mirror(picture(1)), "JPEG"))
    save(tmp_path, b_3_jpg=encode(picture(2).resize((48, 32)), "JPEG"), b_4_png=encode(picture(6)))

    report = clean(photos, with_fastai=False, progress=False)

    assert report.groups == (0, 1, 0, 3, 4, 1, 6)
    assert report.conflicts == ((photos / "a" / "2.png", photos / "b" / "3.jpg"),)
    parts = split(report.labels, report.groups, 0.3)
    assert {0, 2} <= set(parts.train) or {0, 2} <= set(parts.valid)
    assert {1, 5} <= set(parts.train) or {1, 5} <= set(parts.valid)


PNG = encode(gradient())
LONG_TEXT = chunk(b"zTXt", b"words\0\0" + zlib.compress(bytes(2**21)))
UNUSUAL = {
    "rotated": (turned(6), "jpg", ".jpg"),
    "webp": (encode(gradient(), "WEBP"), "webp", ".jpg"),
    "heic": (encode(gradient(), "HEIF"), "heic", ".jpg"),
    "transparent": (encode(gradient("RGBA")), "png", ".png"),
    "sixteen bits": (encode(gradient("I;16")), "png", ".png"),
    "wrong name": (encode(gradient(), "WEBP"), "jpg", ".jpg"),
    "long text": (PNG[:33] + LONG_TEXT + PNG[33:], "png", ".png"),
    "long text at the end": (PNG[:-12] + LONG_TEXT + PNG[-12:], "png", ".png"),
    "white is zero": (tiff([(262, 3, [0]), (258, 3, [16]), (257, 3, [32])]), "tif", ".png"),
    "no picture's name": (encode(gradient()), "php", ".png"),
}


@pytest.mark.parametrize(("data", "suffix", "new_suffix"), UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_photo_is_rewritten_as_the_page_reads_it(
    tmp_path: Path, data: bytes, suffix: str, new_suffix: str
) -> None:
    photos = good(tmp_path)
    save(tmp_path, **{f"a_odd_{suffix}": data})
    seen = np.asarray(read_image_file(photos / "a" / f"odd.{suffix}"), int)

    report = clean(photos, with_fastai=False, progress=False)

    path = photos / "a" / f"odd{new_suffix}"
    assert path in report.paths
    assert len(report.paths) == 5
    with Image.open(path) as image:
        plain = np.asarray(image, int)
    assert plain.shape == seen.shape
    assert np.abs(plain - seen).mean() < 2
    assert (tmp_path / "originals" / "a" / f"odd.{suffix}").read_bytes() == data
    again = clean(photos, with_fastai=False, progress=False)
    assert not again.rewritten
    assert again.paths == report.paths


def test_rewritten_photo_never_replaces_another(tmp_path: Path) -> None:
    photos = good(tmp_path)
    other = encode(picture(7), "JPEG")
    save(tmp_path, a_x_webp=encode(gradient(), "WEBP"), a_x_jpg=other, a_x_heic=turned(6))

    report = clean(photos, with_fastai=False, progress=False)

    assert (photos / "a" / "x.jpg").read_bytes() == other
    assert {path.name for path in report.paths if path.parent.name == "a"} == {
        "1.png",
        "2.png",
        "x.jpg",
        "x-1.jpg",
        "x-2.jpg",
    }
    assert len(report.groups) == 7


def test_cleaning_the_same_folder_again_has_the_same_result(tmp_path: Path) -> None:
    given = good(tmp_path / "given")
    save(tmp_path / "given", a_bad_jpg=b"bad", a_odd_webp=encode(gradient(), "WEBP"))
    recipe = Recipe("own", "Own", "folder")

    def run() -> CleanReport:
        return clean(
            gather(recipe, tmp_path / "work", data=given), with_fastai=False, progress=False
        )

    first, again = run(), run()

    assert again.paths == first.paths
    assert [move.target for move in again.quarantined] == [
        move.target for move in first.quarantined
    ]
    assert len(list(tmp_path.glob("work/quarantine/*/*"))) == 1


def test_photo_above_the_limits_goes_to_quarantine(tmp_path: Path) -> None:
    photos = good(tmp_path)
    save(tmp_path, a_large_png=encode(Image.new("1", (8000, 7000))))

    report = clean(photos, with_fastai=False, progress=False)

    assert [move.source for move in report.quarantined] == ["photos/a/large.png"]


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there are no photos in .*one folder for each class"):
        clean(tmp_path, with_fastai=False)


def test_photo_that_fastai_cannot_open_goes_to_quarantine(tmp_path: Path) -> None:
    photos = good(tmp_path)

    assert len(clean(photos, progress=False).paths) == 4
    # fastai opens whatever passes our check, so a bad photo is added after it.
    save(tmp_path, a_bad_jpg=b"no picture")
    moves = _verify(photos)

    assert [(move.source, move.reason) for move in moves] == [
        ("photos/a/bad.jpg", "fastai cannot open it")
    ]
    assert names(tmp_path / "quarantine") == ["a/bad.jpg"]


def test_copy_of_a_test_photo_is_not_trained_on(tmp_path: Path) -> None:
    photos = good(tmp_path)
    copy, near = encode(picture(1)), encode(picture(3), "JPEG")
    for name, data in {"a/x.png": copy, "b/y.jpg": near, "b/broken.png": b""}.items():
        (tmp_path / "test" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / name).write_bytes(data)
    (tmp_path / "test" / "b" / "z.png").write_bytes(encode(picture(9)))

    report = clean(photos, with_fastai=False, progress=False)

    assert [(move.source, move.reason) for move in report.quarantined] == [
        ("test/b/broken.png", "This file is empty"),
        ("photos/a/1.png", "a copy: of x.png"),
    ]
    assert [path.name for path in report.test] == ["x.png", "y.jpg", "z.png"]
    assert report.test_copies == ((photos / "b" / "1.png", tmp_path / "test" / "b" / "y.jpg"),)
    assert report.groups == (0, 1, 2)
    assert report.labels == ("a", "b", "b")


SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".avif", ".heic", "", ".jpg_large", ".mov")


def damage(data: bytes, rng: random.Random) -> bytes:
    """Change, remove or add some bytes, near the start more often than not."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(rng.choice((40, 200, len(damaged))))
        removed, added = rng.choice(((4, 4), (4, 0), (0, 4), (len(damaged), 0)))
        value = rng.choice((rng.randbytes(4), bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"))
        damaged[at : at + removed] = value[:added]
        damaged = damaged or bytearray(1)
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_damaged_photos_never_end_a_run(tmp_path: Path, kind: str) -> None:
    given, rng = tmp_path / "given", random.Random(f"damaged {kind}")
    for number, label in enumerate("aabb"):
        (given / label).mkdir(parents=True, exist_ok=True)
        (given / label / f"{number}.png").write_bytes(encode(picture(number)))
    whole = encode(picture(9).resize((48, 32)), kind)
    for number in range(30):
        name = f"damaged{number}{rng.choice(SUFFIXES)}"
        (given / rng.choice("ab") / name).write_bytes(damage(whole, rng))

    photos = gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=given)
    report = clean(photos, with_fastai=False, progress=False)

    assert report.quarantined
    assert {"0.png", "1.png", "2.png", "3.png"} <= set(map(original_name, report.paths))
    for path in report.paths:
        with Image.open(path) as image:  # as fastai will
            image.convert("RGB")
    assert "object at" not in str(summarize(report))


def square(seed: int) -> Image.Image:
    return picture(seed, (200, 200))


def save_numbered(folder: Path, *images: Image.Image) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return paths


def pairs(*paths: Path) -> list[Pair]:
    return near_duplicates([fingerprint(read_image_file(path)) for path in paths])


def captioned(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).text((120, 185), "© someone", fill="white")
    return image


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.copy(),
        lambda image: image.resize((90, 90)),
        lambda image: ImageOps.mirror(image),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.crop((4, 4, 196, 196)),
        captioned,
    ],
    ids=["copy", "smaller", "mirrored", "darker", "cropped", "captioned"],
)
def test_near_duplicate_is_found(
    tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    paths = save_numbered(tmp_path, square(1), square(2), change(square(1)), square(3))

    assert pairs(*paths) == [(0, 2)]


def test_recompressed_photo_is_found(tmp_path: Path) -> None:
    square(1).save(tmp_path / "a.png")
    square(1).save(tmp_path / "b.jpg", quality=20)

    assert pairs(tmp_path / "a.png", tmp_path / "b.jpg") == [(0, 1)]


def test_photo_rotated_by_exif_is_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed rotated clockwise by 90 degrees
    square(1).rotate(90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    square(1).save(tmp_path / "b.png")

    assert pairs(tmp_path / "a.jpg", tmp_path / "b.png") == [(0, 1)]


def test_similar_pictures_are_no_duplicates(tmp_path: Path) -> None:
    drawn = draw_shapes(("circle", "square", "triangle"), per_class=20)
    paths = save_numbered(tmp_path, *(image for _, image in drawn))

    assert pairs(*paths) == []


def test_plain_pictures_are_compared(tmp_path: Path) -> None:
    paths = save_numbered(
        tmp_path, Image.new("RGB", (50, 50), "red"), Image.new("L", (50, 50)), square(1)
    )

    assert all(2 not in pair for pair in pairs(*paths))


def test_one_photo_is_in_no_pair() -> None:
    assert near_duplicates([fingerprint(square(1))]) == near_duplicates([]) == []
    assert group_pairs(1, []) == [0]


def test_chain_of_duplicates_is_one_group() -> None:
    assert group_pairs(5, [(0, 4), (2, 4)]) == [0, 1, 0, 3, 0]
