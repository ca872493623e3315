"""train.ipynb run as `make train` runs it, on drawn shapes: from pictures to a prediction."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from icon_classifier.conversion.convert import convert
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model

ROOT = Path(__file__).resolve().parents[2]

# What `make train` calls, except for the sockets, for which papermill's command line has no option.
EXECUTE = """
import json, sys
from papermill import execute_notebook
from tests.support.kernels import own_sockets
notebook, report, parameters = sys.argv[1:]
with own_sockets() as config:
    execute_notebook(
        notebook, report, json.loads(parameters),
        kernel_name="python3", progress_bar=False, config=config,
    )
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executed notebook; its export lies beside it."""
    folder = tmp_path_factory.mktemp("train")
    parameters = {
        "recipe": "shapes",
        "folder": str(folder / "shapes"),
        "target": str(folder / "export.pkl"),
        "epochs": 1,
        "lessons": False,  # four more trainings; diagnose is tested on recorded curves
    }
    files = ROOT / "train.ipynb", folder / "report.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, *map(str, files), json.dumps(parameters)],
        cwd=ROOT,
        # One thread: on a busy machine several wait for each other at every layer.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "report.ipynb"


def test_report_shows_both_error_rates_and_a_plot(report: Path) -> None:
    cells = json.loads(report.read_text())["cells"]
    printed = "".join(
        "".join(output.get("text", ""))
        for cell in cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    )
    assert "plain recipe:" in printed
    assert "better recipe:" in printed
    assert any(
        "image/png" in output.get("data", {})
        for cell in cells
        if cell["cell_type"] == "code"
        for output in cell["outputs"]
    )


def test_export_converts_and_predicts(report: Path) -> None:
    model = Model.load(convert(report.with_name("export.pkl")))
    assert model.labels == ("circle", "square", "triangle")
    photos = sorted((report.parent / "shapes" / "photos").glob("*/*"))
    answers = [model.predict(read_image_file(path)).label == path.parent.name for path in photos]
    assert sum(answers) > 0.8 * len(answers)
    card = report.with_name("export.md").read_text()
    assert "circle, square, triangle" in card
    assert report.with_name("classes.csv").read_text().startswith("index,label")
