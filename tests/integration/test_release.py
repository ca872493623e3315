"""A release replaces the page's model, or changes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from icon_classifier.model.session import Model
from icon_classifier.training.export import save_export
from scripts.environment import ROOT, SetupError
from scripts.release_model import bare_card, changes, check_figures, release
from tests.support import learners
from tests.support.learners import LABELS
from tests.support.models import metadata, model_bytes

NAMES = ["export.md", "export.onnx", "export.pkl"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page's folder, whose present model claims an error of zero."""
    folder = tmp_path / "page"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"the present {name}")
    claims = model_bytes(labels=LABELS, figures={"error": 0.0})
    (folder / "export.onnx").write_bytes(claims)
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A newly trained Learner without a card."""
    with learners.quiet():
        learn = learners.make_learner(learners.draw_photos(tmp_path / "photos"))
        notes = {"recipe": "drawn", "figures": {"error": 0.0123}}
        return save_export(learn, notes, tmp_path / "trained" / "export.pkl")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_worse_model_is_refused_unless_it_is_accepted(page: Path, export: Path) -> None:
    before = contents(page)
    with pytest.raises(SetupError, match=r"error is 1\.23%, the present one's 0\.00%"):
        release(export, page)
    assert contents(page) == before

    (page / "export.names.txt").write_text("red = blood\n")  # of the present model
    changed = release(export.parent, page, worse=True)
    assert sorted(path.name for path in page.iterdir()) == NAMES
    assert (page / "export.pkl").read_bytes() == export.read_bytes()
    assert Model.load(page / "export.onnx").labels == tuple(LABELS)
    assert "released without a card" in (page / "export.md").read_text()
    assert "recipe: colours -> drawn" in changed
    assert "classes: " not in "\n".join(changed)
    assert [line for line in changed if line.startswith("photo: resize to 8 x 8")]


def test_card_of_another_model_is_noted(
    page: Path, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.release_model.check_parity", lambda export: None)  # takes seconds
    export.with_name("export.md").write_text("# Model card\n\nTrained 2026-01-01.\n")
    noted = [line for line in release(export, page, worse=True) if line.startswith("Note: ")]
    assert any("The model card export.md is that of another model" in line for line in noted)


def test_card_of_a_model_without_one_escapes_its_labels() -> None:
    card = bare_card(metadata(labels=["a_b", "<b>c"]))
    assert card.startswith("# Model card: a\\_b, \\<b\\>c\n")


def test_error_of_other_classes_is_not_compared() -> None:
    old = metadata(figures={"error": 0.1})
    new = metadata(labels=["cat", "dog", "fox"], figures={"error": 0.2})

    check_figures(new, old)
    lines = list(changes(new, old))
    assert lines[0] == "error: 20.00%; nothing to compare with, because the classes changed"
    assert "classes: red, green, blue -> cat, dog, fox" in lines
    assert "error: 10.00% -> 20.00%" in changes(metadata(figures={"error": 0.2}), old)
    assert "error: 20.00%" in changes(new, {})


@pytest.mark.parametrize("name", ["", "export.pkl", "models/nope"])
def test_release_of_no_other_model_is_refused_with_those_that_there_are(
    page: Path, export: Path, name: str
) -> None:
    (page / "models").mkdir()
    export.parent.rename(page / "models" / "mine")

    with pytest.raises(SetupError, match=r"; there are: models/mine/export\.pkl$"):
        release(page / name, page)


def test_learner_that_does_not_convert_is_refused_with_the_reason(export: Path) -> None:
    export.write_bytes(export.read_bytes()[:-1000])
    command = [sys.executable, "-m", "scripts.release_model", str(export)]
    present = {name: (ROOT / name).read_bytes() for name in NAMES}
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "Not released: " in answer.stderr
    assert "export.pkl" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert {name: (ROOT / name).read_bytes() for name in NAMES} == present
