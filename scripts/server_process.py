"""Start, measure and stop a server as a host does."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.environment import ROOT, SetupError


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def tree_memory(pid: int) -> float:
    """Measure a process and its descendants in megabytes (2**20 bytes), shared pages counted once.

    The sum of the proportional set sizes, which is closest to what a host counts.
    """
    total = 0
    for current in _tree(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{current}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1])  # type: ignore[index]
    return total / 1024


def _tree(pid: int) -> list[int]:
    """List a process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


@dataclass
class ServerProcess:
    """A running server; the last two are set when it has ended."""

    url: str
    pid: int
    bind_seconds: float
    limited: bool
    stop_seconds: float = float("nan")
    exit_code: int = 0


@contextlib.contextmanager
def start(
    command: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str],
    port: int,
    *,
    megabytes: int | None = None,
    timeout: float = 60,
) -> Iterator[ServerProcess]:
    """Start a server, wait until its port is open, and end it with SIGTERM.

    `env` is its whole environment. Its memory is limited to `megabytes` where a control group can
    be made. :exc:`SetupError` if the port is not open after `timeout` seconds.
    """
    group = _memory_group(megabytes) if megabytes else None

    def join() -> None:
        if group:
            (group / "cgroup.procs").write_text(str(os.getpid()))

    log = ROOT / "build" / "server.log"
    log.parent.mkdir(exist_ok=True)
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
        bound = _await_port(process, port, began + timeout, log) - began
        url = f"http://127.0.0.1:{port}/"
        server = ServerProcess(url, process.pid, bound, limited=group is not None)
        yield server
        began = time.monotonic()
        for pid in _tree(process.pid):  # Heroku signals every process of the dyno
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.exit_code = process.wait(30)
        server.stop_seconds = time.monotonic() - began
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if group:
            _remove_group(group)


def _await_port(process: subprocess.Popen[bytes], port: int, end: float, log: Path) -> float:
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return time.monotonic()
        time.sleep(0.02)
    lines = log.read_text(errors="replace").splitlines()[-15:]
    raise SetupError("the server did not open its port:\n" + "\n".join(lines))


def _memory_group(megabytes: int) -> Path | None:
    """Make a control group (version 1 or 2) with a memory limit; None where that is impossible."""
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
        with contextlib.suppress(OSError):  # its last process is still ending
            return group.rmdir()
        time.sleep(0.05)
