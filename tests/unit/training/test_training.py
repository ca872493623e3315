import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from icon_classifier.conversion.convert import convert
from icon_classifier.dataset.recipes import Training, load_recipe
from icon_classifier.errors import ConversionError, DatasetError, RecipeError, TrainingError
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from icon_classifier.training import pretrained
from icon_classifier.training.learners import Photos, load_photos
from icon_classifier.training.lesson.diagnosis import diagnose
from icon_classifier.training.lesson.fine_tuning import plain_learner, train_plain
from icon_classifier.training.pretrained import Pretrained, check_architecture, load_pretrained
from icon_classifier.training.training import Probe, evaluate_learner, export_probe, train_probe
from tests.support.learners import LABELS, TINY, draw_photos, quiet

OPTIONS = Training(
    architecture=TINY, image_size=32, resize="crop", batch_size=4, epochs=1, frozen_epochs=1
)


@pytest.fixture(name="photos", scope="module")
def _photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that no other module adds to."""
    return draw_photos(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def network() -> Pretrained:
    """A tiny network with random weights, whose features still distinguish three colours."""
    import timm
    import torch

    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    return Pretrained(
        TINY, "random weights", timm.create_model(TINY, pretrained=False).eval(), half, half
    )


@pytest.fixture(scope="module")
def loaded(photos: Path) -> Photos:
    return load_photos(photos, OPTIONS, groups=list(range(18)))


@pytest.fixture(scope="module")
def probe(loaded: Photos, network: Pretrained) -> Probe:
    with quiet():
        return train_probe(loaded, OPTIONS, network, progress=False)


def test_probe_learns_colours(probe: Probe) -> None:
    assert probe.figures.photos == 18
    assert probe.figures.error < 0.4


@pytest.mark.slow
def test_same_seed_and_data_give_the_same_weights(
    probe: Probe, loaded: Photos, network: Pretrained
) -> None:
    with quiet():
        again = train_probe(loaded, OPTIONS, network, progress=False)
    mine, theirs = probe.learn.model.state_dict(), again.learn.model.state_dict()
    assert all((mine[key] == theirs[key]).all() for key in mine)
    assert again.threshold == probe.threshold


@pytest.mark.slow
def test_plain_training_twice_gives_the_same_weights(loaded: Photos, network: Pretrained) -> None:
    states = []
    for _ in range(2):
        with quiet():
            learn = plain_learner(loaded, OPTIONS, network)
            train_plain(learn, OPTIONS)
        states.append(learn.model.state_dict())
    assert all((states[0][key] == states[1][key]).all() for key in states[0])
    assert (learn.path / "models" / "best.pth").is_file()
    assert diagnose(learn.recorder) != "rate too high"
    assert 0 <= evaluate_learner(learn).error <= 1


@pytest.mark.slow
def test_export_converts_and_predicts_the_same(
    probe: Probe, loaded: Photos, tmp_path: Path
) -> None:
    recipe = load_recipe("shapes")
    with quiet():
        export = export_probe(probe, recipe, tmp_path / "export.pkl")
        model = Model.load(convert(export))
    assert list(model.labels) == LABELS
    assert model.info.temperature == 1.0  # the head has absorbed it
    assert model.info.threshold == pytest.approx(probe.threshold)
    path = loaded.paths[4]
    with quiet():
        label, _, probabilities = probe.learn.predict(path)
    answer = model.predict(read_image_file(path))
    assert answer.label == label
    assert answer.probability == pytest.approx(float(probabilities.max()), abs=1e-4)
    card = (tmp_path / "export.md").read_text()
    assert recipe.use in card
    assert "attribute of people" in card
    json.dumps(probe.learn.icon_classifier)  # builtins only


def test_compiled_model_says_not_sure_by_the_same_score(
    probe: Probe, loaded: Photos, tmp_path: Path
) -> None:
    with quiet():
        export = export_probe(probe, load_recipe("shapes"), tmp_path / "export.pkl")
        model = Model.load(convert(export))
    own = [model.predict(read_image_file(path)) for path in loaded.paths]
    assert [each.score for each in own] == pytest.approx([1.0] * 18, abs=2e-3)
    assert all(each.known for each in own)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[::8] = 255
    assert not model.predict(Image.fromarray(stripes)).known


@pytest.mark.slow
def test_export_keeps_the_ranges_of_8_bit_integers(
    probe: Probe, loaded: Photos, tmp_path: Path
) -> None:
    """The 18 photos are too few: each gets a mirror image."""
    for path in loaded.paths:
        target = tmp_path / "photos" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.save(target)
            ImageOps.mirror(image).save(target.with_stem(f"{path.stem}-mirrored"))
    paths = sorted((tmp_path / "photos").rglob("?.png"))
    copy = replace(probe, photos=replace(loaded, paths=paths))
    with quiet():
        export = export_probe(copy, load_recipe("shapes"), tmp_path / "export.pkl", int8=True)
    model = Model.load(convert(export))
    assert model.info.raw["int8"]["photos"] == 18
    assert f"\nTrained {model.info.raw['trained']}." in (tmp_path / "export.md").read_text()
    before = export.read_bytes()
    with quiet(), pytest.raises(ConversionError, match="at least 20 different photos, got 18"):
        export_probe(probe, load_recipe("shapes"), export, int8=True)
    assert export.read_bytes() == before


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_photos_train_to_the_end(tmp_path: Path, network: Pretrained, count: int) -> None:
    folder = draw_photos(tmp_path / "photos")
    for label in LABELS:
        for path in sorted((folder / label).iterdir())[count:]:
            path.unlink()
    few = load_photos(folder, OPTIONS, groups=list(range(3 * count)))
    with quiet():
        probe = train_probe(few, replace(OPTIONS, batch_size=32), network, progress=False)
        model = Model.load(
            convert(export_probe(probe, load_recipe("shapes"), tmp_path / "export.pkl"))
        )
    assert model.info.figures["photos"] == 3 * count
    low, high = model.info.figures["interval"]
    assert high - low > 0.2  # so little is known
    assert f"({count}-fold" in (tmp_path / "export.md").read_text()


def test_unbalanced_photos_are_reported_before_training(
    tmp_path: Path, network: Pretrained, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = draw_photos(tmp_path / "photos")
    for path in sorted((folder / "green").iterdir())[2:]:
        path.unlink()
    photos = load_photos(folder, OPTIONS, groups=list(range(14)))
    probe = train_probe(photos, OPTIONS, network, progress=False)
    assert "Unbalanced: 6 photos of blue, only 2 of green." in capsys.readouterr().out
    assert 0 <= probe.figures.mean_recall <= 1


@pytest.mark.slow
def test_size_and_resizing_are_chosen_where_they_are_open(
    loaded: Photos, network: Pretrained, tmp_path: Path
) -> None:
    with quiet():
        probe = train_probe(
            loaded, replace(OPTIONS, image_size=None), network, cache=tmp_path, progress=False
        )
    assert probe.training.image_size in (224, 320, 448)
    assert probe.training.resize in ("crop", "squish")
    batch, _ = probe.learn.dls.valid.one_batch()
    assert batch.shape[-2:] == (probe.training.image_size,) * 2


def _missing(folder: Path) -> None:
    folder.rmdir()


def _empty_class(folder: Path) -> None:
    (folder / "cat").mkdir()
    (folder / "dog").mkdir()
    (folder / "dog" / "1.png").write_bytes(b"x")


def _one_class(folder: Path) -> None:
    (folder / "dog").mkdir()
    (folder / "dog" / "1.png").write_bytes(b"x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, "no folder"),
        (_empty_class, "no photos of cat"),
        (_one_class, "at least two classes"),
        (lambda folder: None, "at least two classes"),
    ],
)
def test_bad_folder_is_refused(tmp_path: Path, make: object, message: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    make(folder)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=message):
        load_photos(folder, OPTIONS, groups=())


def test_unknown_architecture_is_refused(photos: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'resnet18'"):
        load_photos(photos, replace(OPTIONS, architecture="resnet_18"), groups=())


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_known_architecture_is_accepted(name: str) -> None:
    check_architecture(name)


def test_without_a_hub_the_packaged_network_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained.urllib.request, "urlopen", refuse)
    found = load_pretrained("resnet18")
    assert found.name == "tf_efficientnet_lite0"
    printed = capsys.readouterr().out
    assert printed.startswith(
        "The weights of resnet18 cannot be downloaded; training tf_efficientnet_lite0 instead.\n"
        "Network: tf_efficientnet_lite0"
    )
    with pytest.raises(TrainingError, match="cannot be fetched"):
        load_pretrained("resnet18", offline="resnet18")


def test_label_may_start_with_an_underscore(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path)
    (photos / "blue").rename(photos / "_blue")
    assert load_photos(photos, OPTIONS, groups=list(range(18))).vocab == ["_blue", "green", "red"]
