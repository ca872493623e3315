"""A server started, measured and stopped as a host does it."""

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
    """Return a port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def tree_memory(pid: int) -> float:
    """Measure a process and its descendants in megabytes (2**20 bytes), shared pages counted once.

    Proportional set size, summed: what a host's own counter of the container comes nearest to.
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
    limited : bool
        Whether its memory is limited.
    """

    url: str
    pid: int
    bind_seconds: float
    stop_seconds: float = float("nan")
    code: int = 0
    limited: bool = False


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
        limited = group is not None
        started = Started(f"http://127.0.0.1:{port}/", process.pid, bound, limited=limited)
        yield started
        began = time.monotonic()
        for pid in _tree(process.pid):  # a host signals every process of the dyno
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
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
