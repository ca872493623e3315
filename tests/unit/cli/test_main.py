import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.errors import ModelDamagedError, SettingsError
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.processes import run_on_terminal
from tests.support.servers import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model of three colours and photos, one of them broken."""
    write_model(tmp_path)
    photos = tmp_path / "photos" / "deep"
    photos.mkdir(parents=True)
    for colour in ("red", "blue"):
        (photos / f"{colour}.PNG").write_bytes(encode(Image.new("RGB", (20, 20), colour)))
    (photos / "broken.jpg").write_bytes(b"nothing")
    (photos / "notes.txt").write_text("not a photo")
    return tmp_path


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout


def test_predict_json_prints_an_object_for_each_photo(folder: Path) -> None:
    code, output = run("predict", folder / "photos", "--json", "--model", folder)
    lines = [json.loads(line) for line in output.splitlines()]
    assert code == 1
    assert [Path(line["path"]).name for line in lines] == ["blue.PNG", "broken.jpg", "red.PNG"]
    blue, broken, red = lines
    assert blue["label"] == "blue"
    assert broken.keys() == {"path", "error"}
    assert "not a picture" in broken["error"]
    assert red["probability"] > 0.9
    assert red["ranking"][0]["label"] == "red"
    assert sum(entry["probability"] for entry in red["ranking"]) == pytest.approx(1, abs=1e-4)


def test_predict_prints_path_and_label(folder: Path) -> None:
    photo = folder / "photos" / "deep" / "red.PNG"
    code, output = run("predict", photo, "--model", folder)
    assert code == 0
    assert output.split("\t")[:2] == [str(photo), "red"]


def test_predict_prints_an_error_for_a_missing_photo(folder: Path) -> None:
    code, output = run("predict", folder / "none.jpg", "--model", folder)
    assert code == 1
    assert output == f"{folder / 'none.jpg'}\tThere is no such file; please check its name.\n"


def test_file_of_a_model_does_as_well_as_its_folder(folder: Path) -> None:
    photo = folder / "photos" / "deep" / "red.PNG"
    assert run("predict", photo, "--model", folder / "export.onnx")[0] == 0


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("photos", "there is no export.onnx in .*/photos; name the model's folder with --model"),
        ("photos/deep/red.PNG", "expected a folder with export.pkl or export.onnx, got the file "),
    ],
)
@pytest.mark.parametrize("command", ["predict photos", "evaluate photos", "api"])
def test_folder_without_a_model_is_refused(
    folder: Path, model: str, reason: str, command: str
) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--model", str(folder / model)])
    assert isinstance(result.exception, SettingsError)
    assert re.match(reason, str(result.exception))


def test_info_prints_the_metadata(folder: Path) -> None:
    code, output = run("info", "--model", folder)
    assert code == 0
    assert "red, green, blue" in output
    assert json.loads(run("info", "--json", "--model", folder)[1])["recipe"] == "colours"


def test_info_prints_no_control_characters(tmp_path: Path) -> None:
    write_model(tmp_path, recipe="\x1b[2J\u202e", labels=["\x1b[31mred", "green", "blue"])
    for option in ([], ["--json"]):
        code, output = run("info", "--model", tmp_path, *option)
        assert code == 0
        assert not {"\x1b", "\u202e"} & set(output)
        assert r"[31mred" in output


@pytest.mark.parametrize("learner", [5, [1], {"left_out": 5}, {"network": {}}])
def test_info_of_invalid_metadata_is_an_error_of_ours(tmp_path: Path, learner: object) -> None:
    write_model(tmp_path, learner=learner)
    result = CliRunner().invoke(app, ["info", "--model", str(tmp_path)])
    assert result.exit_code == 0 or isinstance(result.exception, ModelDamagedError)


def test_error_is_one_line_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "icon_classifier", "info", "--model", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("icon-classifier: there is no ")
    assert len(done.stderr.splitlines()) == 1


def test_convert_reports_a_bad_export(tmp_path: Path) -> None:
    export = tmp_path / "export.pkl"
    export.write_bytes(b"no learner")
    command = [sys.executable, "-m", "icon_classifier", "convert", str(export)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "export.onnx").exists()


def test_predict_resumes_a_table(folder: Path) -> None:
    target = folder / "results.csv"
    options = ("--csv", "--top", "2", "-o", target, "--model", folder)
    assert run("predict", folder / "photos/deep/red.PNG", *options) == (0, "")
    assert run("predict", folder / "photos", *options) == (1, "")
    names = [Path(line.partition(",")[0]).name for line in target.read_text().splitlines()]
    assert names == ["path", "red.PNG", "blue.PNG", "broken.jpg"]


def test_predict_expands_patterns(folder: Path) -> None:
    code, output = run("predict", folder / "photos/**/*.PNG", "--json", "--model", folder)
    assert code == 0
    assert len(output.splitlines()) == 2


@pytest.mark.parametrize(
    "command", ["", *(each.callback.__name__ for each in app.registered_commands)]
)
def test_help_has_whole_sentences_and_no_types_of_python(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"]).output
    assert not re.search(r"[a-z]\.\.\.$|[<{]\w|None|default: \(", shown, re.MULTILINE)


def test_help_shows_arguments_in_usage_and_in_rows() -> None:
    shown = CliRunner().invoke(app, ["predict", "--help"]).output
    assert re.search(r"^Usage: .* predict \[OPTIONS\] PHOTOS\.\.\. *$", shown, re.MULTILINE)
    assert re.search(r"^  PHOTOS  Photos, folders", shown, re.MULTILINE)


def test_help_imports_neither_numpy_nor_onnxruntime() -> None:
    code = "import icon_classifier.cli.main, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "icon_classifier.cli.main" in done.stdout
    assert not {"numpy", "onnxruntime"} & set(done.stdout.split())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_predict_shows_progress_on_a_terminal(folder: Path) -> None:
    command = [sys.executable, "-m", "icon_classifier", "predict", str(folder / "photos")]
    command += ["--json", "-o", str(folder / "results.json"), "--model", str(folder)]
    code, shown = run_on_terminal(command)
    assert code == 1
    assert "3/3" in shown


def test_path_that_cannot_be_opened_is_one_line(folder: Path) -> None:
    model = folder / ("x" * 300)  # longer than a name may be, for root as well
    command = [sys.executable, "-m", "icon_classifier", "predict", "photo.jpg", "--model", model]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"icon-classifier: {model} cannot be opened: File name too long\n"
