import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from icon_classifier.conversion.convert import convert
from icon_classifier.dataset.recipes import Training, load_recipe
from icon_classifier.errors import DatasetError, RecipeError, TrainingError
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from icon_classifier.training import pretrained, training
from icon_classifier.training.pretrained import Pretrained, check_architecture, load_pretrained
from tests.support.learners import LABELS, TINY, draw_photos, quiet

OPTIONS = Training(architecture=TINY, image_size=32, batch_size=4, epochs=1, frozen_epochs=1)


@pytest.fixture(name="photos", scope="module")
def _photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that no other test adds to."""
    return draw_photos(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="module")
def network() -> Pretrained:
    """A tiny network with random weights: what it sees tells three colours apart all the same."""
    import timm
    import torch

    torch.manual_seed(0)
    half = (0.5, 0.5, 0.5)
    return Pretrained(TINY, "chance", timm.create_model(TINY, pretrained=False).eval(), half, half)


@pytest.fixture(scope="module")
def loaded(photos: Path) -> training.Photos:
    return training.load_photos(photos, OPTIONS, groups=list(range(18)))


@pytest.fixture(scope="module")
def probe(loaded: training.Photos, network: Pretrained) -> training.Probe:
    with quiet():
        return training.train_probe(loaded, OPTIONS, network, progress=False)


def test_probe_tells_colours_apart(probe: training.Probe) -> None:
    assert probe.figures.photos == 18
    assert probe.figures.error < 0.4


@pytest.mark.slow
def test_same_seed_and_data_give_the_same_weights(
    probe: training.Probe, loaded: training.Photos, network: Pretrained
) -> None:
    with quiet():
        again = training.train_probe(loaded, OPTIONS, network, progress=False)
    mine, theirs = probe.learn.model.state_dict(), again.learn.model.state_dict()
    assert all((mine[key] == theirs[key]).all() for key in mine)
    assert again.threshold == probe.threshold


@pytest.mark.slow
def test_plain_training_twice_gives_the_same_weights(
    loaded: training.Photos, network: Pretrained
) -> None:
    states = []
    for _ in range(2):
        with quiet():
            learn = training.plain_learner(loaded, OPTIONS, network)
            training.train_plainly(learn, OPTIONS)
        states.append(learn.model.state_dict())
    assert all((states[0][key] == states[1][key]).all() for key in states[0])
    assert (learn.path / "models" / "best.pth").is_file()


def test_staged_training_leaves_checkpoints(loaded: training.Photos, network: Pretrained) -> None:
    with quiet():
        learn = training.train_staged(training.plain_learner(loaded, OPTIONS, network), OPTIONS)
    saved = {path.stem for path in (learn.path / "models").iterdir()}
    assert {"stage-1", "stage-2"} <= saved
    with quiet():
        assert training.diagnose(learn.recorder)
        assert 0 <= training.judge_learner(learn).error <= 1


def test_export_converts_and_predicts_the_same(
    probe: training.Probe, loaded: training.Photos, tmp_path: Path
) -> None:
    recipe = load_recipe("shapes")
    with quiet():
        export = training.export(probe, recipe, tmp_path / "export.pkl")
        model = Model.load(convert(export))
    assert list(model.labels) == LABELS
    assert model.info.temperature == 1.0  # the head has taken it in
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


def test_classes_table(tmp_path: Path) -> None:
    path = training.write_classes(["a", "b, c"], tmp_path / "classes.csv")
    assert path.read_text().splitlines() == ["index,label", "0,a", '1,"b, c"']


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
def test_bad_folder_is_told_first(tmp_path: Path, make: object, message: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    make(folder)  # type: ignore[operator]
    with pytest.raises(DatasetError, match=message):
        training.load_photos(folder, OPTIONS)


def test_unknown_architecture_is_told_first(photos: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'resnet18'"):
        training.load_photos(photos, replace(OPTIONS, architecture="resnet_18"))


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_known_architectures(name: str) -> None:
    check_architecture(name)


def test_without_a_hub_the_packaged_network_is_taken_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained.urllib.request, "urlopen", refuse)
    found = load_pretrained("resnet18")
    assert found.name == "tf_efficientnet_lite0"
    said = capsys.readouterr().out
    assert "No network for resnet18" in said
    assert "Network: tf_efficientnet_lite0" in said
    with pytest.raises(TrainingError, match="cannot be fetched"):
        load_pretrained("resnet18", offline="resnet18")


RUNS = {
    "rate too high": [(2.0, 90.0), (6.0, 400.0)],
    "rate too low": [(1.2, 1.11), (1.19, 1.1), (1.19, 1.1)],
    "too few epochs": [(1.0, 0.8), (0.7, 0.5)],
    "too many epochs": [(1.0, 0.8), (0.5, 0.4), (0.2, 0.5), (0.05, 0.7)],
    "nothing wrong": [(1.0, 0.5), (0.4, 0.3), (0.3, 0.29)],
}


@pytest.mark.parametrize("kind", RUNS)
def test_diagnosis_of_recorded_curves(kind: str) -> None:
    recorder = SimpleNamespace(
        metric_names=["epoch", "train_loss", "valid_loss", "error_rate", "time"],
        values=[[*losses, 0.1] for losses in RUNS[kind]],
        learn=SimpleNamespace(dls=SimpleNamespace(vocab=LABELS)),
    )
    assert [finding.kind for finding in training.diagnose(recorder)] == [kind]
