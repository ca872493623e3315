"""A new model becomes the page's, or changes nothing: the whole way, with the shipped Learner."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from icon_classifier.model.session import Model
from scripts.environment import ROOT, SetupError, digest
from scripts.release_model import release
from tests.support.models import model_bytes

NAMES = ["export.md", "export.onnx", "export.pkl", "export.pkl.sha256"]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page's folder, whose present model claims never to err."""
    folder = tmp_path / "page"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"the present {name}")
    claims = model_bytes(labels=["black", "grizzly", "teddy"], figures={"error": 0.0})
    (folder / "export.onnx").write_bytes(claims)
    return folder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A newly trained Learner, which came by itself."""
    (tmp_path / "trained").mkdir()
    return Path(shutil.copy(ROOT / "export.pkl", tmp_path / "trained"))


def test_worse_model_is_refused_and_taken_when_told(page: Path, export: Path) -> None:
    before = digest(*(page / name for name in NAMES))
    with pytest.raises(SetupError, match=r"error is 0\.\d\d%, the present one's 0\.00%"):
        release(export, page)
    assert sorted(path.name for path in page.iterdir()) == NAMES
    assert digest(*(page / name for name in NAMES)) == before

    told = release(export, page, worse=True)
    assert sorted(path.name for path in page.iterdir()) == NAMES
    assert (page / "export.pkl").read_bytes() == export.read_bytes()
    assert digest(page / "export.pkl.sha256") == digest(ROOT / "export.pkl.sha256")
    assert Model.load(page / "export.onnx").labels == ("black", "grizzly", "teddy")
    assert "came without a card" in (page / "export.md").read_text()
    assert "recipe: colours -> bears" in told


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
