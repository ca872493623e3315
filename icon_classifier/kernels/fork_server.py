"""The warm parent: a process that has everything loaded, and forks a kernel when it is told to.

Run by :mod:`.parent` as ``python -m icon_classifier.kernels.fork_server``. It has one thread, or a
fork would be unsafe. It speaks JSON over a socket of packets: an order comes in, the child's
process id goes out, and its exit status when it has ended. When the socket closes, the server is
gone and the parent ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import re
import select
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icon_classifier.errors import ModelError

if TYPE_CHECKING:
    from icon_classifier.kernels.kernel import Inherited

LARGEST = 2**20
"""Bytes of the largest message; an environment is the most that stands in one."""

ENVIRONMENT = {
    # No thread may exist at the fork.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    # One heap for all threads, and what a photo took goes back to the system at once.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    # Large blocks may come in huge pages; see memory.few_huge_pages.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What the warm parent is started with, beside the server's own environment."""

_log = logging.getLogger("icon_classifier.kernels.fork_server")


def main(argv: list[str]) -> None:
    """Warm up, then serve orders until the server goes.

    Parameters
    ----------
    argv : list of str
        Descriptors of the socket, of the lifeline, of the counter of predictions and of what
        kernels take turns by, and the notebook to rehearse or ``-`` for none.
    """
    logging.basicConfig(format="[forkserver] %(levelname)s %(message)s", level=logging.WARNING)
    control = socket.socket(fileno=int(argv[0]))
    lifeline, counter, turns = (int(number) for number in argv[1:4])
    # Both belong to the server, which ends this process by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    notebook = None if argv[4] == "-" else Path(argv[4])
    app = _warm_up(notebook)
    from icon_classifier.kernels.kernel import Inherited

    if notebook is not None and _threads() > 1:
        _log.warning("%s has left threads behind: starting again without it", notebook)
        module = ["-m", "icon_classifier.kernels.fork_server"]
        os.execv(sys.executable, [sys.executable, *module, *argv[:4], "-"])  # noqa: S606
    _send(control, {"ready": True, "threads": _threads(), "rehearsed": notebook is not None})
    _serve(control, Inherited(lifeline, counter, turns), app)


def _warm_up(notebook: Path | None) -> Any:
    gc.disable()  # a collection writes to every object; children switch it on for their own
    _without_debugger()
    from icon_classifier.kernels import kernel as forkedkernel
    from icon_classifier.system import memory, slots

    memory.few_huge_pages()
    slots.reckon()
    importlib.import_module("icon_classifier.page.ui")
    from icon_classifier.model.opening import open_model

    try:
        open_model()
    except ModelError as error:
        _log.info("no model to share: %s", error)  # another notebook than ours may need none
    if notebook is not None:
        from icon_classifier.kernels.warm_up import rehearse

        rehearse(notebook)
    app = forkedkernel.ForkedKernelApp.instance()
    app.prepare()
    gc.collect()
    app.ballast = fill_holes()
    gc.freeze()  # what is here now is never garbage: children need not look at it
    return app


def fill_holes() -> list[list[object]]:
    """Take the free blocks between Python's objects, so that children do not.

    A child would put its first small objects there, one here and one there, and for each copy a
    whole page that it could have shared. With the holes filled they stand together in new pages,
    which saves each child 1 MB.

    Returns
    -------
    list of list of object
        To be kept for as long as there are children; empty where the allocator does not tell what
        is free.
    """
    ballast: list[list[object]] = []
    for size, free in _free_blocks():
        if size < 48:  # too small for bytes, whose empty one has 33
            ballast.append([object() if size == 16 else float(number) for number in range(free)])
        else:
            ballast.append([bytes(size - 33) for _ in range(free)])
    return ballast


def _free_blocks() -> list[tuple[int, int]]:
    """Read from the report of Python's allocator, which goes to standard error only, what is free.

    Returns
    -------
    list of (int, int)
        Size of the blocks in bytes, and how many of them are free.
    """
    with tempfile.TemporaryFile() as report:
        standard_error = os.dup(2)
        os.dup2(report.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
        report.seek(0)
        text = report.read().decode("ascii", "replace")
    # class, size of a block, pools, blocks in use, blocks free
    rows = re.findall(r"^ *\d+ +(\d+) +\d+ +\d+ +(\d+)$", text, re.MULTILINE)
    return [(int(size), int(free)) for size, free in rows]


def _without_debugger() -> None:
    """Let ipykernel find no debugger: a page has no use for one, and it weighs 10 MB."""
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    importlib.import_module("ipykernel.debugger")
    del sys.modules["debugpy"]


def _serve(control: socket.socket, inherited: Inherited, app: Any) -> None:
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the descriptor is what wakes the loop
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        readable, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(control)
        if control.fileno() in readable:
            message = control.recv(LARGEST)
            if not message:
                return
            _fork(control, inherited, app, json.loads(message))


def _fork(control: socket.socket, inherited: Inherited, app: Any, order: dict[str, Any]) -> None:
    from icon_classifier.kernels.kernel import ENDING, KernelOrder, become_kernel, leave

    # The parent ignores these. A kernel does not, and must not lose one that comes before it has
    # said so: blocked, it waits for become_kernel().
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        pid = os.fork()
    except OSError as error:  # no memory, or no process left
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        _send(control, {"number": order["number"], "error": str(error)})
        return
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
        _send(control, {"number": order["number"], "pid": pid})
        return
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        become_kernel(app, KernelOrder(**order), inherited)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a child must never get back into the parent's loop
        _log.exception("a kernel failed")
    finally:
        leave(status)


def _reap(control: socket.socket) -> None:
    """Tell the server of each child that has ended. Signals may have melted into one."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _send(control, {"exited": pid, "status": os.waitstatus_to_exitcode(status)})


def _send(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.send(json.dumps(message).encode())
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)  # the server is gone


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


if __name__ == "__main__":
    main(sys.argv[1:])
