"""Start the process that kernels are forked from, request kernels from it, restart it if it dies.

The server's side; :mod:`.parent` is the program that runs in the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from icon_classifier.errors import KernelError
from icon_classifier.kernels.parent import ENVIRONMENT
from icon_classifier.kernels.process import ForkedProcess
from icon_classifier.kernels.protocol import MAX_MESSAGE, Descriptors, KernelRequest, WarmUp
from icon_classifier.system import counter, slots
from icon_classifier.system.slots import SlotWatch


class ForkServer:
    """The process that kernels are forked from.

    Parameters
    ----------
    folder : pathlib.Path
        Its working folder: where the notebook is.
    warm_up : WarmUp, optional
        What it imports and runs before the first fork.
    log : logging.Logger, optional
        Where to log.

    Attributes
    ----------
    ready_timeout : float
        Seconds that a request for a kernel waits while the parent is warming up.
    ran_notebook : bool
        Whether the present parent has run the notebook.
    slot_watch : SlotWatch or None
        Measures how long its kernels hold slots; None before the start.
    """

    ready_timeout = 20.0
    _fork_timeout = 5.0
    _end_timeout = 2.0
    _restart_delays = (0.0, 1.0, 10.0, 60.0)  # seconds; the last one for all further restarts

    def __init__(
        self, folder: Path, warm_up: WarmUp | None = None, log: logging.Logger | None = None
    ) -> None:
        self.folder = folder
        self.warm_up = warm_up or WarmUp()
        self.log = log or logging.getLogger(__name__)
        self.ran_notebook = False
        self.slot_watch: SlotWatch | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lifeline: tuple[int, int] | None = None
        self._counter: int | None = None
        self._slots: int | None = None
        self._environment: dict[str, str] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._requests: dict[int, Future[int]] = {}
        self._statuses: dict[int, int] = {}
        self._last_request = 0
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the parent, None when there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process and the thread that listens to it; does not wait for either."""
        if self._thread is None:
            self._lifeline = os.pipe()
            self._counter = counter.create()
            self._slots = slots.create()
            self.slot_watch = SlotWatch(self._slots)
            self._thread = threading.Thread(target=self._run, name="fork-server", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the parent, and by their lifeline the kernels that are left."""
        self._stopped.set()
        self._disconnect()
        if self._thread is not None:
            self._thread.join(timeout=2 * self._end_timeout)
            self._thread = None
        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None
        for descriptor in (self._counter, self._slots):
            if descriptor is not None:
                os.close(descriptor)
        self._counter = self._slots = None

    def take_count(self) -> int:
        """Return what its kernels have counted since the last call."""
        return 0 if self._counter is None else counter.take(self._counter)

    def wait_until_ready(self, timeout: float) -> bool:
        """Block until a kernel can be forked; False if ``timeout`` seconds are not enough."""
        return self._ready.wait(timeout)

    async def fork(
        self, connection_file: str, cwd: str, env: dict[str, str], nice: int
    ) -> ForkedProcess:
        """Fork a kernel.

        Parameters
        ----------
        connection_file : str
            The file with its addresses and its key.
        cwd : str
            Its working folder.
        env : dict of str to str
            Its environment.
        nice : int
            What to add to the process's niceness.

        Raises
        ------
        KernelError
            If there is no parent, it cannot fork, or the environment has too much of its own.
        """
        await self._until_ready()
        future: Future[int] = Future()
        with self._lock:
            self._last_request += 1
            number = self._last_request
            self._requests[number] = future
        started = self._environment
        changes = {
            name: env.get(name)
            for name in env.keys() | started.keys()
            if env.get(name) != started.get(name)
        }
        try:
            self._send(KernelRequest(number, connection_file, cwd, changes, nice))
            pid = await asyncio.wait_for(asyncio.wrap_future(future), self._fork_timeout)
        except BaseException as error:
            if not future.cancel():  # it was answered at the same moment
                future.add_done_callback(_end_unused)
            if isinstance(error, TimeoutError):
                raise KernelError("the parent of the kernels does not answer") from error
            raise
        finally:
            with self._lock:
                self._requests.pop(number, None)
        return ForkedProcess(pid, self._take_status)

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + self.ready_timeout
        while not self._ready.is_set():
            if self._stopped.is_set() or self._thread is None or time.monotonic() > deadline:
                raise KernelError("the parent of the kernels is not ready")
            await asyncio.sleep(0.02)

    def _send(self, request: KernelRequest) -> None:
        message = json.dumps(asdict(request)).encode()
        if len(message) > MAX_MESSAGE:
            raise KernelError(
                f"expected a request of at most {MAX_MESSAGE} bytes, got {len(message)}"
            )
        try:
            if self._control is None:
                raise BrokenPipeError("no connection")
            self._control.send(message)
        except OSError as error:
            raise KernelError(f"the parent of the kernels is gone: {error}") from error

    def _take_status(self, pid: int) -> int | None:
        with self._lock:
            return self._statuses.pop(pid, None)

    def _run(self) -> None:
        """Keep a parent running. The body of the thread."""
        failures = 0
        while not self._stopped.wait(
            self._restart_delays[min(failures, len(self._restart_delays) - 1)]
        ):
            # A notebook that cannot be run ahead must not cost the others their fork.
            warm_up = self.warm_up if failures < 2 else replace(self.warm_up, notebook=None)
            was_ready = self._run_once(warm_up)
            if self._stopped.is_set():
                return
            failures = 1 if was_ready else failures + 1
            self.log.warning(
                "The parent of the kernels has ended%s; starting it again.",
                "" if was_ready else " before it was ready",
            )

    def _run_once(self, warm_up: WarmUp) -> bool:
        """Run one parent from its start to its end; return whether it was ever ready."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if self._lifeline is None or self._counter is None or self._slots is None:
            raise KernelError("expected start() to be called first")
        descriptors = Descriptors(its.fileno(), self._lifeline[0], self._counter, self._slots)
        # Found also where this package runs from its folder, without being installed.
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        program = [sys.executable, "-m", "icon_classifier.kernels.parent"]
        started = time.monotonic()
        self._environment = {
            **os.environ,
            **ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(paths),
        }
        try:
            with its:
                self._process = subprocess.Popen(
                    [*program, json.dumps(descriptors), warm_up.to_json()],
                    cwd=self.folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    start_new_session=True,  # an interrupt at the terminal is for the server
                )
        except OSError as error:
            self.log.warning("Cannot start the parent of the kernels: %s", error)
            ours.close()
            return False
        self._control = ours
        was_ready = False
        while message := self._receive(ours):
            if "ready" in message:
                was_ready = True
                self.ran_notebook = message["ran_notebook"]
                self._ready.set()
                self.log.info(
                    "Kernels are forked from process %d, ready after %.1f s.",
                    self._process.pid,
                    time.monotonic() - started,
                )
                if message["threads"] != 1:
                    self.log.warning("Expected it to have 1 thread, got %d.", message["threads"])
            else:
                self._handle(message)
        self._ready.clear()
        self._disconnect()
        self._fail_requests()
        try:
            self._process.wait(timeout=self._end_timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        return was_ready

    def _receive(self, control: socket.socket) -> dict[str, Any] | None:
        try:
            packet = control.recv(MAX_MESSAGE)
        except OSError:  # closed by stop()
            return None
        message: dict[str, Any] | None = json.loads(packet) if packet else None
        return message

    def _handle(self, message: dict[str, Any]) -> None:
        with self._lock:
            if "exited" in message:
                self._statuses[message["exited"]] = message["status"]
                return
            future = self._requests.pop(message["number"], None)
        if future is None or not future.set_running_or_notify_cancel():
            if "pid" in message:  # too late: nobody uses this kernel
                _end(message["pid"])
        elif "pid" in message:
            future.set_result(message["pid"])
        else:
            future.set_exception(KernelError(f"cannot fork: {message['error']}"))

    def _fail_requests(self) -> None:
        with self._lock:
            waiting = list(self._requests.values())
            self._requests.clear()
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(KernelError("the parent of the kernels has ended"))

    def _disconnect(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            # Wakes the thread that waits in recv(), which closing alone would not.
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()


def _end_unused(future: Future[int]) -> None:
    if future.exception() is None:
        _end(future.result())


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
