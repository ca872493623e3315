"""What hosts read, and the tools that build for them and play them."""

import json
import os
import re
import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest

from scripts import container, hosts, lock, plays, prepare, release_model, rows, slim, starting
from scripts.environment import ROOT, SetupError, digest
from tests.support.models import metadata


def test_serving_needs_neither_torch_nor_what_is_unused() -> None:
    staying = slim.closure(slim.ROOT_PACKAGE)
    assert {"icon-classifier", "voila", "onnxruntime", "ipykernel", "pillow"} <= staying
    assert not staying & {"torch", "torchvision", "fastai", "timm", "spacy", "onnx", "pandas"}
    assert not staying & slim.UNUSED


def test_what_slows_a_server_down_is_neither_set_up_nor_kept() -> None:
    assert not set(lock.SLOW) & set(lock.split_blocks((ROOT / "requirements.lock").read_text()))
    # A host's own pip installs them all the same: then their versions are locked at least.
    assert set(lock.SLOW) <= set(lock.split_blocks((ROOT / "requirements.txt").read_text()))
    assert not set(lock.SLOW) & slim.closure(slim.ROOT_PACKAGE)


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
    text = (ROOT / "Dockerfile").read_text()
    image = container.Image.read(text)
    assert image.user == "1000"
    assert image.settings["PORT"] == "7860"
    assert f"\nEXPOSE {image.settings['PORT']}\n" in text
    assert image.health[:2] == ["python", "-c"]
    assert "/healthz" in image.health[2]
    compile(image.health[2], "HEALTHCHECK", "exec")
    assert image.command[:2] == ["sh", "-c"]
    # The same as on Heroku, but for the order of words.
    assert sorted(image.command[2].split()) == sorted(
        ["exec", *hosts.procfile_command(ROOT).split()]
    )


def test_second_stage_has_all_that_serving_needs_and_no_learner() -> None:
    image = container.Image.read((ROOT / "Dockerfile").read_text())
    sources = {source for sources, _ in image.copies for source in sources}
    assert {"/app/.venv", "/app/export.onnx", "/app/voila.json"} <= sources
    assert {"/app/icon_classifier", "/app/icon_classifier.ipynb"} <= sources
    assert "/app/export.pkl" not in sources


def test_what_dockerignore_names_is_left_out(tmp_path: Path) -> None:
    for name in ("a/node_modules/x", "tests/x", "kept/x", ".git/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    container.leave_out(tmp_path, "tests\n.git\n**/node_modules\nnowhere\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "kept"]
    assert not list((tmp_path / "a").iterdir())


def test_without_mounts_a_stage_is_played_in_its_own_folder(tmp_path: Path) -> None:
    build = tmp_path / "build"
    for name in (".venv/bin/tool", "template/voila/page", "template/src/x", "export.pkl"):
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        (build / name).touch()
    copies = [(["/app/.venv"], ".venv"), (["/app/template/voila"], "template/voila")]
    line = "echo $HOME > home; pwd > where"
    settings = {"PATH": "/app/.venv/bin:$PATH", "HOME": "/tmp", "OTHER": "/x/app"}
    image = container.Image([line], copies, settings, "1000", [], ["sh", "-c", "test -e where"])
    room = container.Room(tmp_path, None, mounts=False)
    room.build(image, build)
    assert (build / "where").read_text().strip() == str(build)
    assert room.second_stage(image, build) == build
    left = [path.relative_to(build) for path in build.rglob("*") if path.is_file()]
    assert sorted(map(str, left)) == [".venv/bin/tool", "template/voila/page"]
    with pytest.raises(SetupError, match="sh failed with 1"):
        room.check_health(image, build, settings)


def test_ways_to_the_registries_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", f"file://{tmp_path} https://example.invalid/x")
    monkeypatch.setenv("UNRELATED", "/")
    found = hosts.ways_out()
    assert found["PIP_FIND_LINKS"] == f"file://{tmp_path} https://example.invalid/x"
    assert "UNRELATED" not in found
    assert tmp_path in hosts.local_ways_out()


def test_dockerfile_lines_are_joined_by_stage() -> None:
    text = "# note\nARG x\nFROM a AS b\nRUN one && \\\n    two\n\nFROM c\nCOPY --from=b /x y\n"
    assert hosts.run_lines(text) == [
        [("FROM", "a AS b"), ("RUN", "one && two")],
        [("FROM", "c"), ("COPY", "--from=b /x y")],
    ]


def test_row_is_good_within_its_limit() -> None:
    assert rows.Row("h", "w", 150.0, 150.0, "MB").good
    assert not rows.Row("h", "w", 150.1, 150.0, "MB").good
    assert not rows.Row("h", "w", float("nan"), 10.0, "s").good
    assert rows.Row("h", "w", "words").good


def test_table_marks_what_is_too_much() -> None:
    lines = [rows.Row("h", "size", 2.0, 1.0, "MB"), rows.Row("h", "note", "words")]
    assert rows.table(lines).splitlines()[2:] == [
        "| h | size | 2.0 MB | 1 MB | **too much** |",
        "| h | note | words |  |  |",
    ]


def test_a_server_is_started_measured_and_stopped(tmp_path: Path) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    port = starting.free_port()
    code = f"import socketserver as s; s.TCPServer(('127.0.0.1', {port}), None).serve_forever()"
    with starting.start([sys.executable, "-c", code], tmp_path, {}, port) as server:
        assert 0 < server.bind_seconds < 30
        assert 2 < starting.tree_memory(server.pid) < 200
    assert server.code == -15
    assert server.stop_seconds < 10


def test_a_server_that_does_not_stop_is_too_slow(tmp_path: Path) -> None:
    stopped = starting.Started("http://127.0.0.1:1/", 1, 0.1, stop_seconds=10.1, code=1)
    assert [row.good for row in plays.stopping_rows("h", stopped)] == [False, False]
    stopped = starting.Started("http://127.0.0.1:1/", 1, 0.1, stop_seconds=9.9)
    assert [row.good for row in plays.stopping_rows("h", stopped)] == [True, True]


def test_a_server_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    command = [sys.executable, "-c", "print('no luck today')"]
    with (
        pytest.raises(SetupError, match="no luck today"),
        starting.start(command, tmp_path, {}, starting.free_port()),
    ):
        pass


def test_failed_step_is_told_with_its_last_words(tmp_path: Path) -> None:
    (ROOT / "build").mkdir(exist_ok=True)
    with pytest.raises(SetupError, match=r"bash failed with 3:\nno luck today"):
        hosts.call(["bash", "-c", "echo no luck today; exit 3"], tmp_path)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A folder to build in, whose hook does nothing but compile the model with this Python."""
    for name in ("icon_classifier", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("export.pkl", "export.pkl.sha256"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    line = "from scripts.prepare import compile_model as c; import pathlib, sys; "
    line += "c(pathlib.Path(sys.executable))"
    hook = tmp_path / "bin" / "post_compile"
    hook.write_text(f'set -e\n{sys.executable} -c "{line}"\ntouch served\n')
    return tmp_path


def test_build_with_an_export_that_does_not_convert_gives_the_reason(build: Path) -> None:
    names = ("export.pkl", "export.pkl.sha256")
    reason = plays.refused_build(build, os.environ)
    assert "export.pkl" in reason
    assert not (build / "served").exists()
    assert [digest(build / name) for name in names] == [digest(ROOT / name) for name in names]


def test_a_build_that_takes_anything_is_found_out(build: Path) -> None:
    (build / "bin" / "post_compile").write_text("echo took export.pkl\n")
    with pytest.raises(SetupError, match="was taken for a whole one:\ntook export"):
        plays.refused_build(build, os.environ)


def test_hooks_compile_before_anything_is_removed() -> None:
    lines = (ROOT / "bin" / "post_compile").read_text().splitlines()
    order = [line.split()[0] + line.split()[-1] for line in lines if line[:1] not in {"", "#"}]
    assert order.index("python--here") < order.index("python--remove") < len(order) - 1
    assert lines[-1].startswith("rm -rf ")


def test_model_is_compiled_again_when_anything_it_is_made_of_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    (tmp_path / "icon_classifier").mkdir()
    states = {prepare.model_state()}
    for name in ("export.pkl", "export.pkl.sha256", "icon_classifier/padding.py"):
        (tmp_path / name).write_text("changed")
        states.add(prepare.model_state())
    assert len(states) == 4


def test_a_learner_without_a_card_gets_one_that_says_so() -> None:
    card = release_model.bare_card(metadata(figures={"error": 0.25, "confusion": [[1]]}))
    assert card.startswith("# Model card: red, green, blue\n")
    assert "came without a card" in card
    assert "- error: 0.25\n" in card
    assert "confusion" not in card
    assert "Not known" in release_model.bare_card(metadata(figures={}))


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
