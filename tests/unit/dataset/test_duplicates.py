from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from icon_classifier.dataset.duplicates import Pair, fingerprint, group_pairs, near_duplicates
from icon_classifier.dataset.sources.shapes import draw_shapes
from icon_classifier.images import read_image_file


def picture(seed: int, side: int = 200) -> Image.Image:
    """A blurred random picture: like a photo, most of its energy is in low frequencies."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def save(folder: Path, *images: Image.Image) -> list[Path]:
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
    paths = save(tmp_path, picture(1), picture(2), change(picture(1)), picture(3))

    assert pairs(*paths) == [(0, 2)]


def test_recompressed_photo_is_found(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.jpg", quality=20)

    assert pairs(tmp_path / "a.png", tmp_path / "b.jpg") == [(0, 1)]


def test_photo_rotated_by_exif_is_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # displayed rotated clockwise by 90 degrees
    picture(1).rotate(90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture(1).save(tmp_path / "b.png")

    assert pairs(tmp_path / "a.jpg", tmp_path / "b.png") == [(0, 1)]


def test_similar_pictures_are_no_duplicates(tmp_path: Path) -> None:
    drawn = draw_shapes(("circle", "square", "triangle"), per_class=20)
    paths = save(tmp_path, *(image for _, image in drawn))

    assert pairs(*paths) == []


def test_plain_pictures_are_compared(tmp_path: Path) -> None:
    paths = save(tmp_path, Image.new("RGB", (50, 50), "red"), Image.new("L", (50, 50)), picture(1))

    assert all(2 not in pair for pair in pairs(*paths))


def test_one_photo_is_in_no_pair() -> None:
    assert near_duplicates([fingerprint(picture(1))]) == near_duplicates([]) == []
    assert group_pairs(1, []) == [0]


def test_chain_of_duplicates_is_one_group() -> None:
    assert group_pairs(5, [(0, 4), (2, 4)]) == [0, 1, 0, 3, 0]
