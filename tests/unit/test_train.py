"""`make train`: what is said and written when it succeeds, and when it cannot."""

import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from scripts import train
from scripts.environment import ROOT, SetupError
from tests.support.pictures import encode


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of one class."""
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for colour in ("red", "blue"):
        (tmp_path / "photos" / "cat" / f"{colour}.png").write_bytes(
            encode(Image.new("RGB", (20, 20), colour))
        )
    return tmp_path / "photos"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the project's."""
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(train, "ROOT", tmp_path / "root")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--data", "{tmp}/nowhere"], "there is no folder {tmp}/nowhere: check its name"),
        (["--data", "{tmp}/photos"], "expected photos of at least two classes: "),
        (["--data", "{tmp}/photos", "--recipe", "bears"], "there are no photos of black, grizzly"),
        ([], "expected DATA=folder, which holds a folder of photos for each class, or RECIPE=name"),
        (["--recipe", "bear"], "there is no recipe 'bear'; did you mean 'bears'?"),
        (["--recipe", "{tmp}/photos"], "for photos of your own: make train DATA={tmp}/photos"),
        (["--recipe", "shapes", "-p", "epoch", "1"], "did you mean 'epochs'?"),
        (
            ["--recipe", "shapes", "-p", "int8", "false"],
            "int8: expected True, False, None or a number, got 'false'",
        ),
    ],
)
def test_mistake_is_one_sentence_and_leaves_nothing_behind(
    photos: Path,
    root: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    reason: str,
) -> None:
    assert train.main([each.format(tmp=photos.parent) for each in arguments]) == 1

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("Not trained: ")
    assert reason.format(tmp=photos.parent) in line
    assert not list(root.iterdir())


def test_folder_may_be_in_the_home_folder(
    photos: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "dog").mkdir()
    (photos / "dog" / "1.png").write_bytes(encode(Image.new("RGB", (20, 20), "green")))
    monkeypatch.setenv("HOME", str(photos.parent))

    assert train.check("", "~/photos").name == "photos"


def test_file_of_a_recipe_does_as_well_as_its_name() -> None:
    assert train.check("recipes/shapes.toml", "") == train.check("shapes", "")


def test_text_of_a_parameter_stays_one_where_the_notebook_declares_a_text() -> None:
    cells = nbformat.read(train.NOTEBOOK, nbformat.NO_CONVERT)
    given = {"further": "2024", "epochs": "5", "compare": "True", "lessons": "None", "int8": True}
    with_them = train.with_parameters(cells, given).cells
    (cell,) = [each for each in with_them if each.source.startswith("further = '2024'")]
    values: dict[str, object] = {}
    exec(cell.source, values)
    assert {name: values[name] for name in given} == {
        "further": "2024",
        "epochs": 5,
        "compare": True,
        "lessons": None,
        "int8": True,
    }


def notebook(folder: Path, *cells: str) -> Path:
    """Write a notebook with a parameter, a heading and more cells; a heading begins with ##."""
    v4 = nbformat.v4
    first = v4.new_code_cell("recipe = 'bears'", metadata={"tags": ["parameters"]})
    rest = [
        v4.new_markdown_cell(cell) if cell.startswith("##") else v4.new_code_cell(cell)
        for cell in ("## Gather\nText.", *cells)
    ]
    path = folder / "train.ipynb"
    path.write_text(nbformat.writes(v4.new_notebook(cells=[first, *rest])))
    return path


@pytest.mark.slow
def test_what_cells_print_is_shown_below_its_heading_and_the_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cells = ("print(recipe)", "recipe", "print('more')", "## Silent", "recipe", "## Last\nText.")
    widget = "from ipywidgets import HTML\nHTML('dead')"
    # What a kernel prints while it ends is nobody's business.
    last = "import atexit, os\natexit.register(os.write, 2, b'late')\nprint(1)"
    monkeypatch.setattr(train, "NOTEBOOK", notebook(tmp_path, *cells, widget, last))

    train.train({"recipe": "mine"}, tmp_path / "reports" / "train.html")

    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("\nGather\nmine\nmore\n\nLast\n1\n", "")
    page = (tmp_path / "reports" / "train.html").read_text()
    assert '<h2 id="Gather">' in page
    assert "<pre>'mine'" in page.replace("&#39;", "'")
    assert "print(" not in page
    assert "dead" not in page


@pytest.mark.slow
def test_ctrl_c_stops_it_without_a_traceback(tmp_path: Path) -> None:
    path = notebook(tmp_path, "import time\nprint('begun')\ntime.sleep(100)")
    code = (
        "import sys; from pathlib import Path; from scripts import train\n"
        "train.NOTEBOOK = Path(sys.argv[1])\n"
        "train.train({}, Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, path, tmp_path / "report.html"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(3)] == ["\n", "Gather\n", "begun\n"]
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate()

    assert (out, errors) == ("", "\nStopped. The same command starts again.\n")
    assert process.returncode == -signal.SIGINT
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_heading_is_shown_before_its_cell_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "NOTEBOOK", notebook(tmp_path, "1 / 0; print()"))

    with pytest.raises(SetupError, match="ZeroDivisionError"):
        train.train({}, tmp_path / "report.html")

    assert capfd.readouterr().out == "\nGather\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "reason", "reported"),
    [
        (
            "from icon_classifier.errors import DatasetError; raise DatasetError('no cat')",
            "",
            False,
        ),
        ("raise KeyError('no cat')", "KeyError: .*\nWhere it happened is in .*html", True),
    ],
)
def test_cell_that_fails_is_named_unless_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str, reason: str, reported: bool
) -> None:
    monkeypatch.setattr(train, "NOTEBOOK", notebook(tmp_path, cell))

    with pytest.raises(SetupError, match=reason or "^no cat$"):
        train.train({}, tmp_path / "report.html")

    assert (tmp_path / "report.html").exists() == reported


@pytest.mark.slow
def test_kernel_that_ends_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "NOTEBOOK", notebook(tmp_path, "import os; os._exit(1)"))

    with pytest.raises(SetupError, match="the kernel of the notebook ended"):
        train.train({}, tmp_path / "report.html")
