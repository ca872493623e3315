import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import icon_classifier
from icon_classifier.errors import ModelDamagedError, ModelMissingError, ModelStaleError
from icon_classifier.files import sha256_of
from icon_classifier.model import opening
from icon_classifier.model.opening import MAX_THREADS, is_up_to_date, open_model
from icon_classifier.model.session import Model
from icon_classifier.system.memory import usable_cores
from tests.support.models import LABELS, write_model

PACKAGE = Path(icon_classifier.__file__).parent


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Write an export.pkl that cannot be converted."""
    path = tmp_path / "export.pkl"
    path.write_bytes(b"learner")
    return path


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_can_convert", lambda _: False)


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(ModelMissingError, match="expected the folder"):
        open_model(tmp_path / "export.onnx")


@pytest.mark.usefixtures("without_torch")
class TestWithoutTorch:
    def test_an_empty_folder_raises(self, tmp_path: Path) -> None:
        with pytest.raises(ModelMissingError, match=r"put an export\.pkl"):
            open_model(tmp_path)

    def test_an_export_alone_raises(self, export: Path) -> None:
        with pytest.raises(ModelMissingError, match="install torch"):
            open_model(export.parent)

    def test_a_model_without_export_is_opened(self, tmp_path: Path) -> None:
        write_model(tmp_path)
        assert open_model(tmp_path).labels == tuple(LABELS)

    def test_a_model_of_another_export_raises(self, export: Path) -> None:
        write_model(export.parent)
        with pytest.raises(ModelStaleError, match=r"another export\.pkl"):
            open_model(export.parent)

    def test_a_model_of_this_export_is_opened(self, export: Path) -> None:
        write_model(export.parent, export_sha256=sha256_of(export))
        assert open_model(export.parent).labels == tuple(LABELS)

    @pytest.mark.parametrize("compiler", ["0" * 64, None])
    def test_a_model_of_another_compiler_is_opened(
        self, export: Path, compiler: str | None
    ) -> None:
        write_model(export.parent, export_sha256=sha256_of(export), compiler_sha256=compiler)
        assert open_model(export.parent).labels == tuple(LABELS)

    def test_a_damaged_model_raises(self, tmp_path: Path) -> None:
        (tmp_path / "export.onnx").write_bytes(b"nonsense")
        with pytest.raises(ModelDamagedError):
            open_model(tmp_path)


def test_threads_are_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert open_model(tmp_path) is open_model(tmp_path, threads=2)
    monkeypatch.setenv("OMP_NUM_THREADS", "none")
    usable = min(MAX_THREADS, usable_cores())
    assert open_model(tmp_path) is open_model(tmp_path, threads=usable)


def test_a_process_opens_a_file_once(tmp_path: Path) -> None:
    write_model(tmp_path)
    first = open_model(tmp_path)
    assert open_model(tmp_path) is first
    assert open_model(tmp_path, threads=3) is not first
    (tmp_path / "export.onnx").unlink()
    write_model(tmp_path, labels=["r", "g", "b"])
    assert open_model(tmp_path).labels == ("r", "g", "b")


def test_an_export_that_cannot_be_converted_raises_with_the_reason(export: Path) -> None:
    with pytest.raises(
        ModelMissingError, match=r"converting it failed: .*expected an export of a fastai Learner"
    ):
        open_model(export.parent)
    assert not list(export.parent.glob("*.onnx"))


def test_a_conversion_that_is_killed_raises_with_the_reason(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(ModelMissingError, match=r"failed: it ended with code -9 .* memory"):
        open_model(export.parent)


@pytest.mark.slow
def test_a_model_of_another_compiler_is_converted_again(tiny_export: Path, tmp_path: Path) -> None:
    export = shutil.copy(tiny_export, tmp_path / "export.pkl")
    path = write_model(tmp_path, export_sha256=sha256_of(export), compiler_sha256="0" * 64)
    assert not is_up_to_date(path, export)
    assert open_model(tmp_path).labels == ("blue", "green", "red")
    assert is_up_to_date(path, export)


def test_a_model_that_stays_stale_is_converted_once(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter may be another copy of the package than the one that opens the model."""
    converted = []
    write_model(export.parent, export_sha256=sha256_of(export), compiler_sha256="0" * 64)
    monkeypatch.setattr(opening, "_convert", lambda folder, because: converted.append(folder))
    with pytest.raises(ModelStaleError, match="another version of icon_classifier"):
        open_model(export.parent)
    assert converted == [export.parent]


def test_a_missing_or_damaged_model_is_not_up_to_date(export: Path) -> None:
    model = export.with_suffix(".onnx")
    assert not is_up_to_date(model, export)
    model.write_bytes(b"nonsense")
    assert not is_up_to_date(model, export)
    write_model(export.parent, export_sha256=sha256_of(export))
    assert is_up_to_date(model, export)
    export.write_bytes(b"another learner")
    assert not is_up_to_date(model, export)
    export.unlink()
    assert is_up_to_date(model, export)


TOUCH_EACH_FILE = """
import sys
from pathlib import Path
from icon_classifier.model import info
from icon_classifier.model.opening import is_up_to_date

package, model, export = map(Path, sys.argv[1:])
assert Path(info.__file__).is_relative_to(package)
assert is_up_to_date(model, export)
for path in sorted(package.glob("*/*.py")):
    if path.parent.name in ("compact", "conversion", "model"):
        content = path.read_bytes()
        path.write_bytes(content + b"#")
        info.compiler_sha256.cache_clear()
        print(path.relative_to(package).as_posix(), is_up_to_date(model, export))
        path.write_bytes(content)
"""


def test_a_change_to_any_file_of_the_compiler_makes_the_model_stale(
    export: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path, export_sha256=sha256_of(export))
    package = tmp_path / "copy" / "icon_classifier"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-c", TOUCH_EACH_FILE, package, model, export],
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    results = dict(line.split() for line in done.stdout.splitlines())
    packages = ("compact", "conversion", "model")
    files = [path for package in packages for path in (PACKAGE / package).glob("*.py")]
    assert sorted(results) == sorted(path.relative_to(PACKAGE).as_posix() for path in files)
    assert set(results.values()) == {"False"}
    assert Model.load(model).labels == tuple(LABELS)
