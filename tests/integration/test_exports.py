"""Whatever export.pkl a notebook of fastai wrote converts and answers like its Learner."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from icon_classifier.api.app import create_app
from icon_classifier.api.settings import ApiSettings
from icon_classifier.cli.main import app
from icon_classifier.cli.smoke import smoke
from icon_classifier.conversion.convert import convert
from icon_classifier.errors import UnsupportedLearnerError
from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from tests.support import learners
from tests.support.exports.kinds import GREY, OLD, PICTURES, Notebook, learners_by_kind
from tests.support.exports.refused import REFUSED
from tests.support.servers import project_copy, voila

KINDS = learners_by_kind()
PHOTOS = sorted([*OLD.glob("*.png"), *OLD.glob("*.jpg")])
"""Of any mode."""
RECORDED = json.loads((OLD / "answers.json").read_text())
"""Labels and probabilities of older versions of fastai; make_old.py wrote them."""

INSTRUCTION = re.compile(
    r"; (build|call|give|leave|let|make|set|train|use|if it is for training only, run) "
    r"|this project is for one label a photo"
)
"""What every refusal must tell: what to do, or what this project is for."""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are so small that threads only wait for each other
    yield Notebook(tmp_path_factory.mktemp("notebook"))
    torch.set_num_threads(threads)


def answer(model: Model, picture: Path) -> list[float]:
    """Return the probabilities of a converted model, in the order of its labels."""
    ranking = dict(model.predict(read_image(picture.read_bytes())).ranking)
    return [ranking[label] for label in model.labels]


def predict(learn: Any, picture: Path) -> list[float]:
    """Return the probabilities of `Learner.predict`.

    It fails where the loss cannot decode, and does not take the softmax that such a loss implies;
    with a loss for several labels a photo it shows sigmoids.
    """
    learn.model.float()
    sigmoid = type(learn.loss_func).__name__ == "BCEWithLogitsLossFlat"
    with learners.quiet(), learn.no_bar(), learn.no_logging():
        if hasattr(learn.loss_func, "decodes") and not sigmoid:
            return learn.predict(picture)[2].tolist()
        batch = learn.dls.test_dl([picture], num_workers=0)
        outputs, _ = learn.get_preds(dl=batch, act=lambda logits: logits)
    return outputs[0].softmax(-1).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_export_converts_and_answers_like_learner_predict(kind, notebook, tmp_path):
    notebook.set_seed(0)
    with learners.quiet():
        learn = KINDS[kind](notebook)
    export = learners.export(learn, tmp_path)
    model = Model.load(convert(export))
    assert list(model.labels) == [str(label) for label in learn.dls.vocab]
    with learners.quiet():
        theirs = notebook.load_learner(export)
    tolerance = 1e-3 if kind.startswith("presizing") else 2e-5
    for picture in PICTURES:
        assert answer(model, picture) == pytest.approx(predict(theirs, picture), abs=tolerance)


def test_learner_without_a_resize_gets_the_size_that_networks_are_trained_for(notebook, tmp_path):
    with learners.quiet():
        dls = notebook.ImageDataLoaders.from_folder(notebook.same_size, valid_pct=0.2, bs=4)
        export = learners.export(notebook.cnn(dls), tmp_path)
        theirs = notebook.load_learner(export)
    model = Model.load(convert(export))
    sized = tmp_path / "sized.png"
    with Image.open(PICTURES[0]) as picture:
        picture.resize(model.info.pipeline.size).save(sized)
    assert answer(model, sized) == pytest.approx(predict(theirs, sized), abs=2e-5)


@pytest.mark.parametrize("name", RECORDED)
def test_export_of_an_older_fastai_answers_as_it_did_there(name, tmp_path):
    model = Model.load(convert(OLD / name, tmp_path / "export.onnx"))
    assert list(model.labels) == RECORDED[name]["labels"]
    for picture, probabilities in RECORDED[name]["pictures"].items():
        # Older Pillow decodes JPEG otherwise, and rounds some pixels otherwise when it resizes.
        tolerance = 0.02 if picture.endswith("jpg") else 1e-3
        assert answer(model, OLD / picture) == pytest.approx(probabilities, abs=tolerance), picture


@pytest.mark.parametrize("kind", REFUSED)
def test_other_learner_is_refused_in_words(kind, notebook, tmp_path):
    make, words = REFUSED[kind]
    with learners.quiet():
        export = learners.export(make(notebook), tmp_path)
    with pytest.raises(UnsupportedLearnerError) as refusal:
        convert(export)
    message = str(refusal.value)
    assert not [word for word in words if word not in message], message
    assert INSTRUCTION.search(message), message
    assert "?" not in message
    assert not (tmp_path / "export.onnx").exists()


@pytest.fixture(scope="module")
def grey(notebook: Notebook, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the model of a network that takes grey photos."""
    with learners.quiet():
        path = learners.export(GREY["n_in"](notebook), tmp_path_factory.mktemp("grey"))
    return convert(path)


@pytest.fixture(scope="module")
def answers(grey: Path) -> dict[str, tuple[str, float]]:
    model = Model.load(grey)
    assert model.info.pipeline.size == (64, 64)
    predictions = {path.name: model.predict(read_image(path.read_bytes())) for path in PHOTOS}
    return {name: (each.label, each.probability) for name, each in predictions.items()}


def test_api_answers_photos_of_any_mode_by_a_grey_model(grey, answers):
    files = [("photo", (path.name, path.read_bytes())) for path in PHOTOS]
    with TestClient(create_app(Model.load(grey), ApiSettings(rate=0, threads=1))) as client:
        photos = client.post("/classify", files=files).json()["photos"]
    for photo in photos:
        label, probability = answers[photo["name"]]
        assert photo["predictions"][0]["label"] == label
        assert photo["predictions"][0]["probability"] == pytest.approx(probability, abs=1e-5)
    assert [photo["name"] for photo in photos] == [path.name for path in PHOTOS]


def test_command_line_predicts_and_evaluates_by_a_grey_model(grey, answers, tmp_path):
    command = ["predict", "--json", "--model", str(grey.parent), *map(str, PHOTOS)]
    lines = CliRunner().invoke(app, command).stdout.splitlines()
    found = {Path(each["path"]).name: each["label"] for each in map(json.loads, lines)}
    assert found == {name: label for name, (label, _) in answers.items()}
    for path in PHOTOS:
        folder = tmp_path / answers[path.name][0]
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    evaluate = ["evaluate", "--json", "--model", str(grey.parent), str(tmp_path)]
    assert json.loads(CliRunner().invoke(app, evaluate).stdout)["error"] == 0


@pytest.mark.slow
def test_page_answers_by_a_grey_model(grey, answers, tmp_path):
    name = "blobs.png"
    with voila(project_copy(tmp_path, grey)) as server:
        report = smoke(server.url, OLD / name, answers[name][0])
        assert report.probability == pytest.approx(answers[name][1], abs=1e-3)
        assert "Traceback" not in server.text
