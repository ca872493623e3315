"""The scripts behind the Makefile, as far as they can be tried without installing anything."""

import json
import socket
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scripts import environment, lock, serve
from scripts.environment import Environment, SetupError


@pytest.fixture
def listener() -> Iterator[int]:
    """The number of a port that is in use."""
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
        (
            "a==1 ; (python_full_version < '3.12' and sys_platform == 'darwin') or "
            "(python_full_version < '3.12' and sys_platform == 'linux') or "
            "(python_full_version < '3.12' and sys_platform == 'win32') \\",
            "a==1 \\",
        ),
        (
            "a==1 ; python_full_version < '3.12' and sys_platform == 'win32' \\",
            "a==1 ; sys_platform == 'win32' \\",
        ),
        (
            "a==1 ; (os_name == 'nt' and python_full_version < '3.12' and sys_platform == 'win32')",
            "a==1 ; (os_name == 'nt' and sys_platform == 'win32')",
        ),
        (
            "a==1 ; python_full_version < '3.11.5' and sys_platform == 'linux'",
            "a==1 ; python_full_version < '3.11.5' and sys_platform == 'linux'",
        ),
    ],
)
def test_marker_says_only_what_is_not_always_true(line: str, simple: str) -> None:
    assert lock.simplify_marker(line) == simple


def test_locked_text_is_split_by_package() -> None:
    text = (
        "# header\n--extra-index-url https://example.invalid\n"
        "a==1 ; x \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"
        "a==2 ; y \\\n    --hash=sha256:02\nb==3\n"
    )
    blocks = lock.split_blocks(text)
    assert list(blocks) == ["a", "b"]
    assert lock.without_hashes(blocks["a"]) == "a==1 ; x\na==2 ; y\n"
    assert lock.without_hashes(blocks["b"]) == "b==3\n"


def test_newest_versions_are_any_versions() -> None:
    text = "# torch==1 is old\ntorch==2.13.0\nvoila==0.5.* ; x\ntimm\na-b>=1,<2\n"
    assert lock.without_versions(text) == "# torch==1 is old\ntorch\nvoila; x\ntimm\na-b\n"


def test_torch_and_its_companion_are_found_among_the_pins() -> None:
    text = "thinc==8.3\ntorch==2.13.0\ntorchvision==0.28.0 ; sys_platform == 'linux'\ntorchx==1\n"
    assert environment.torch_pins(text) == ["torch==2.13.0", "torchvision==0.28.0"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], []),
        (["sympy>=1.13", "nvidialike"], []),
        (['nvidia-ml; extra == "monitor"'], []),
        (["nvidia-cublas==13", "sympy", "triton==3.7"], ["nvidia-cublas==13", "triton==3.7"]),
    ],
)
def test_cuda_is_found_in_pips_report(wanted: list[str], found: list[str]) -> None:
    report = {"install": [{"metadata": {"name": "torch", "requires_dist": wanted}}]}
    assert environment.cuda_requirements(json.dumps(report)) == found


def test_a_report_without_requirements_has_no_cuda() -> None:
    assert environment.cuda_requirements('{"install": [{"metadata": {"name": "torch"}}]}') == []


def test_digest_tells_where_one_part_ends(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("ab")
    assert environment.digest(file) == environment.digest("ab")
    assert environment.digest("ab", "c") != environment.digest("a", "bc")
    assert environment.digest(tmp_path / "missing") == environment.digest("")


def test_an_answer_is_an_answer_and_silence_is_not(refusing_server: str) -> None:
    assert environment.reachable(refusing_server)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert not environment.reachable(f"http://127.0.0.1:{port}/")


def test_a_silent_server_is_given_up_soon(listener: int) -> None:
    assert not environment.reachable(f"http://127.0.0.1:{listener}/", timeout=0.1)


@pytest.mark.parametrize(("text", "port"), [("", 8866), ("80", 80), ("65535", 65535)])
def test_port_is_read(text: str, port: int) -> None:
    assert serve.port_from({"PORT": text}) == port


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "8866.0", "²"])
def test_port_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="PORT must be a number from 1 to 65535"):
        serve.port_from({"PORT": text})


def test_port_in_use_is_told_with_a_way_out(listener: int) -> None:
    with pytest.raises(SetupError, match=f"Port {listener} is in use.*make app PORT="):
        serve.check_port_is_free(listener)


def test_free_port_passes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    serve.check_port_is_free(port)


def test_step_is_done_once_for_each_state(tmp_path: Path) -> None:
    done: list[str] = []
    made = Environment(tmp_path)
    for state in ("a", "a", "b"):
        made.step("packages", state, lambda state=state: done.append(state))
    made.step("torch", "a", lambda: done.append("torch"))
    assert done == ["a", "b", "torch"]
    assert json.loads(made.record.read_text()) == {"packages": "b", "torch": "a"}


@pytest.mark.parametrize(("error", "cut_short"), [(SetupError, False), (KeyboardInterrupt, True)])
def test_failed_step_is_done_again(
    tmp_path: Path, error: type[BaseException], cut_short: bool
) -> None:
    def fail() -> None:
        raise error

    made = Environment(tmp_path)
    with pytest.raises(error):
        made.step("packages", "a", fail)
    assert not made.record.exists()
    assert made.unfinished.exists() == cut_short


def test_environment_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    made = Environment(tmp_path / "venv")
    (made.folder / "lib").mkdir(parents=True)
    (made.folder / "lib" / "half").touch()
    made.unfinished.touch()
    made.create()
    assert not (made.folder / "lib" / "half").exists()
    assert subprocess.run([made.python, "-m", "pip", "--version"], check=False).returncode == 0
    made.create()  # and what is whole is left alone
