"""How each host builds and starts this project, played on one machine.

Nothing here knows limits: :mod:`scripts.deploy_check` compares what comes back with them.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.environment import CPU_INDEX, ROOT, SetupError, reachable

__all__ = [
    "Started",
    "call",
    "clone",
    "free_port",
    "fresh",
    "install_requirements",
    "pack",
    "procfile_command",
    "run_lines",
    "start",
    "tree_memory",
    "venv",
]


def call(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a step of a build with its output in build/deploy-check.log.

    Raises
    ------
    SetupError
        If it fails, with the end of its output.
    """
    log = ROOT / "build" / "deploy-check.log"
    with log.open("a") as file:
        file.write(f"\n$ {' '.join(map(str, command))}\n")
        file.flush()
        begin = file.tell()
        answer = subprocess.run(
            command, cwd=cwd, env=env, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if answer.returncode:
        end = "\n".join(log.read_bytes()[begin:].decode(errors="replace").splitlines()[-15:])
        raise SetupError(f"{command[0]} failed with {answer.returncode}:\n{end}")


def clone(folder: Path) -> Path:
    """Clone what is committed here into a fresh folder."""
    call(["git", "clone", "--quiet", "--no-local", ROOT, folder], ROOT)
    return folder


def install_requirements(python: Path, requirements: Path) -> str:
    """Install as a host does by itself, PyTorch's CPU index left out where it does not answer.

    Returns
    -------
    str
        A remark for the table: what differs from the host.
    """
    text = requirements.read_text()
    remark = ""
    if not reachable(f"{CPU_INDEX}/torch/"):
        text = re.sub(r"^--extra-index-url .*\n", "", text, flags=re.MULTILINE)
        remark = "without PyTorch's index, which is out of reach here"
    reduced = requirements.with_name("requirements-played.txt")
    reduced.write_text(text)
    # Bytecode of what stays is made after trimming: the same in the end, minutes sooner.
    command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
    call([*command, "-r", reduced], requirements.parent)
    reduced.unlink()
    return remark


def pack(folder: Path, target: Path, leave_out: Sequence[str] = ()) -> float:
    """Pack a folder as a slug is packed and return the size in megabytes (1e6 bytes)."""

    def keep(item: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(item.name).name in leave_out else item

    with tarfile.open(target, "w:gz", compresslevel=6) as archive:
        archive.add(folder, arcname="app", filter=keep)
    return target.stat().st_size / 1e6


def procfile_command(folder: Path) -> str:
    """Read the command of the web process."""
    match = re.search(r"^web: (.+)$", (folder / "Procfile").read_text(), re.MULTILINE)
    if match is None:
        raise SetupError("Procfile has no line for web")
    return match[1]


def run_lines(dockerfile: str) -> list[list[tuple[str, str]]]:
    """Read the instructions of each stage of a Dockerfile, continued lines joined.

    Returns
    -------
    list of list of (str, str)
        For each stage its instructions: the word in capitals, and the rest of the line.
    """
    joined = re.sub(r"\\\n\s*", "", dockerfile)
    stages: list[list[tuple[str, str]]] = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stages.append([])
        if word.isupper() and stages:
            stages[-1].append((word, rest.strip()))
    return stages


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def tree_memory(pid: int) -> float:
    """Measure a process and its descendants in megabytes (1e6 bytes), shared pages counted once.

    Proportional set size, summed: what a host's own counter of the container comes nearest to.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    waiting, total = [pid], 0
    while waiting:
        current = waiting.pop()
        waiting += children.get(current, [])
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{current}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total * 1024 / 1e6


@dataclass
class Started:
    """A server that was started as a host starts it.

    Attributes
    ----------
    url : str
        Its address.
    pid : int
        Its process.
    bind_seconds : float
        From the start to the first connection.
    stop_seconds : float
        From SIGTERM to the end; NaN while it runs.
    code : int
        Its exit code; 0 while it runs.
    """

    url: str
    pid: int
    bind_seconds: float
    stop_seconds: float = float("nan")
    code: int = 0


@contextlib.contextmanager
def start(
    command: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str],
    port: int,
    *,
    megabytes: int | None = None,
    limit: float = 60,
) -> Iterator[Started]:
    """Start a server, wait for its port, and end it with SIGTERM.

    Parameters
    ----------
    command, cwd, env
        What the host runs, where, and all of its environment.
    port : int
        Where it is to listen.
    megabytes : int, optional
        Memory at which the kernel (a control group) ends it, where such limits can be set here.
    limit : float
        Seconds for the port to answer, as on the host.
    """
    group = _memory_group(megabytes) if megabytes else None

    def join() -> None:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    log = ROOT / "build" / "deploy-check-server.log"
    with log.open("wb") as file:
        began = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(env),
            stdout=file,
            stderr=subprocess.STDOUT,
            preexec_fn=join,
            start_new_session=True,
        )
    try:
        bound = _await_port(process, port, began + limit, log) - began
        started = Started(f"http://127.0.0.1:{port}/", process.pid, bound)
        yield started
        began = time.monotonic()
        os.killpg(process.pid, signal.SIGTERM)  # a host signals every process of the dyno
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.code = process.wait(30)
        started.stop_seconds = time.monotonic() - began
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if group:
            _remove_group(group)


def _await_port(process: subprocess.Popen[bytes], port: int, end: float, log: Path) -> float:
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return time.monotonic()
        time.sleep(0.02)  # between two looks at a condition, not in its place
    lines = log.read_text(errors="replace").splitlines()[-15:]
    raise SetupError("the server does not listen:\n" + "\n".join(lines))


def _memory_group(megabytes: int) -> Path | None:
    """Make a control group with a limit on memory, of either version; None where that cannot be."""
    for root, name in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = root / f"icon-classifier-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            (group / name).write_text(str(megabytes * 2**20))
            return group
    return None


def _remove_group(group: Path) -> None:
    for _ in range(100):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.05)  # its last process is still leaving
        else:
            return


def venv(folder: Path) -> Path:
    """Make a fresh virtual environment and return its Python."""
    call([sys.executable, "-m", "venv", folder], ROOT)
    return folder / "bin" / "python"


def fresh(folder: Path) -> Path:
    """Empty a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
