"""What hosts read, and the tools that build for them and play them."""

import json
import os
import re
import sys
from pathlib import Path, PurePosixPath

import pytest

from scripts import deploy_check, hosts, release_model, slim
from scripts.environment import ROOT, SetupError
from tests.models import metadata


def test_serving_needs_neither_torch_nor_what_is_unused() -> None:
    staying = slim.closure(slim.ROOT_PACKAGE)
    assert {"icon-classifier", "voila", "onnxruntime", "ipykernel", "pillow"} <= staying
    assert not staying & {"torch", "torchvision", "fastai", "timm", "spacy", "onnx", "pandas"}
    assert not staying & slim.UNUSED


def test_what_is_unused_is_left_out_only_when_told() -> None:
    assert "debugpy" in slim.closure("ipykernel", unused=())
    assert "debugpy" not in slim.closure("ipykernel", unused=("debugpy",))
    assert slim.closure("no-such-package-here") == {"no-such-package-here"}


@pytest.mark.parametrize(
    ("path", "ballast"),
    [
        ("numpy/linalg/tests/test_linalg.py", True),
        ("numpy/testing/__init__.py", False),
        ("tests.py", False),
        ("babel/locale-data/fr.dat", True),
        ("babel/locale-data/en_GB.dat", False),
        ("babel/locale-data/root.dat", False),
        ("onnxruntime/transformers/optimizer.py", True),
        ("onnxruntime/capi/onnxruntime_pybind11_state.so", False),
        ("numpy/_core/lib/libnpymath.a", True),
        ("voila/static/voila.js.map", True),
        ("voila/app.py", False),
    ],
)
def test_ballast(path: str, ballast: bool) -> None:
    assert slim.is_ballast(PurePosixPath(path)) == ballast


def test_bytecode_without_source_and_empty_folders_go(tmp_path: Path) -> None:
    (tmp_path / "gone" / "__pycache__").mkdir(parents=True)
    (tmp_path / "gone" / "__pycache__" / "module.cpython-311.pyc").touch()
    (tmp_path / "kept" / "__pycache__").mkdir(parents=True)
    (tmp_path / "kept" / "module.py").touch()
    (tmp_path / "kept" / "__pycache__" / "module.cpython-311.pyc").touch()
    slim.remove_empty(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "kept",
        "kept/__pycache__",
        "kept/__pycache__/module.cpython-311.pyc",
        "kept/module.py",
    ]


def test_procfile_serves_the_notebook_alone_on_every_address() -> None:
    command = hosts.procfile_command(ROOT)
    assert re.match(r"voila icon_classifier\.ipynb --port=\$PORT ", command)
    assert "--Voila.ip=0.0.0.0" in command


def test_app_json_names_both_buildpacks_in_order() -> None:
    app = json.loads((ROOT / "app.json").read_text())
    assert [entry["url"] for entry in app["buildpacks"]] == ["heroku/nodejs", "heroku/python"]
    assert "http-session-affinity" in app["features"]


@pytest.mark.parametrize("name", ["bin/post_compile", "binder/postBuild", ".ci/run"])
def test_hooks_are_executable_and_stop_at_the_first_error(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert "set -euo pipefail" in (ROOT / name).read_text()


def test_python_is_the_same_everywhere() -> None:
    assert (ROOT / ".python-version").read_text().strip() == "3.11"
    assert (ROOT / "binder" / "runtime.txt").read_text().strip() == "python-3.11"
    stages = hosts.run_lines((ROOT / "Dockerfile").read_text())
    assert [stage[0] for stage in stages] == [
        ("FROM", "docker.io/library/python:3.11-slim-bookworm AS build"),
        ("FROM", "docker.io/library/python:3.11-slim-bookworm"),
    ]


def test_container_runs_as_somebody_else_with_a_health_check() -> None:
    final = dict(hosts.run_lines((ROOT / "Dockerfile").read_text())[1])
    assert final["USER"] == "1000"
    assert final["EXPOSE"] == "7860"
    assert "/healthz" in final["HEALTHCHECK"]


def test_dockerfile_lines_are_joined_by_stage() -> None:
    text = "# note\nARG x\nFROM a AS b\nRUN one && \\\n    two\n\nFROM c\nCOPY --from=b /x y\n"
    assert hosts.run_lines(text) == [
        [("FROM", "a AS b"), ("RUN", "one && two")],
        [("FROM", "c"), ("COPY", "--from=b /x y")],
    ]


def test_row_is_good_within_its_limit() -> None:
    assert deploy_check.Row("h", "w", 150.0, 150.0, "MB").good
    assert not deploy_check.Row("h", "w", 150.1, 150.0, "MB").good
    assert not deploy_check.Row("h", "w", float("nan"), 10.0, "s").good
    assert deploy_check.Row("h", "w", "words").good


def test_table_marks_what_is_too_much() -> None:
    rows = [deploy_check.Row("h", "size", 2.0, 1.0, "MB"), deploy_check.Row("h", "note", "words")]
    assert deploy_check.table(rows).splitlines()[2:] == [
        "| h | size | 2.0 MB | 1 MB | **too much** |",
        "| h | note | words |  |  |",
    ]


def test_a_server_is_started_measured_and_stopped(tmp_path: Path) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    port = hosts.free_port()
    code = f"import socketserver as s; s.TCPServer(('127.0.0.1', {port}), None).serve_forever()"
    with hosts.start([sys.executable, "-c", code], tmp_path, {}, port) as server:
        assert 0 < server.bind_seconds < 30
        assert 2 < hosts.tree_memory(server.pid) < 200
    assert server.code == -15
    assert server.stop_seconds < 10


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    command = [sys.executable, "-c", "print('no luck today')"]
    with (
        pytest.raises(SetupError, match="no luck today"),
        hosts.start(command, tmp_path, {}, hosts.free_port()),
    ):
        pass


def test_failed_step_is_told_with_its_last_words(tmp_path: Path) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    with pytest.raises(SetupError, match=r"bash failed with 3:\nno luck today"):
        hosts.call(["bash", "-c", "echo no luck today; exit 3"], tmp_path)


@pytest.mark.parametrize(
    ("after", "reason"),
    [(0.05, "error is 5.00%, the present one's 2.00%"), (None, "does not tell its error")],
)
def test_worse_figures_are_refused(after: float | None, reason: str) -> None:
    new = metadata(figures={} if after is None else {"error": after})
    with pytest.raises(SetupError, match=reason):
        release_model.check_figures(new, metadata(figures={"error": 0.02}))


def test_figures_as_good_or_of_other_classes_pass() -> None:
    old = metadata(figures={"error": 0.02})
    release_model.check_figures(metadata(figures={"error": 0.02}), old)
    release_model.check_figures(metadata(figures={"error": 0.5}, labels=["a", "b"]), old)
    release_model.check_figures(metadata(figures={}), metadata(figures={}))


def test_only_what_changed_is_told() -> None:
    old, new = metadata(temperature=1.0), metadata(temperature=1.5)
    assert list(release_model.changes(new, old)) == ["temperature: 1.0 -> 1.5"]


def test_missing_export_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no file"):
        release_model.release(tmp_path / "export.pkl", tmp_path)


def test_damaged_export_changes_nothing(tmp_path: Path) -> None:
    damaged = tmp_path / "new" / "export.pkl"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no pickle")
    page = tmp_path / "page"
    page.mkdir()
    (page / "export.pkl").write_bytes(b"the present one")
    with pytest.raises(Exception, match=r"export\.pkl"):
        release_model.release(damaged, page)
    assert [path.name for path in page.iterdir()] == ["export.pkl"]
    assert (page / "export.pkl").read_bytes() == b"the present one"
