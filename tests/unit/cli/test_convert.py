"""``icon-classifier convert`` as its user sees it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.errors import ConversionError
from icon_classifier.model.opening import is_up_to_date, open_model
from tests.support import learners

NAMES = "False=dog,True=cat"


@pytest.fixture(scope="module")
def is_cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lesson 1: the labels are False and True."""
    photos = learners.draw_photos(tmp_path_factory.mktemp("photos"))
    learn = learners.make_learner(photos, get_y=lambda path: path.parent.name == "red")
    return learners.export(learn, tmp_path_factory.mktemp("export"))


@pytest.fixture
def export(is_cat: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(is_cat, tmp_path))


def convert(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    if result.exception:
        raise result.exception
    return result.output


@pytest.mark.slow
def test_convert_prints_what_the_model_is(export: Path) -> None:
    output = convert(export)
    assert output.startswith(f"Converted {export} to {export.with_suffix('.onnx')} (")
    assert "classes:            False, True\n" in output
    assert "Note: Visitors will read the classes as False, True." in output
    assert json.loads(convert(export, "--json"))["labels"] == ["False", "True"]


@pytest.mark.slow
def test_names_are_kept_beside_the_export(export: Path) -> None:
    model = export.with_suffix(".onnx")
    assert "classes:            dog, cat\n" in convert(export, "--names", NAMES)
    assert open_model(export.parent).predict(Image.new("RGB", (9, 9))).label in ("dog", "cat")
    model.unlink()
    assert "classes:            dog, cat\n" in convert(export)
    assert is_up_to_date(model, export)


@pytest.mark.slow
def test_changed_names_make_the_model_stale(export: Path) -> None:
    model = export.with_suffix(".onnx")
    convert(export, "--names", NAMES)
    export.with_suffix(".names.txt").write_text("True = tiger\n")
    assert not is_up_to_date(model, export)
    assert "classes:            False, tiger\n" in convert(export)


def test_names_that_do_not_fit_change_nothing(export: Path) -> None:
    convert(export, "--names", NAMES)
    before = {path.name: path.read_bytes() for path in export.parent.iterdir()}
    with pytest.raises(ConversionError, match="there is no class 'cat'"):
        convert(export, "--names", "cat=dog")
    assert {path.name: path.read_bytes() for path in export.parent.iterdir()} == before


def test_comma_in_a_name_is_explained(export: Path) -> None:
    with pytest.raises(
        ConversionError, match=r"got 'tabby'; where names have commas, .* into .*export\.names\.txt"
    ):
        convert(export, "--names", "False=cat, tabby,True=dog")


def test_another_name_than_export_is_said_not_to_be_the_page_s_model(export: Path) -> None:
    other = export.rename(export.with_name("model.pkl"))
    output = convert(other, "--names", NAMES)
    assert f"The page opens export.onnx. For this model, rename {other} to export.pkl and" in output
    assert "export.names.txt" in output
    assert "export.names.txt" in convert(other)


def test_another_export_is_not_overwritten(export: Path) -> None:
    other = Path(shutil.copy(export, export.with_name("other.pkl")))
    for target in (other, export):
        with pytest.raises(ConversionError, match=r"ends in \.onnx, got .* once for each"):
            convert(export, target)
    assert other.read_bytes() == export.read_bytes()


@pytest.mark.slow
def test_int8_prints_what_changes_and_lasts_until_the_export_changes(
    export: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(24):
        Image.effect_noise((70, 60), 10 * i + 1).save(folder / f"{i}.png")
    output = convert(export, "--int8", folder)
    assert "weights:            8-bit integers, calibrated on 12 photos\n" in output
    assert "judged on:          12 photos; the exact model and this one:\n" in output
    assert "same label:         12 of 12\n" in output
    assert "wrong labels" not in output  # no folder is named like a class
    assert "8-bit integers, calibrated on 12 photos" in convert(export, "--names", NAMES)
    with export.open("ab") as file:  # another file, with the same Learner
        file.write(bytes(1))
    output = convert(export)
    assert "8-bit integers" not in output
    assert "is exact now; --int8 PHOTOS quantizes it again.\n" in output


def test_another_target_is_said_not_to_be_the_page_s_model(export: Path) -> None:
    target = export.with_name("model.onnx")
    output = convert(export, target, "--names", NAMES)
    assert f"The page opens export.onnx; to write it, leave out {target}." in output
    assert "rename" not in output
