"""Processes of tests: forked, on a terminal, and what is in the memory of one."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import subprocess
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.servers import ROOT


def forked(function: Callable[[], object]) -> int:
    """Fork, call the function in the child, and return the child's process id.

    The child exits with 0, or with 1 and a traceback if the function raises.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def exit_code(pid: int) -> int:
    """Wait for a child and return its exit code; negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_on_terminal(
    command: Sequence[str], environment: Mapping[str, str] = os.environ
) -> tuple[int, str]:
    """Return the exit code and what the terminal received."""
    import pty  # not on Windows

    screen, terminal = pty.openpty()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        with open(screen, "rb", buffering=0) as file, contextlib.suppress(OSError):  # noqa: PTH123
            while part := file.read(4096):  # an OSError ends it on Linux
                shown += part
    return process.returncode, shown.decode()


@contextlib.contextmanager
def allocating_less_than(size: float) -> Iterator[None]:
    """Fail if Python holds this many bytes or more, at any moment, that the block allocated."""
    tracemalloc.start()
    try:
        yield
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < size, f"expected less than {size} bytes, got {most}"


@contextlib.contextmanager
def _stopped(process: int) -> Iterator[None]:
    """Stop another process: else memory that was listed may be unmapped before it is read."""
    if process == os.getpid():
        yield
        return
    stopped = psutil.Process(process)
    stopped.suspend()
    try:
        while stopped.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)  # between two looks at a condition
        yield
    finally:
        stopped.resume()


def count_in_memory(mark: bytes, process: int | None = None) -> int:
    """Return how often a process (this one by default) has some bytes in writable memory.

    Freed memory counts, too.
    """
    process = process or os.getpid()
    pattern = re.compile(re.escape(mark))
    found = 0
    # What is read is kept out of this process's heap, where the next search would find it again: in
    # a shared mapping of its own, which the search leaves out.
    with mmap.mmap(-1, 2**24) as buffer, _stopped(process):
        memory = os.open(f"/proc/{process}/mem", os.O_RDONLY)
        try:
            for line in Path(f"/proc/{process}/maps").read_text().splitlines():
                span, rights, *_ = line.split()
                if not rights.startswith("rw") or "[v" in line or "/dev/zero" in line:
                    continue
                start, end = (int(part, 16) for part in span.split("-"))
                while start < end:
                    size = os.preadv(memory, [memoryview(buffer)[: end - start]], start)
                    found += sum(1 for _ in pattern.finditer(buffer, 0, size))
                    start += size
        finally:
            os.close(memory)
    return found
