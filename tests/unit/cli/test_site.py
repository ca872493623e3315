import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.errors import ModelDamagedError, SettingsError
from tests.support.models import write_model
from tests.support.servers import ROOT

WITHOUT_ONNX = """
import sys
sys.modules["onnx"] = None
from icon_classifier.cli.main import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path)
    return tmp_path


def published(out: Path) -> bytes:
    (model,) = out.glob("export-*.onnx")
    return model.read_bytes()


def test_site_is_written_and_says_how_to_look_at_it(folder: Path) -> None:
    out = folder / "my site"
    result = CliRunner().invoke(app, ["site", str(out), "--model", str(folder)])
    assert result.exit_code == 0
    assert f"python -m http.server -d '{out}'" in result.stdout
    assert "red" in (out / "index.html").read_text()


def test_exact_publishes_the_model_as_it_is(folder: Path) -> None:
    arguments = ["site", str(folder / "out"), "--exact", "--model", str(folder)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert published(folder / "out") == (folder / "export.onnx").read_bytes()


def test_weights_are_stored_in_half_precision(tmp_path: Path) -> None:
    arguments = ["site", str(tmp_path), "--model", str(ROOT)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    share = len(published(tmp_path)) / (ROOT / "export.onnx").stat().st_size
    assert share == pytest.approx(0.5, abs=0.02)
    text = (tmp_path / "index.html").read_text()
    found = re.search(r'"sha256": "(\w+)"', text[text.index('"model": {"bytes"') :])
    assert found
    assert found[1] == hashlib.sha256(published(tmp_path)).hexdigest()


def test_without_onnx_only_the_exact_model_is_published(folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_ONNX, "site", folder / "out", "--model", folder]
    halved = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert halved.returncode == 1
    assert re.match("icon-classifier: onnx is not installed: .* or add --exact\n$", halved.stderr)
    assert not (folder / "out").exists()
    subprocess.run([*command, "--exact"], cwd=ROOT, check=True)
    assert (folder / "out" / "index.html").exists()


def test_damaged_model_is_refused(folder: Path) -> None:
    (folder / "export.onnx").write_bytes(b"nothing")
    result = CliRunner().invoke(app, ["site", str(folder / "out"), "--model", str(folder)])
    assert isinstance(result.exception, ModelDamagedError)
    assert not (folder / "out").exists()


def test_folder_of_something_else_is_refused(folder: Path) -> None:
    result = CliRunner().invoke(app, ["site", str(folder), "--model", str(folder)])
    assert isinstance(result.exception, SettingsError)
    assert [path.name for path in folder.iterdir()] == ["export.onnx"]
