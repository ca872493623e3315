"""``icon-classifier site`` as its user sees it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.errors import ConversionError, ModelDamagedError, SettingsError
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
    """The folder of a model of three colours."""
    write_model(tmp_path)
    return tmp_path


def site(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["site", *map(str, arguments)])
    if result.exception:
        raise result.exception
    return result.output


def published(out: Path) -> bytes:
    (model,) = out.glob("export-*.onnx")
    return model.read_bytes()


def test_site_is_written_and_says_how_to_look_at_it(folder: Path) -> None:
    out = folder / "my site"
    assert f"python3 -m http.server -d '{out}'" in site(out, "--model", folder)
    assert "Red, green or blue?" in (out / "index.html").read_text()


def test_home_in_the_folders_name_is_not_taken_for_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    site("~/out", "--exact", "--model", folder)
    assert (folder / "out" / "index.html").is_file()


def test_exact_publishes_the_model_as_it_is(folder: Path) -> None:
    site(folder / "out", "--exact", "--model", folder)
    assert published(folder / "out") == (folder / "export.onnx").read_bytes()


def test_weights_are_stored_in_half_precision(tmp_path: Path) -> None:
    site(tmp_path, "--model", ROOT)
    share = len(published(tmp_path)) / (ROOT / "export.onnx").stat().st_size
    assert share == pytest.approx(0.5, abs=0.02)


def test_compare_prints_what_half_precision_changes(folder: Path) -> None:
    for colour in ("red", "green", "blue"):
        (folder / "photos" / colour).mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(folder / "photos" / colour / "1.png")
    output = site(folder / "out", "--compare", folder / "photos", "--model", folder)
    assert "same label:         3 of 3\n" in output
    assert "probabilities:      differ by 0 at most\n" in output
    assert "wrong labels:       0 and 0\n" in output


def test_folder_without_photos_is_refused(folder: Path) -> None:
    with pytest.raises(ConversionError, match="expected photos to compare two models on"):
        site(folder / "out", "--compare", folder, "--model", folder)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("option", ["--int8", "--compare"])
def test_exact_model_is_not_compared_with_itself(folder: Path, option: str) -> None:
    with pytest.raises(SettingsError, match="expected --exact alone"):
        site(folder / "out", "--exact", option, folder, "--model", folder)


def test_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    write_model(tmp_path, int8={})
    with pytest.raises(ConversionError, match="expected an exact model to quantize"):
        site(tmp_path / "out", "--int8", tmp_path, "--model", tmp_path)


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
    with pytest.raises(ModelDamagedError):
        site(folder / "out", "--model", folder)
    assert not (folder / "out").exists()


def test_folder_of_something_else_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="expected a new folder"):
        site(folder, "--model", folder)
    assert [path.name for path in folder.iterdir()] == ["export.onnx"]
