"""A model of grey photos answers the same on the page, by the API and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from icon_classifier.api.app import create_app
from icon_classifier.api.settings import ApiSettings
from icon_classifier.cli.main import app
from icon_classifier.conversion.convert import convert
from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from icon_classifier.server.visitor import smoke
from tests.support import learners
from tests.support.exports.kinds import GREY, OLD, Notebook
from tests.support.servers import project_copy, voila

PICTURES = sorted([*OLD.glob("*.png"), *OLD.glob("*.jpg")])


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    notebook = Notebook(tmp_path_factory.mktemp("notebook"))
    with learners.quiet():
        path = learners.export(GREY["n_in"](notebook), tmp_path_factory.mktemp("grey"))
    return convert(path)


@pytest.fixture(scope="module")
def answers(export: Path) -> dict[str, tuple[str, float]]:
    model = Model.load(export)
    assert model.info.pipeline.size == (64, 64)
    predictions = {path.name: model.predict(read_image(path.read_bytes())) for path in PICTURES}
    return {name: (each.label, each.probability) for name, each in predictions.items()}


def test_api_answers_photos_of_any_mode_in_one_request(export, answers):
    files = [("photo", (path.name, path.read_bytes())) for path in PICTURES]
    with TestClient(create_app(Model.load(export), ApiSettings(rate=0, threads=1))) as client:
        photos = client.post("/classify", files=files).json()["photos"]
    for photo in photos:
        label, probability = answers[photo["name"]]
        assert photo["predictions"][0]["label"] == label
        assert photo["predictions"][0]["probability"] == pytest.approx(probability, abs=1e-5)
    assert [photo["name"] for photo in photos] == [path.name for path in PICTURES]


def test_command_line_predicts_and_evaluates(export, answers, tmp_path):
    command = ["predict", "--json", "--model", str(export.parent), *map(str, PICTURES)]
    lines = CliRunner().invoke(app, command).stdout.splitlines()
    found = {Path(each["path"]).name: each["label"] for each in map(json.loads, lines)}
    assert found == {name: label for name, (label, _) in answers.items()}
    for path in PICTURES:
        folder = tmp_path / answers[path.name][0]
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    evaluate = ["evaluate", "--json", "--model", str(export.parent), str(tmp_path)]
    assert json.loads(CliRunner().invoke(app, evaluate).stdout)["error"] == 0


@pytest.mark.slow
def test_page_answers_in_a_forked_kernel(export, answers, tmp_path):
    name = "blobs.png"
    with voila(project_copy(tmp_path, export)) as server:
        report = smoke(server.url, OLD / name, answers[name][0])
        assert report.probability == pytest.approx(answers[name][1], abs=1e-3)
        assert "Traceback" not in server.text
