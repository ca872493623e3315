from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from icon_classifier.errors import TrainingError
from icon_classifier.training.export import describe_photos, save_export, versions, write_classes
from tests.support import learners


def test_photos_are_described_by_their_contents(tmp_path: Path) -> None:
    for name, data in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (tmp_path / name for name in "abc")
    first = describe_photos([a, b], ["x", "y"])
    assert first == describe_photos([b, c], ["y", "x"])
    assert first["sha256"] != describe_photos([a, b], ["y", "x"])["sha256"]
    assert first["classes"] == {"x": 1, "y": 1}


def test_versions_name_torch() -> None:
    assert versions()["torch"].startswith("2.")


@pytest.fixture
def learn(photos: Path) -> Any:
    return learners.make_learner(photos)


def test_export_opens_with_fastai_and_holds_no_path_of_the_machine(
    learn: Any, tmp_path: Path
) -> None:
    with learners.quiet():
        path = save_export(learn, {"format": 1, "seed": 3}, tmp_path / "new" / "export.pkl")
    data = path.read_bytes()
    assert str(learn.path).encode() not in data
    assert b"cloudpickle" not in data
    assert [each.name for each in path.parent.iterdir()] == ["export.pkl"]
    from fastai.learner import load_learner

    with learners.quiet():
        opened = load_learner(path)
    assert opened.icon_classifier["seed"] == 3
    assert opened.dls.vocab == learners.LABELS


def test_learner_that_cannot_be_pickled_leaves_no_file(learn: Any, tmp_path: Path) -> None:
    learn.extra = SimpleNamespace(function=lambda: None)
    with learners.quiet(), pytest.raises(TrainingError, match="cannot be exported"):
        save_export(learn, {}, tmp_path / "export.pkl")
    assert not list(tmp_path.iterdir())


def test_classes_are_written_as_a_table(tmp_path: Path) -> None:
    path = write_classes(["a", "b, c"], tmp_path / "classes.csv")
    assert path.read_text().splitlines() == ["index,label", "0,a", '1,"b, c"']
