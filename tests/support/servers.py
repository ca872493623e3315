"""Real servers for tests: on a free port, awaited, and their own error shown if they fail."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = "icon_classifier.ipynb"
PAGE = "page.ipynb"
START_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """A running server: its address (ends with a slash), process and log."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rstrip("/").rpartition(":")[2])

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def warnings(self) -> list[str]:
        """What Voilà's log warns of; a line without its name is a warning of a library."""
        fine = re.compile(r"\[Voila\] (?!WARNING|ERROR|CRITICAL)|    ")
        return [line for line in self.text.splitlines() if not fine.match(line)]


_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_FIRST = 20_000 + 500 * (_WORKER % 25)  # below, browsers refuse some, such as 10080
_ports = iter(random.sample(range(_FIRST, _FIRST + 500), 500))


def free_port() -> int:
    """Return a port that nobody else takes before it is bound.

    Below 32768: from there on systems pick ports for whoever asks for any, such as the kernels and
    browsers of other tests. Each worker has a range of its own. The UDP port of the same number,
    which this process keeps until it ends, reserves it among several runs on one machine.
    """
    for port in _ports:
        with (
            contextlib.suppress(OSError),
            socket.create_server(("127.0.0.1", port)),
            socket.socket(type=socket.SOCK_DGRAM) as reservation,
        ):
            reservation.bind(("127.0.0.1", port))
            reservation.detach()  # not closed with the block
            return port
    raise RuntimeError("no port is free")


def project_copy(folder: Path, model: Path | None = None) -> Path:
    """Copy what serving needs into a folder, with another model where one is given."""
    for name in (NOTEBOOK, "voila.json"):
        shutil.copy(ROOT / name, folder / name)
    if model is not None:
        shutil.copy(model, folder / "export.onnx")
    return folder


def write_page(
    folder: Path,
    cell: str,
    manager: str = "icon_classifier.server.app.PageKernelManager",
    **options: Any,
) -> None:
    """Write the notebook `PAGE` of one code cell, and a voila.json with its kernel manager."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, folder / PAGE)
    settings = {
        "VoilaConfiguration": {"multi_kernel_manager_class": manager},
        manager.rpartition(".")[2]: options,
    }
    (folder / "voila.json").write_text(json.dumps(settings))


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    ready: str,
    cwd: Path = ROOT,
    python: str | Path = sys.executable,
    path: Path = ROOT,
) -> Iterator[Server]:
    """Run a server until the block ends.

    Parameters
    ----------
    command : sequence of str
        Arguments for the Python.
    port : int
        Where it listens.
    ready : str
        A path that answers once the server is up.
    cwd : Path
        Its working folder.
    python : str or Path
        Another Python than this one.
    path : Path
        A folder that comes before this project on Python's path.

    Raises
    ------
    RuntimeError
        With the server's own log, if it ends early or is not up in time.
    """
    with tempfile.TemporaryDirectory() as home:
        log = Path(home) / "log.txt"
        jupyter = {f"JUPYTER_{name}_DIR": home for name in ("CONFIG", "DATA", "RUNTIME")}
        paths = os.pathsep.join(map(str, (path, ROOT)))
        environment = os.environ | jupyter | {"IPYTHONDIR": home, "PYTHONPATH": paths}
        # If C code ends one of its processes, the log tells in which line of Python.
        environment["PYTHONFAULTHANDLER"] = "1"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [python, *command], cwd=cwd, env=environment, stdout=file, stderr=file
            )
        server = Server(f"http://localhost:{port}/", process, log)
        try:
            _wait(server, ready)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Server, ready: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended with {server.process.returncode}:\n{server.text}")
        try:
            with urllib.request.urlopen(server.url + ready, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)  # between two looks at a condition, not in its place
    raise RuntimeError(f"the server was not up in {START_SECONDS:.0f} s:\n{server.text}")


@contextlib.contextmanager
def voila(
    folder: Path = ROOT,
    *options: str,
    notebook: str | None = NOTEBOOK,
    path: Path = ROOT,
    connect_timeout: float = START_SECONDS,
) -> Iterator[Server]:
    """Voilà as it is run on a host: a notebook of a folder or all, with its voila.json.

    The time to connect is longer than usual, as a browser on a busy machine needs it.
    """
    port = free_port()
    command = ["-m", "voila", f"--port={port}", "--Voila.port_retries=0", "--no-browser"]
    names = [] if notebook is None else [notebook]
    command += [*names, f"--VisitorKernelManager.connect_timeout={connect_timeout}", *options]
    with running(command, port=port, ready="healthz", cwd=folder, path=path) as server:
        yield server


@contextlib.contextmanager
def jupyter(folder: Path = ROOT, *options: str, token: str = "") -> Iterator[Server]:
    """A Jupyter server with Voilà and this package as its extensions.

    Its kernels' sockets are files: of ports that are free now and then another test takes one.
    """
    port = free_port()
    command = [
        *("-m", "jupyter_server", f"--port={port}", "--ServerApp.port_retries=0", "--no-browser"),
        *("--allow-root", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
        *("--KernelManager.transport=ipc", *options),
    ]
    with running(command, port=port, ready="api", cwd=folder) as server:
        yield server


@contextlib.contextmanager
def own_sockets() -> Iterator[Config]:
    """Give a kernel sockets that are files, for as long as it lives.

    A kernel on TCP is told which ports to take, and finds now and then that a browser or a server
    of another test took one in the meantime; nbclient then waits in vain.
    """
    # Not pytest's folder: the path of a socket may have 100 bytes or so.
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:
        yield Config({"KernelManager": {"transport": "ipc", "ip": str(Path(folder, "ipc"))}})
