import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from icon_classifier.errors import TrainingError
from icon_classifier.training.export import cautious_threshold, fingerprint, save_export, versions
from tests.support import learners


@pytest.mark.parametrize(("count", "rank"), [(50, 0), (98, 0), (99, 0), (160, 1), (329, 4)])
def test_threshold_leaves_room_for_chance(count: int, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(count).astype(float).tolist()
    assert cautious_threshold(scores) == rank


def test_threshold_keeps_its_promise() -> None:
    random = np.random.default_rng(0)
    kept = [
        (random.normal(size=2000) >= cautious_threshold(random.normal(size=300).tolist())).mean()
        for _ in range(200)
    ]
    assert np.mean(np.array(kept) >= 0.97) > 0.85


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")]])
def test_threshold_of_nothing(scores: list[float]) -> None:
    with pytest.raises(TrainingError, match="finite"):
        cautious_threshold(scores)


def test_fingerprint_is_of_contents(tmp_path: Path) -> None:
    for name, data in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(data)
    a, b, c = (tmp_path / name for name in "abc")
    first = fingerprint([a, b], ["x", "y"])
    assert first == fingerprint([b, c], ["y", "x"])
    assert first["sha256"] != fingerprint([a, b], ["y", "x"])["sha256"]
    assert first["classes"] == {"x": 1, "y": 1}


def test_versions_name_torch() -> None:
    assert versions()["torch"].startswith("2.")


@pytest.fixture
def learn(photos: Path) -> Any:
    return learners.make_learner(photos)


def test_export_opens_anywhere_and_names_no_folder(learn: Any, tmp_path: Path) -> None:
    with learners.quiet():
        path = save_export(learn, {"format": 1, "seed": 3}, tmp_path / "new" / "export.pkl")
    data = path.read_bytes()
    assert str(learn.path).encode() not in data
    assert b"cloudpickle" not in data
    record = path.with_name("export.pkl.sha256").read_text()
    assert record == f"{hashlib.sha256(data).hexdigest()}  export.pkl\n"
    assert sorted(p.name for p in path.parent.iterdir()) == ["export.pkl", "export.pkl.sha256"]
    from fastai.learner import load_learner

    with learners.quiet():
        opened = load_learner(path)
    assert opened.icon_classifier["seed"] == 3
    assert opened.dls.vocab == learners.LABELS


def test_what_cannot_be_pickled_leaves_nothing(learn: Any, tmp_path: Path) -> None:
    learn.extra = SimpleNamespace(function=lambda: None)
    with learners.quiet(), pytest.raises(TrainingError, match="cannot be exported"):
        save_export(learn, {}, tmp_path / "export.pkl")
    assert not list(tmp_path.iterdir())
