import hashlib
import os
from pathlib import Path

import pytest

from icon_classifier.errors import ModelDamagedError, ModelMissingError, ModelStaleError
from icon_classifier.model import opening as room
from icon_classifier.model.opening import file_sha256, open_model
from tests.support.models import LABELS, write_model


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_has_torch", lambda: False)


@pytest.mark.usefixtures("without_torch")
class TestOpenModelWhereNothingCanBeCompiled:
    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissingError, match=r"put an export\.pkl"):
            open_model(tmp_path)

    def test_only_an_export(self, tmp_path: Path) -> None:
        (tmp_path / "export.pkl").write_bytes(b"learner")
        with pytest.raises(ModelMissingError, match="install torch"):
            open_model(tmp_path)

    def test_without_export_the_model_is_taken_as_it_is(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        assert open_model(tmp_path).labels == tuple(LABELS)

    def test_of_another_export(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        (tmp_path / "export.pkl").write_bytes(b"learner")
        with pytest.raises(ModelStaleError, match=r"another export\.pkl"):
            open_model(tmp_path)

    def test_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "export.onnx").write_bytes(b"nonsense")
        with pytest.raises(ModelDamagedError):
            open_model(tmp_path)

    def test_of_this_export(self, tmp_path: Path) -> None:
        (tmp_path / "export.pkl").write_bytes(b"learner")
        write_model(tmp_path, export_sha256=hashlib.sha256(b"learner").hexdigest())
        assert open_model(tmp_path).labels == tuple(LABELS)

    def test_threads_are_what_the_environment_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_model(tmp_path)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert open_model(tmp_path) is open_model(tmp_path, threads=2)
        monkeypatch.setenv("OMP_NUM_THREADS", "none")
        usable = min(4, len(os.sched_getaffinity(0)))
        assert open_model(tmp_path) is open_model(tmp_path, threads=usable)

    def test_one_process_opens_a_file_once(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        first = open_model(tmp_path)
        assert open_model(tmp_path) is first
        assert open_model(tmp_path, threads=3) is not first
        (tmp_path / "export.onnx").unlink()
        write_model(tmp_path, labels=["r", "g", "b"])
        assert open_model(tmp_path).labels == ("r", "g", "b")


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    assert file_sha256(path) == hashlib.sha256(b"bytes").hexdigest()


def test_an_export_that_cannot_be_compiled_says_why(tmp_path: Path) -> None:
    (tmp_path / "export.pkl").write_bytes(b"no learner at all")
    with pytest.raises(ModelMissingError, match="compiling it failed"):
        open_model(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == []
