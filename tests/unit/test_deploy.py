"""The files that hosts read, and the scripts that build for them and imitate Heroku."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path, PurePosixPath

import pytest
import yaml

from scripts import deploy_check, prepare, release_model, server_process, slim
from scripts.environment import ROOT, SetupError
from tests.support.models import metadata
from tests.support.servers import free_port


def test_serving_needs_neither_torch_nor_unused_packages() -> None:
    staying = slim.closure(slim.ROOT_PACKAGE)
    assert {"icon-classifier", "voila", "onnxruntime", "ipykernel", "pillow"} <= staying
    assert not staying & {"torch", "torchvision", "fastai", "timm", "spacy", "onnx", "pandas"}
    assert not staying & slim.UNUSED


def test_closure_leaves_out_what_is_named_unused() -> None:
    assert "debugpy" in slim.closure("ipykernel", unused=())
    assert "debugpy" not in slim.closure("ipykernel", unused=("debugpy",))
    assert slim.closure("no-such-package-here") == {"no-such-package-here"}


@pytest.mark.parametrize(
    ("path", "unused"),
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
def test_unused_files_are_recognized(path: str, unused: bool) -> None:
    assert slim.is_unused(PurePosixPath(path)) == unused


def test_bytecode_without_source_and_empty_folders_are_removed(tmp_path: Path) -> None:
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


def test_image_is_built_without_what_git_ignores() -> None:
    """Photos above all: a layer of the image would keep them."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for pattern in (ROOT / ".gitignore").read_text().splitlines():
        if pattern and not pattern.startswith("#"):
            anywhere = "" if pattern.startswith("/") else "**/"
            assert anywhere + pattern.strip("/") in ignored


def test_procfile_serves_only_the_notebook_on_every_address() -> None:
    command = deploy_check.procfile_command(ROOT)
    assert re.match(r"voila icon_classifier\.ipynb --port=\$PORT ", command)
    assert "--Voila.ip=0.0.0.0" in command


def test_procfile_trusts_the_router_of_the_host() -> None:
    """Heroku's adds each client's address; without it all visitors would be one client."""
    command = deploy_check.procfile_command(ROOT)
    for variables, expected in (("", "=1"), ("PROXIES=2; ", "=2")):
        script = f"{variables}PORT=1; printf '%s\n' {command}"
        printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert f"--PageKernelManager.trusted_proxies{expected}" in printed.stdout.splitlines()


def test_app_json_names_the_python_buildpack_and_session_affinity() -> None:
    app = json.loads((ROOT / "app.json").read_text())
    assert [entry["url"] for entry in app["buildpacks"]] == ["heroku/python"]
    assert "http-session-affinity" in app["features"]


@pytest.mark.parametrize("name", ["bin/post_compile", "binder/postBuild", ".ci/run"])
def test_hooks_are_executable_and_stop_at_the_first_error(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)
    assert "set -euo pipefail" in (ROOT / name).read_text()


def test_post_compile_compiles_before_it_removes() -> None:
    lines = (ROOT / "bin" / "post_compile").read_text().splitlines()
    prepared = lines.index("python -m scripts.prepare --here")
    assert prepared < lines.index("python -m scripts.slim --remove")
    assert lines[-1].startswith("rm -rf ")
    assert not [line for line in lines[:prepared] if line.startswith("rm ")]


def test_every_host_has_the_same_python() -> None:
    assert (ROOT / ".python-version").read_text().strip() == "3.11"
    assert (ROOT / "binder" / "runtime.txt").read_text().strip() == "python-3.11"
    image = r"^FROM docker\.io/library/(\S+)@sha256:[0-9a-f]{64}"
    images = re.findall(image, (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert images == ["python:3.11-slim-bookworm"] * 2


def test_image_serves_as_the_procfile_does_without_root_or_the_learner() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    final = text.rpartition("\nFROM ")[2]
    assert "\nUSER 1000\n" in final
    assert "\nEXPOSE 7860\n" in final
    assert "PORT=7860" in final
    command = json.loads(re.findall(r"^CMD (.+)$", final, re.MULTILINE)[0])
    # The same as on Heroku, but for the order of the options and the router: what stands in front
    # of a container nobody knows.
    expected = shlex.split("exec " + deploy_check.procfile_command(ROOT))
    expected.remove("--PageKernelManager.trusted_proxies=${PROXIES:-1}")
    assert command[:2] == ["sh", "-c"]
    assert sorted(shlex.split(command[2])) == sorted(expected)
    health = json.loads(final.partition("HEALTHCHECK ")[2].partition("CMD ")[2].splitlines()[0])
    assert "/healthz" in health[2]
    compile(health[2], "HEALTHCHECK", "exec")
    assert "export.onnx" in final
    assert "/app/examples examples" in final
    assert "/app/export.m[d] " in final
    assert "export.pkl" not in final


def test_kubernetes_manifest_names_the_port_of_the_image() -> None:
    port = int(re.findall(r"^EXPOSE (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[0])
    text = (ROOT / "docs" / "deploying.md").read_text()
    manifest = re.search(r"^    apiVersion: apps/v1\n(?:(?:    .*)?\n)+", text, re.MULTILINE)
    assert manifest is not None
    deployment, service, ingress = yaml.safe_load_all(textwrap.dedent(manifest[0]))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"containerPort": port}]
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": port}
    [exposed] = service["spec"]["ports"]
    assert exposed["targetPort"] == port
    [rule] = ingress["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {
        "name": service["metadata"]["name"],
        "port": {"number": exposed["port"]},
    }


def test_server_is_started_measured_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    code = f"import socketserver as s; s.TCPServer(('127.0.0.1', {port}), None).serve_forever()"
    with server_process.start([sys.executable, "-c", code], tmp_path, {}, port) as server:
        assert 0 < server.bind_seconds < 30
        assert 2 < server_process.tree_memory(server.pid) < 200
    assert server.exit_code == -15
    assert server.stop_seconds < 10


def test_server_that_ends_raises_with_the_end_of_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the reason')"]
    with (
        pytest.raises(SetupError, match="the reason"),
        server_process.start(command, tmp_path, {}, free_port()),
    ):
        pass


def test_failed_step_raises_with_the_end_of_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy_check, "LOG", tmp_path / "log")
    with pytest.raises(SetupError, match=r"bash failed with 3:\nthe reason"):
        deploy_check.call(["bash", "-c", "echo the reason; exit 3"], tmp_path)


@pytest.mark.parametrize(("value", "good"), [(1.0, True), (1.1, False), (float("nan"), False)])
def test_figure_must_be_within_its_limit(value: float, good: bool) -> None:
    assert deploy_check.within("size", value, 1.0, "MB") == good


def test_build_fails_when_the_model_does_not_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    prepare.convert_model("false")  # without an export.pkl there is nothing to convert
    (tmp_path / "export.pkl").touch()
    with pytest.raises(SetupError, match=r"export\.pkl could not be converted"):
        prepare.convert_model("false")


def test_learner_without_a_card_gets_one_that_says_so() -> None:
    card = release_model.bare_card(metadata(figures={"error": 0.25, "confusion": [[1]]}))
    assert card.startswith("# Model card: red, green, blue\n")
    assert "released without a card" in card
    assert "- error: 0.25\n" in card
    assert "confusion" not in card
    assert "Unknown" in release_model.bare_card(metadata(figures={}))


@pytest.mark.parametrize(
    ("after", "reason"),
    [(0.05, "error is 5.00%, the present one's 2.00%"), (None, "has no error figure")],
)
def test_worse_figures_are_refused(after: float | None, reason: str) -> None:
    new = metadata(figures={} if after is None else {"error": after})
    with pytest.raises(SetupError, match=reason):
        release_model.check_figures(new, metadata(figures={"error": 0.02}))


def test_equal_figures_and_those_of_other_classes_are_accepted() -> None:
    old = metadata(figures={"error": 0.02})
    release_model.check_figures(metadata(figures={"error": 0.02}), old)
    release_model.check_figures(metadata(figures={"error": 0.5}, labels=["a", "b"]), old)
    release_model.check_figures(metadata(figures={}), metadata(figures={}))


def test_only_changed_metadata_is_listed() -> None:
    old, new = metadata(temperature=1.0), metadata(temperature=1.5)
    assert list(release_model.changes(new, old)) == ["temperature: none -> 1.5"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "expected the file of a trained model, got none; make release-model EXPORT="),
        ("{tmp}/none.pkl", "there is no file {tmp}/none.pkl; make release-model EXPORT="),
        ("~/none.pkl", "there is no file {tmp}/none.pkl; make release-model EXPORT="),
        ("{tmp}/" + 300 * "x", "File name too long"),
        ("{tmp}/photo.jpg", "{tmp}/photo.jpg"),
    ],
)
def test_what_is_no_model_is_not_released(
    name: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")

    assert release_model.main([name.format(tmp=tmp_path)]) == 1

    error = capsys.readouterr().err
    assert error.startswith("\nNot released: ")
    assert reason.format(tmp=tmp_path) in error
    assert ".release-" not in error


def test_released_model_is_committed_and_taken_back_with_its_names(tmp_path: Path) -> None:
    def run(command: str) -> None:
        identity = "export GIT_{AUTHOR,COMMITTER}_{NAME,EMAIL}=a"
        subprocess.run(["bash", "-ec", f"{identity}\n{command}"], cwd=tmp_path, check=True)

    def write(content: str, *names: str) -> None:
        for name in names:
            (tmp_path / name).write_text(content)

    def contents() -> dict[str, str]:
        return {path.name: path.read_text() for path in tmp_path.glob("export.*")}

    shutil.copy(ROOT / ".gitignore", tmp_path)
    write("first", "export.pkl", "export.md", "export.onnx")
    run(f"git init -q && {release_model.COMMIT}")
    write("second", "export.pkl", "export.md", "export.onnx", "export.names.txt")
    run(release_model.GO_BACK)
    assert contents() == {"export.pkl": "first", "export.md": "first", "export.onnx": "second"}

    run(f"git stash pop && {release_model.COMMIT} && git clone -q . export.copy")
    committed = {path.name for path in (tmp_path / "export.copy").glob("export.*")}
    assert committed == {"export.pkl", "export.md", "export.names.txt"}


def test_missing_export_is_refused(tmp_path: Path) -> None:
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
