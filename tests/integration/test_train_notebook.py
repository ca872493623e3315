"""train.ipynb run as `make train` runs it, on a folder of shapes: from pictures to a prediction."""

import contextlib
import io
import json
import os
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image, ImageDraw

from icon_classifier.conversion.convert import convert
from icon_classifier.dataset.gather import gather
from icon_classifier.dataset.recipes import load_recipe
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from scripts.environment import ROOT
from scripts.train import train


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executed notebook; its model lies beside it, and a folder of photos in data/."""
    folder = tmp_path_factory.mktemp("train")
    shutil.copytree(gather(load_recipe("shapes"), folder / "drawn"), folder / "data" / "shapes")
    for drawn in sorted((folder / "data" / "shapes").glob("*/*"))[::20]:
        test = folder / "data" / "shapes" / "test" / drawn.parent.name / drawn.name
        test.parent.mkdir(parents=True, exist_ok=True)
        drawn.rename(test)
    for name in ("circle", "hexagon"):  # what visitors gave; there is no such class as the second
        (folder / "feedback" / name).mkdir(parents=True)
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).ellipse((10, 10, 50, 50), "red")
        picture.save(folder / "feedback" / name / "given.jpg")
    parameters = {
        "recipe": "shapes",
        "data": str(folder / "data" / "shapes"),
        "folder": str(folder / "data" / "shapes"),  # as where it is data/shapes of the project
        "further": str(folder / "feedback"),
        "target": str(folder),
        "epochs": 1,
        "compare": True,
        "lessons": False,  # four more trainings; diagnose is tested on recorded curves
    }
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        # One thread: on a busy machine several wait for each other at every layer.
        patch.setenv("OMP_NUM_THREADS", "1")
        executed = train(parameters, folder / "report.html")
    (folder / "report.ipynb").write_text(nbformat.writes(executed))
    (folder / "shown.txt").write_text(shown.getvalue())
    return folder / "report.ipynb"


def outputs(report: Path) -> list[dict[str, Any]]:
    cells = json.loads(report.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [output for cell in code for output in cell["outputs"]]


def printed(report: Path) -> str:
    return "".join("".join(output.get("text", "")) for output in outputs(report))


def test_report_says_what_it_takes_how_good_it_is_and_what_to_do_next(report: Path) -> None:
    text = printed(report)
    assert re.search("^(No GPU, |GPU: )", text, re.MULTILINE)
    assert "mean recall of the classes" in text
    assert re.search("wrong after fine-tuning, [0-9]+ by this model", text)
    assert re.search("^[0-9]+ wrong, [0-9]+ doubtful", text, re.MULTILINE)
    assert re.search(
        "None of [0-9]+ photos is wrong|trained on half of them, the model gets [0-9]+ of", text
    )
    assert "There is no model of these classes to compare with." in text
    assert f"make release-model EXPORT={os.path.relpath(report.parent)}/export.pkl" in text


def test_terminal_shows_each_step_what_was_gathered_and_the_outcome(report: Path) -> None:
    lines = report.with_name("shown.txt").read_text().splitlines()
    assert {"What to train", "Gather and look", "Train the model", "Export"} <= set(lines)
    assert any(line.endswith(" photos; their classes are from the folders") for line in lines)
    assert lines[-2].startswith("The model, ")
    assert lines[-1].startswith("To make it the page's model: make release-model ")
    assert not [line for line in lines if "Figure" in line or "Output()" in line]


def test_folder_of_the_user_is_written_to_in_gathered_alone(report: Path) -> None:
    own = report.parent / "data" / "shapes"
    assert {path.name for path in own.iterdir()} == {
        *("circle", "square", "triangle", "test"),
        "gathered",
    }
    assert (own / "gathered" / "features").is_dir()


def test_photos_of_a_test_folder_are_judged(report: Path) -> None:
    assert re.search("^Test set: ", printed(report), re.MULTILINE)


def test_every_plot_of_the_report_is_a_figure_of_its_own(report: Path) -> None:
    pictures = [output for output in outputs(report) if "image/png" in output.get("data", {})]
    # A batch, loss curves, confusion, reliability, doubtful photos and the learning curve.
    assert len(pictures) == 6
    assert report.with_suffix(".html").read_text().count('src="data:image/png') == 6


def test_photos_of_visitors_are_trained_on(report: Path) -> None:
    photos = sorted((report.parent / "data" / "shapes" / "gathered" / "photos").glob("*/*given*"))
    assert [path.parent.name for path in photos] == ["circle"]
    assert "further files of no class were left out, in: hexagon (1)" in printed(report)


def test_report_shows_the_cleaner_and_the_page(report: Path) -> None:
    views = [
        output["data"]["text/plain"]
        for output in outputs(report)
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    assert any("PhotoCleaner" in "".join(view) for view in views)
    assert any("FileUpload" in "".join(view) for view in views)


def test_export_converts_and_predicts(report: Path) -> None:
    model = Model.load(convert(report.with_name("export.pkl")))
    assert model.labels == ("circle", "square", "triangle")
    photos = sorted((report.parent / "data" / "shapes" / "gathered" / "photos").glob("*/*"))
    answers = [model.predict(read_image_file(path)).label == path.parent.name for path in photos]
    assert sum(answers) > 0.8 * len(answers)
    card = report.with_name("export.md").read_text()
    assert "circle, square, triangle" in card
    assert report.with_name("classes.csv").read_text().startswith("index,label")


def test_first_cell_installs_on_a_cloud_notebook_what_training_needs() -> None:
    cells = json.loads((ROOT / "train.ipynb").read_text())["cells"]
    first = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
    (line,) = re.findall("%pip install -q (.*)", first)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    train = {re.split("[=<>]", name)[0] for name in project["optional-dependencies"]["train"]}
    there = {"matplotlib", "nbclient", "nbconvert", "nbformat", "scipy", "torch", "torchvision"}
    page = {"anywidget", "ipywidgets", "onnxruntime", "pillow-heif", "rich"}
    assert {re.split("[=<>]", name.strip('"'))[0] for name in line.split()} == train - there | page
