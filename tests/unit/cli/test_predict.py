from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.cli.predict import classify_files, find_photos, passed_over_line
from icon_classifier.errors import SettingsError
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from tests.support.models import model_bytes, write_model
from tests.support.pictures import encode, gradient


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(model_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "b/1.PNG", "a.jpg", "b/c/deep.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = ("red", "green", "blue")[len(name) % 3]
        path.write_bytes(encode(Image.new("RGB", (20, 20), colour)))
    (tmp_path / "notes.txt").write_text("not a photo")
    return tmp_path


def names(folder: Path, *arguments: str) -> list[str]:
    found = find_photos(str(folder / argument) for argument in arguments)
    return [Path(path).relative_to(folder).as_posix() for path in found]


def test_folder_is_walked_in_order(folder: Path) -> None:
    assert names(folder, "") == ["a.jpg", "b/1.PNG", "b/2.png", "b/c/deep.webp"]


def test_photos_of_other_suffixes_are_found_and_other_files_counted(folder: Path) -> None:
    photo = encode(gradient(), "JPEG")
    for name in ("b/c/1.jpg_large", "b/c/2", "b/c/3.php?size=large"):
        (folder / name).write_bytes(photo)
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"):
        (folder / "b" / "c" / f"x {kind}").write_bytes(encode(gradient(), kind))
    (folder / "b" / "DSC.HIF").write_bytes(encode(gradient(), "HEIF"))
    (folder / "._a.jpg").write_bytes(b"of a Mac")
    (folder / "README").write_text("BM, II and RIFF are no photos")
    (folder / "gone").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    (folder / "b" / "again").symlink_to(folder)
    passed_over: Counter[str] = Counter()

    found = [Path(path).name for path in find_photos([str(folder)], passed_over)]

    assert len(found) == len(set(found)) == 4 + 3 + 7 + 1
    assert passed_over == {".txt": 1, "hidden": 1, "without a suffix": 3}
    assert passed_over_line(passed_over) == (
        "files passed over, because they are no photos: 5 (3 without a suffix, 1 hidden, 1 .txt)"
    )


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, arguments)])


def test_predict_says_what_was_passed_over(folder: Path) -> None:
    write_model(folder)
    result = run(folder / "b", folder, "--model", folder)

    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 3 + 4
    assert result.stderr == (
        "icon-classifier: files passed over, because they are no photos: 2 (1 .onnx, 1 .txt)\n"
    )


def test_file_and_folder_that_cannot_be_opened_are_lines_with_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(folder)
    monkeypatch.chdir(folder / "b")
    for _ in range(17):  # names of 4,096 bytes cannot be opened, not even by root
        os.mkdir("d" * 250)  # noqa: PTH102
        os.chdir("d" * 250)

    result = run(folder / "b", folder / f"{'x' * 300}.jpg", folder / "no.jpg", "--model", folder)

    assert result.exit_code == 1
    *photos, deep, long, missing = result.stdout.splitlines()
    assert len(photos) == 3
    assert deep.endswith("d\tThis file cannot be opened; please check it.")
    assert long.endswith(".jpg\tThis file cannot be opened; please check it.")
    assert missing.endswith("no.jpg\tThere is no such file; please check its name.")


@pytest.mark.parametrize("files", [[], ["notes.txt", "train.csv"]])
def test_folder_without_photos_is_an_error(tmp_path: Path, files: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    for name in files:
        (tmp_path / "empty" / name).write_text("no photo")
    write_model(tmp_path)

    result = run(tmp_path / "empty", "--model", tmp_path)

    assert result.exit_code == 1
    assert isinstance(result.exception, SettingsError)
    assert str(result.exception) == f"there are no photos in {tmp_path / 'empty'}"


def test_results_in_a_file_are_counted(folder: Path) -> None:
    write_model(folder)
    arguments = folder / "b", "--csv", "--output", folder / "out.csv", "--model", folder

    for new in (3, 0):
        result = run(*arguments)
        assert result.exit_code == 0
        assert result.stderr == (
            f"icon-classifier: {folder / 'out.csv'} has 3 photos, {new} of them new\n"
        )


def test_named_file_is_found_whatever_its_suffix(folder: Path) -> None:
    assert names(folder, "notes.txt", "none.jpg") == ["notes.txt", "none.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("b/?.*", ["b/1.PNG", "b/2.png"]),
        ("**/*.webp", ["b/c/deep.webp"]),
        ("b*", ["b/1.PNG", "b/2.png", "b/c/deep.webp"]),
        ("*.gif", ["*.gif"]),
    ],
)
def test_pattern_is_expanded_in_order(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(folder, pattern) == expected


def test_file_named_like_a_pattern_is_found(folder: Path) -> None:
    (folder / "[a].jpg").write_bytes(b"")
    assert names(folder, "[a].jpg") == ["[a].jpg"]


@pytest.mark.parametrize("threads", [1, 3])
def test_records_are_in_order_and_equal_to_single_predictions(
    folder: Path, model: Model, threads: int
) -> None:
    paths = [*find_photos([str(folder)]), str(folder / "notes.txt"), str(folder / "none.jpg")] * 5
    records = list(classify_files(model, paths, threads=threads))
    assert [record["path"] for record in records] == paths
    for record in records:
        if record["path"].endswith(("notes.txt", "none.jpg")):
            assert record.keys() == {"path", "error"}
        else:
            expected = model.predict(read_image_file(record["path"]))
            assert record["label"] == expected.label
            assert record["probability"] == pytest.approx(expected.probability, abs=1e-6)


def test_top_limits_the_ranking(folder: Path, model: Model) -> None:
    [record] = classify_files(model, [str(folder / "a.jpg")], threads=1, top=2)
    assert len(record["ranking"]) == 2


def test_few_paths_are_read_ahead(folder: Path, model: Model) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield str(folder / "a.jpg")

    records = classify_files(model, endless(), threads=2)
    for _ in range(50):
        next(records)
    records.close()
    assert read <= 60


def test_closing_early_stops_the_threads(folder: Path, model: Model) -> None:
    records = classify_files(model, [str(folder / "a.jpg")] * 100, threads=2)
    next(records)
    records.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict")]


def test_unexpected_error_is_raised(folder: Path, model: Model, monkeypatch) -> None:
    def fail(self, batch, *, explain=False):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(Model, "predict_arrays", fail)
    with pytest.raises(RuntimeError, match="unexpected"):
        list(classify_files(model, [str(folder / "a.jpg")] * 20, threads=2))
