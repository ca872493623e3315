"""The parent of the kernels: imports everything, runs the page once, forks a kernel on request.

:mod:`.fork_server` starts it as ``python -m icon_classifier.kernels.parent``. It has one thread, or
a fork would be unsafe. It speaks JSON over a socket of packets: a request comes in, the child's
process id goes out, and its exit status when it has ended. When the socket closes, the server is
gone and the parent ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import select
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from types import CodeType
from typing import Any

from icon_classifier.kernels.protocol import (
    MAX_MESSAGE,
    Descriptors,
    KernelRequest,
    WarmUp,
    resolve,
)

ENVIRONMENT = {
    # No thread may exist at the fork.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    # One heap for all threads, and large blocks go back to the system when they are freed.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    # Large blocks may come in huge pages; see memory.avoid_huge_pages.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What the parent is started with, beside the server's own environment."""

_log = logging.getLogger("icon_classifier.kernels.parent")


def main(argv: list[str]) -> None:
    """Warm up, then serve requests until the server is gone.

    Parameters
    ----------
    argv : list of str
        :class:`Descriptors` and :class:`WarmUp`, each as JSON.
    """
    logging.basicConfig(format="[kernels] %(levelname)s %(message)s", level=logging.WARNING)
    descriptors, warm_up = Descriptors(*json.loads(argv[0])), WarmUp.from_json(argv[1])
    control = socket.socket(fileno=descriptors.control)
    # Both are for the server, which ends this process by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    environment = dict(os.environ)
    app = _warm_up(warm_up)
    os.environ.clear()
    os.environ.update(environment)  # as the server knows it, whatever the imports have set
    if warm_up.notebook is not None and _threads() > 1:
        _log.warning("%s leaves threads behind: starting again without it", warm_up.notebook)
        program = [sys.executable, "-m", "icon_classifier.kernels.parent"]
        without = replace(warm_up, notebook=None).to_json()
        os.execv(sys.executable, [*program, argv[0], without])  # noqa: S606
    ready = {"ready": True, "threads": _threads(), "ran_notebook": warm_up.notebook is not None}
    _send(control, ready)
    _serve(control, descriptors, app)


def _warm_up(warm_up: WarmUp) -> Any:
    gc.disable()  # a collection writes to every object; children switch it on for their own
    _without_debugger()
    from icon_classifier.kernels import sharing
    from icon_classifier.kernels.kernel import ForkedKernelApp
    from icon_classifier.system import memory

    memory.avoid_huge_pages()
    for name in warm_up.preload:
        try:
            if (function := resolve(name)) is not None:
                function()
        except Exception as error:  # noqa: BLE001 - kernels still start, only later
            _log.warning("cannot preload %s: %s", name, error)
    executed: dict[int, CodeType] = {}
    if warm_up.notebook is not None:
        from icon_classifier.kernels.warm_up import run_notebook

        executed = run_notebook(Path(warm_up.notebook), warm_up.visit)
    app = ForkedKernelApp.instance()
    app.prepare()
    gc.collect()
    app.kept = sharing.arrange(executed)
    gc.freeze()  # what is here now is never garbage: children need not look at it
    return app


def _without_debugger() -> None:
    """Import ipykernel without its debugger: a page has no use for one, and it takes 10 MB."""
    sys.modules["debugpy"] = None  # type: ignore[assignment]
    importlib.import_module("ipykernel.debugger")
    del sys.modules["debugpy"]


def _serve(control: socket.socket, descriptors: Descriptors, app: Any) -> None:
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the descriptor is what wakes the loop
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    while True:
        readable, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in readable:
            os.read(woken, 4096)
            _reap(control)
        if control.fileno() in readable:
            message = control.recv(MAX_MESSAGE)
            if not message:
                return
            _fork(control, descriptors, app, json.loads(message))


def _fork(
    control: socket.socket, descriptors: Descriptors, app: Any, request: dict[str, Any]
) -> None:
    from icon_classifier.kernels.kernel import TERMINATING, leave, run_kernel

    # The parent ignores these. A kernel does not, and must not lose one that comes before it has
    # said so: blocked, the signal waits for run_kernel().
    signal.pthread_sigmask(signal.SIG_BLOCK, TERMINATING)
    try:
        pid = os.fork()
    except OSError as error:  # no memory, or no process left
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINATING)
        _send(control, {"number": request["number"], "error": str(error)})
        return
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, TERMINATING)
        _send(control, {"number": request["number"], "pid": pid})
        return
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        run_kernel(app, KernelRequest(**request), descriptors)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a child must never get back into the parent's loop
        _log.exception("a kernel failed")
    finally:
        leave(status)


def _reap(control: socket.socket) -> None:
    """Send the server the exit status of each child that has ended; one signal may mean several."""
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
