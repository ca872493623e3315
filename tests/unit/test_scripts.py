"""Set-up, locking and serving, as far as they can be tested without installing anything."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scripts import environment, lock, prepare, pythons, serve
from scripts.environment import Environment, SetupError
from tests.support.models import write_model
from tests.support.servers import free_port

PLATFORMS = "sys_platform == 'darwin' or sys_platform == 'linux' or sys_platform == 'win32'"


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """The address of a server that answers everything with 403."""

    class Refuse(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    with HTTPServer(("127.0.0.1", 0), Refuse) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("line", "simple"),
    [
        ("a==1", "a==1"),
        ("a==1 \\", "a==1 \\"),
        ("    --hash=sha256:00", "    --hash=sha256:00"),
        (f"a==1 ; {PLATFORMS} \\", "a==1 \\"),
        ("a==1 ; b == 'c' \\", "a==1 ; b == 'c' \\"),
        (f"a==1 ; b == 'c' and ({PLATFORMS})", "a==1 ; b == 'c'"),
        (f"a==1 ; ({PLATFORMS}) and b == 'c' \\", "a==1 ; b == 'c' \\"),
        ("a==1 ; sys_platform == 'linux'", "a==1 ; sys_platform == 'linux'"),
    ],
)
def test_marker_keeps_only_what_is_not_always_true(line: str, simple: str) -> None:
    assert lock.simplify_marker(line) == simple


def test_locked_text_is_split_by_package() -> None:
    text = (
        "# header\n--extra-index-url https://example.invalid\n"
        "a==1 ; x \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"
        "a==2 ; y \\\n    --hash=sha256:02\nb==3\n# dev\nc==4\n"
    )
    blocks = environment.split_blocks(text)
    assert list(blocks) == ["a", "b", "c"]
    assert lock.without_hashes(blocks) == "a==1 ; x\na==2 ; y\nb==3\nc==4\n"


def test_torch_and_torchvision_are_found_among_the_pins() -> None:
    text = "thinc==8.3\ntorch==2.13.0\ntorchvision==0.28.0 ; sys_platform == 'linux'\ntorchx==1\n"
    assert environment.torch_pins(text) == ["torch==2.13.0", "torchvision==0.28.0"]


@pytest.mark.parametrize(
    ("wanted", "cuda"),
    [
        ([], False),
        (["sympy>=1.13", "nvidialike"], False),
        (['nvidia-ml; extra == "monitor"'], False),
        (["sympy", "nvidia-cublas==13"], True),
        (["triton==3.7"], True),
    ],
)
def test_cuda_build_is_recognized_in_pips_report(wanted: list[str], cuda: bool) -> None:
    report = {"install": [{"metadata": {"name": "torch", "requires_dist": wanted}}]}
    assert environment.needs_cuda(json.dumps(report)) == cuda


def test_report_without_requirements_has_no_cuda() -> None:
    assert not environment.needs_cuda('{"install": [{"metadata": {"name": "torch"}}]}')


def test_server_is_reachable_whatever_it_answers(refusing_server: str) -> None:
    assert environment.reachable(refusing_server)
    assert not environment.reachable(f"http://127.0.0.1:{free_port()}/")


def test_silent_server_is_unreachable_after_the_timeout(listener: int) -> None:
    assert not environment.reachable(f"http://127.0.0.1:{listener}/", timeout=0.1)


def test_program_that_exists_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "apt_install", pytest.fail)
    assert environment.ensure_program("sh").is_file()


def test_program_that_cannot_be_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []
    monkeypatch.setattr(environment, "apt_install", requested.append)
    with pytest.raises(SetupError, match="apt install no-such-program"):
        environment.ensure_program("no-such-program")
    assert requested == ["no-such-program"]


@pytest.mark.parametrize(("text", "port"), [("", 8866), ("80", 80), ("65535", 65535)])
def test_port_is_read(text: str, port: int) -> None:
    assert serve.port_from({"PORT": text}) == port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "8866.0", "²"])
def test_invalid_port_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="PORT must be a number from 1 to 65535"):
        serve.port_from({"PORT": text})


def test_port_in_use_is_refused_with_another_to_try(listener: int) -> None:
    with pytest.raises(SetupError, match=f"Port {listener} is in use.*make app PORT="):
        serve.check_port_is_free(listener)


def test_free_port_is_accepted() -> None:
    serve.check_port_is_free(free_port())


def test_step_runs_once_for_each_state(tmp_path: Path) -> None:
    done: list[str] = []
    made = Environment(tmp_path)
    for state in ("a", "a", "b"):
        made.step("packages", state, lambda state=state: done.append(state))
    made.step("torch", "a", lambda: done.append("torch"))
    assert done == ["a", "b", "torch"]
    assert json.loads(made.record.read_text()) == {"packages": "b", "torch": "a"}


@pytest.mark.parametrize(("error", "interrupted"), [(SetupError, False), (KeyboardInterrupt, True)])
def test_failed_step_runs_again(
    tmp_path: Path, error: type[BaseException], interrupted: bool
) -> None:
    def fail() -> None:
        raise error

    made = Environment(tmp_path)
    with pytest.raises(error):
        made.step("packages", "a", fail)
    assert not made.record.exists()
    assert made.unfinished.exists() == interrupted


def program(path: Path, script: str) -> str:
    """Write a shell script that may be run; return its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_only_pythons_that_run_and_have_wheels_are_used_the_newest_first(tmp_path: Path) -> None:
    new = program(tmp_path / "new", "echo 3 14")
    names = [
        sys.executable,
        program(tmp_path / "shim", "echo no such version >&2; exit 127"),
        program(tmp_path / "old", "echo 3 9"),
        program(tmp_path / "newer", "echo 3 99"),
        new,
        program(tmp_path / "same", f"echo 3 {sys.version_info[1]}"),
        str(tmp_path / "none"),
    ]
    expected = {14: new, sys.version_info[1]: sys.executable}
    assert list(environment.usable_pythons(names).items()) == list(expected.items())


def test_other_pythons_of_the_machine_are_found_on_path_and_where_pyenv_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "versions" / "3.14.1" / "bin"
    kept.mkdir(parents=True)
    found = program(kept / "python3", "echo 3 14")
    for minor in environment.MINORS:
        script = f"echo 3 {minor}" if minor in (12, sys.version_info[1]) else "exit 127"
        program(tmp_path / f"python3.{minor}", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(pythons, "FOLDERS", (str(kept.parents[1]),))
    expected = {14: found, 12: "python3.12"}
    expected.pop(sys.version_info[1], None)
    assert pythons.other_pythons() == expected


@pytest.mark.parametrize("path", [*pythons.TESTS, *pythons.NEED_TORCH])
def test_path_of_tests_for_other_pythons_exists(path: str) -> None:
    assert (environment.ROOT / path).exists()


def test_set_up_without_a_usable_python_says_what_to_install(tmp_path: Path) -> None:
    old = program(tmp_path / "old", "echo 3 9")
    with pytest.raises(SetupError, match=r"Python 3\.11 to 3\.14 is needed.*make app PYTHON="):
        Environment(tmp_path / "venv", old).create([])


CUDA = """echo '{"install": [{"metadata": {"requires_dist": ["triton"]}}]}'"""


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        ("echo 'ERROR: none' >&2; exit 1", "no torch==2.13.0 for Python 3.12 .*ERROR: none"),
        (CUDA, "for Python 3.12 is the CUDA build.*cpu-cp312-.*PIP_FIND_LINKS"),
    ],
)
def test_python_without_torch_for_cpus_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: str, message: str
) -> None:
    monkeypatch.setattr(environment, "reachable", lambda url: False)
    monkeypatch.setattr(sys, "platform", "linux")
    python = program(tmp_path / "python", f'if [ "$1" = -c ]; then echo 3 12; exit; fi; {pip}')
    with pytest.raises(SetupError, match=message):
        environment.torch_index(Path(python), ["torch==2.13.0"])


def test_older_python_is_taken_where_pip_has_no_torch_for_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_torch = {14, 13}
    created: list[int] = []

    def find_torch(python: Path, pins: list[str]) -> list[str]:
        if created[-1] in without_torch:
            raise SetupError("none")
        return []

    def usable(names: Sequence[str]) -> dict[int, str]:
        return {minor: f"python3.{minor}" for minor in environment.MINORS}

    monkeypatch.setattr(environment, "torch_index", find_torch)
    monkeypatch.setattr(environment, "usable_pythons", usable)
    monkeypatch.setattr(
        Environment, "_create_with", lambda self, python, minor: created.append(minor)
    )
    Environment(tmp_path).create(["torch==2.13.0"])
    assert created == [14, 13, 12]
    without_torch.update(environment.MINORS)
    Environment(tmp_path).create(["torch==2.13.0"])
    assert created[3:] == [14, 13, 12, 11]  # serving needs none: the last one stays


@pytest.mark.parametrize(
    ("asked", "made"), [("3 12", [12]), ("3 13", []), (None, [])], ids=["other", "same", "none"]
)
def test_environment_is_made_again_with_a_python_of_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, made: list[int]
) -> None:
    """The environment is of Python 3.13: what it runs exits with 0 where that is among those."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    program(tmp_path / ".venv" / "bin" / "python", 'case "$2" in *13*) exit 0;; *) exit 1;; esac')
    monkeypatch.delenv("PYTHON", raising=False)
    base = program(tmp_path / "base", f"echo {asked}") if asked else None
    created: list[int] = []
    monkeypatch.setattr(
        Environment, "_create_with", lambda self, python, minor: created.append(minor)
    )
    Environment(tmp_path / ".venv", base).create([])
    assert created == made


@pytest.mark.parametrize("converted", [True, False])
def test_torch_is_installed_for_serving_only_where_there_is_something_to_convert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, converted: bool
) -> None:
    write_model(tmp_path)
    if not converted:
        (tmp_path / "export.pkl").write_bytes(b"another than the one of export.onnx")
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(environment.ROOT))

    def install(*, torch: bool = True, **options: object) -> str:
        if torch:
            raise SetupError("pip finds no torch")
        return sys.executable

    monkeypatch.setattr(prepare, "install", install)
    if converted:
        assert prepare.prepare(only_serving=True) == sys.executable
    else:
        with pytest.raises(SetupError, match=r"pip finds no torch\n.*needs export\.onnx.*PYTHON="):
            prepare.prepare(only_serving=True)
    with pytest.raises(SetupError, match="pip finds no torch"):
        prepare.prepare()


@pytest.mark.parametrize("stopped", ["rmtree", "run"])
def test_creation_that_is_interrupted_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: str
) -> None:
    """Its Python would install into the one that it was made with."""

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    owner = environment.shutil if stopped == "rmtree" else environment
    monkeypatch.setattr(owner, stopped, interrupt)
    made = Environment(tmp_path / "venv", sys.executable)
    made.folder.mkdir()
    (made.folder / "pyvenv.cfg").touch()
    (made.folder / "lib").mkdir()
    with pytest.raises(KeyboardInterrupt):
        made._create_with(sys.executable, sys.version_info[1])
    assert made.unfinished.exists()


@pytest.mark.slow
def test_interrupted_environment_is_created_from_scratch(tmp_path: Path) -> None:
    made = Environment(tmp_path / "venv")
    (made.folder / "lib").mkdir(parents=True)
    (made.folder / "lib" / "half").touch()
    made.unfinished.touch()
    made.create([])
    assert not (made.folder / "lib" / "half").exists()
    assert subprocess.run([made.python, "-m", "pip", "--version"], check=False).returncode == 0
    made.create([])  # a complete one is left alone
