from pathlib import Path

from PIL import Image

from icon_classifier.dataset.clean import clean
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import Recipe, Training
from icon_classifier.dataset.store import original_name
from icon_classifier.training.learners import load_photos


def test_sets_of_the_user_s_folder_are_kept(tmp_path: Path) -> None:
    for number, name in enumerate(
        f"{part}/{label}/{part}{number}.png"
        for part, count in (("train", 3), ("valid", 2), ("test", 2))
        for label in ("_cat", "dog")
        for number in range(count)
    ):
        (tmp_path / "given" / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = bytes((number + 1) * (at * at % 251) % 256 for at in range(48))
        image = Image.frombytes("RGB", (4, 4), pixels).resize((40, 40), Image.Resampling.BICUBIC)
        image.save(tmp_path / "given" / name)
    folder = gather(Recipe("own", "Own", "folder"), tmp_path / "work", data=tmp_path / "given")
    cleaned = clean(folder, with_fastai=False, progress=False)

    photos = load_photos(folder, Training(), groups=cleaned.groups)

    assert photos.vocab == ["_cat", "dog"]
    names = [original_name(path) for path in photos.paths]
    assert sorted(names[index] for index in photos.valid) == ["valid0.png"] * 2 + ["valid1.png"] * 2
    assert {names[index][:5] for index in photos.train} == {"train"}
    assert {original_name(path)[:4] for path in cleaned.test} == {"test"}
