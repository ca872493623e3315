"""``icon-classifier evaluate``, with a model of three colours."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.errors import DatasetError
from tests.support.models import write_model
from tests.support.pictures import encode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, and photos of which one lies under the wrong colour."""
    write_model(tmp_path)
    colours = {"red": ["red", "red", "blue"], "Blue": ["blue"], "odd": ["red"]}
    for label, photos in colours.items():
        (tmp_path / "test" / label / "deep").mkdir(parents=True)
        for number, colour in enumerate(photos):
            image = Image.new("RGB", (20, 20), colour)
            (tmp_path / "test" / label / "deep" / f"{number}.png").write_bytes(encode(image))
    (tmp_path / "test" / "Blue" / "broken.jpg").write_bytes(b"nothing")
    return tmp_path


def evaluate(folder: Path, *options: str | Path, photos: str = "test") -> str:
    arguments = ["evaluate", folder / photos, "--model", folder, *options]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.stdout


def test_report_has_errors_with_their_interval_and_the_wrong_photos(folder: Path) -> None:
    output = evaluate(folder)
    assert output.startswith("4 photos, 1 wrong: 25.0% (95 % interval ")
    assert "mean recall 83.3%" in output
    assert "| red   | 2 of 3 |    2 of 2 |\n| green | 0 of 0 |    0 of 0 |\n" in output
    assert "- red taken for blue: 1\n" in output
    assert (
        f"left out: 1 photo in {folder / 'test/odd/deep'}, which is not a class of the model\n"
        f"{folder / 'test/Blue/broken.jpg'}: This file is not"
    ) in output
    assert output.splitlines()[-1].startswith(str(folder / "test/red/deep/2.png: red was taken"))


def test_figures_are_json_and_wrong_answers_a_table(folder: Path) -> None:
    figures = json.loads(evaluate(folder, "--json", "--wrong", folder / "wrong.csv"))
    assert (figures["photos"], figures["errors"]) == (4, 1)
    assert [record["path"] for record in figures["wrong"]] == [str(folder / "test/red/deep/2.png")]
    assert figures["left_out"] == {str(folder / "test/odd/deep"): 1}
    assert len(figures["unreadable"]) == 1
    [row] = csv.DictReader((folder / "wrong.csv").read_text().splitlines())
    assert (row["expected"], row["label"]) == ("red", "blue")


def test_card_holds_the_latest_result_on_the_same_photos(folder: Path) -> None:
    card = folder / "export.md"
    card.write_text("# Model card: Colours\n\n## Data\n\nDrawn.\n")
    for _ in range(2):
        evaluate(folder, "--card")
    text = card.read_text()
    assert text.startswith(
        "# Model card: Colours\n\n## Data\n\nDrawn.\n\n## Measured on test\n\n4 "
    )
    assert text.count("## Measured on") == 1
    assert str(folder) not in text


def test_only_the_test_set_of_a_folder_is_judged(folder: Path) -> None:
    shutil.copytree(folder / "test", folder / "all" / "test")
    shutil.copytree(folder / "test" / "Blue", folder / "all" / "train" / "red")
    (folder / "all" / "train" / "red" / "broken.jpg").unlink()
    assert "trained on" not in evaluate(folder)

    (folder / "test").rename(folder / "before")
    (folder / "all").rename(folder / "test")
    (folder / "test" / "test").rename(folder / "test" / "test_images")
    output = evaluate(folder)
    assert output.startswith("4 photos, 1 wrong")
    assert (
        "Only the test set is judged: the model may have been trained on the others (1 " in output
    )
    assert "left out: 1 photo in " in output


def test_photos_that_may_have_been_trained_on_are_no_proof(folder: Path) -> None:
    (folder / "test").rename(folder / "photos")
    output = evaluate(folder, photos="photos")
    assert "If the model was trained on some of these photos, it looks better" in output


def test_folders_of_other_names_are_listed(folder: Path) -> None:
    (folder / "test").rename(folder / "all")
    (folder / "all" / "odd").rename(folder / "test")
    with pytest.raises(
        DatasetError, match=r"like the classes \(red, green, blue\), got .*deep \(1\)"
    ):
        evaluate(folder)


def test_missing_folder_is_named(folder: Path) -> None:
    (folder / "test").rename(folder / "other")
    with pytest.raises(DatasetError, match=r"there is no folder .*test"):
        evaluate(folder)


def test_folders_may_have_the_names_of_the_training(folder: Path) -> None:
    write_model(folder, vocab=["RED", "green", "0"])
    (folder / "test" / "Blue").rename(folder / "test" / "0")
    assert evaluate(folder).startswith("4 photos, 1 wrong")


def test_labels_may_be_in_a_table_or_in_names_of_files(folder: Path) -> None:
    for number, path in enumerate(sorted((folder / "test").glob("*/*/*.png"))):
        path.rename(
            folder / "test" / f"{'red' if path.parts[-3] == 'red' else 'Blue'}_{number}.png"
        )
    assert evaluate(folder).startswith("5 photos, 2 wrong")

    rows = "".join(f"{number}.png,red\n" for number in range(5))
    for number, path in enumerate(sorted((folder / "test").glob("*.png"))):
        path.rename(folder / "test" / f"{number}.png")
    (folder / "test" / "labels.csv").write_text(f"file,label\n{rows}")
    assert evaluate(folder).startswith("5 photos, 2 wrong")


def test_names_of_files_that_no_terminal_should_print_are_escaped(folder: Path) -> None:
    wrong = folder / "test" / "red" / "deep" / "2.png"
    wrong.rename(wrong.with_name("=1+\x1b[2J\udcff.png"))
    output = evaluate(folder, "--wrong", folder / "wrong.csv")
    assert "\x1b" not in output
    assert "\\x1b[2J\\udcff.png: red was taken for blue" in output
    assert "\\x1b[2J\\udcff.png,red,blue" in (folder / "wrong.csv").read_text()
