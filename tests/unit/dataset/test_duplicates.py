from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from icon_classifier.dataset.duplicates import Split, group_duplicates, near_duplicates, split
from icon_classifier.dataset.shapes import write_shapes
from icon_classifier.errors import DatasetError


def picture(seed: int, side: int = 200) -> Image.Image:
    """A soft random landscape: like a photo, most of its energy is in low frequencies."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def save(folder: Path, *images: Image.Image) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    return paths


def captioned(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).text((120, 185), "© somebody", fill="white")
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

    assert near_duplicates(paths) == [(0, 2)]
    assert group_duplicates(paths) == [0, 1, 0, 3]


def test_compressed_again_is_found(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.jpg", quality=20)

    assert group_duplicates([tmp_path / "a.png", tmp_path / "b.jpg"]) == [0, 0]


def test_photo_turned_by_exif_is_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    picture(1).rotate(90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture(1).save(tmp_path / "b.png")

    assert group_duplicates([tmp_path / "a.jpg", tmp_path / "b.png"]) == [0, 0]


def test_alike_pictures_are_told_apart(tmp_path: Path) -> None:
    paths = write_shapes(tmp_path, ("circle", "square", "triangle"), per_class=20)

    assert near_duplicates(paths) == []


def test_plain_pictures_are_read(tmp_path: Path) -> None:
    paths = save(tmp_path, Image.new("RGB", (50, 50), "red"), Image.new("L", (50, 50)), picture(1))

    assert group_duplicates(paths)[2] == 2


def test_few_photos() -> None:
    assert near_duplicates([]) == []
    assert group_duplicates([Path("never opened.png")]) == [0]


def test_damaged_photo_is_named(tmp_path: Path) -> None:
    paths = save(tmp_path, picture(1), picture(2))
    paths[1].write_bytes(b"no picture")

    with pytest.raises(DatasetError, match=r"1\.png cannot be compared"):
        group_duplicates(paths)


def test_groups_stay_together() -> None:
    labels = ["a"] * 50 + ["b"] * 50
    groups = [number // 5 * 5 for number in range(100)]  # twenty groups of five
    names = [Path(f"{number}.png") for number in range(100)]

    for seed in range(20):
        parts = split(names, labels, 0.2, seed, groups=groups)
        in_train = {groups[index] for index in parts.train}
        in_valid = {groups[index] for index in parts.valid}
        assert not in_train & in_valid
        assert sorted(parts.train + parts.valid) == list(range(100))
        assert [labels[index] for index in parts.valid].count("a") == 10
        assert len(parts.valid) == 20


def test_same_seed_same_split() -> None:
    names = [Path(f"{number}.png") for number in range(40)]
    labels = ["a", "b"] * 20
    alone = list(range(40))

    first = split(names, labels, seed=1, groups=alone)

    assert first == split(names, labels, seed=1, groups=alone)
    assert first != split(names, labels, seed=2, groups=alone)


def test_split_works_the_groups_out_itself(tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(8)]
    paths = save(tmp_path, *images, *(ImageOps.mirror(image) for image in images))
    labels = ["a", "b"] * 8

    parts = split(paths, labels, 0.25, seed=3)

    assert {index % 8 for index in parts.valid}.isdisjoint({index % 8 for index in parts.train})
    assert len(parts.valid) == 4


def test_each_class_is_on_both_sides() -> None:
    names = [Path(f"{number}.png") for number in range(22)]
    labels = ["many"] * 20 + ["few"] * 2

    parts = split(names, labels, 0.05, groups=list(range(22)))

    assert {labels[index] for index in parts.valid} == {"many", "few"}
    assert {labels[index] for index in parts.train} == {"many", "few"}


def test_class_of_two_large_groups_is_split() -> None:
    names = [Path(f"{number}.png") for number in range(30)]
    labels = ["a"] * 10 + ["b"] * 20
    groups = [0] * 6 + [6] * 4 + list(range(10, 30))

    parts = split(names, labels, 0.2, groups=groups)

    assert [index for index in parts.valid if index < 10] == [6, 7, 8, 9]


def test_class_of_one_picture_is_refused() -> None:
    names = [Path(f"{number}.png") for number in range(13)]

    with pytest.raises(DatasetError, match="too few different photos of a: near-duplicates stay"):
        split(names, ["a"] * 3 + ["b"] * 10, groups=[0, 0, 0, *range(3, 13)])


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_senseless_share_is_refused(share: float) -> None:
    with pytest.raises(DatasetError, match="validation share between 0 and 1"):
        split([Path("a"), Path("b")], ["a", "b"], share, groups=[0, 1])


def test_lengths_must_agree() -> None:
    with pytest.raises(DatasetError, match="got 2 photos, 1 labels and 2 groups"):
        split([Path("a"), Path("b")], ["a"], groups=[0, 1])


def test_split_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Split([0], [1]).train = []  # type: ignore[misc]
