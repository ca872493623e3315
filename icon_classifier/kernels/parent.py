"""The server's side of the warm parent: start it, order kernels from it, start it again if it dies.

:class:`WarmParent` owns the process of :mod:`icon_classifier.kernels.fork_server`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from icon_classifier.errors import KernelError
from icon_classifier.kernels.fork_server import ENVIRONMENT, LARGEST
from icon_classifier.kernels.process import ForkedProcess
from icon_classifier.system import counter, slots


class WarmParent:
    """The process that kernels are forked from.

    Parameters
    ----------
    folder : pathlib.Path
        Where the notebook and its model lie.
    notebook : pathlib.Path, optional
        Run once before the first visitor.
    log : logging.Logger, optional
        Where to say what happens.

    Attributes
    ----------
    patience : float
        Seconds that an order waits while the parent is warming up.
    rehearsed : bool
        Whether the present parent has run the notebook.
    """

    patience = 20.0
    _slowest_fork = 5.0
    _pauses = (0.0, 1.0, 10.0, 60.0)  # seconds before each start again, the last for all further

    def __init__(
        self, folder: Path, notebook: Path | None = None, log: logging.Logger | None = None
    ) -> None:
        self.folder = folder
        self.notebook = notebook
        self.log = log or logging.getLogger(__name__)
        self.forks = 0
        self.rehearsed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lifeline: tuple[int, int] | None = None
        self._counter: int | None = None
        self._turns: int | None = None
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._orders: dict[int, Future[int]] = {}
        self._running: set[int] = set()
        self._statuses: dict[int, int] = {}
        self._last_order = 0
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the parent, None when there is none."""
        return None if self._process is None else self._process.pid

    @property
    def ready(self) -> bool:
        """Whether a kernel can be forked right now."""
        return self._ready.is_set()

    def start(self) -> None:
        """Start the process and the thread that listens to it; does not wait for either."""
        if self._thread is None:
            self._lifeline = os.pipe()
            self._counter = counter.create()
            self._turns = slots.create()
            self._thread = threading.Thread(target=self._keep, name="warm-parent", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the parent, and by their lifeline the kernels that are left."""
        self._stopped.set()
        self._hang_up()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)
            self._thread = None
        if self._lifeline is not None:
            for end in self._lifeline:
                os.close(end)
            self._lifeline = None
        for descriptor in (self._counter, self._turns):
            if descriptor is not None:
                os.close(descriptor)
        self._counter = self._turns = None

    def take_predictions(self) -> int:
        """Tell how many predictions its kernels have made since the last time."""
        return 0 if self._counter is None else counter.take(self._counter)

    def wait_until_ready(self, timeout: float) -> bool:
        """Block until a kernel can be forked; False if ``timeout`` seconds are not enough."""
        return self._ready.wait(timeout)

    async def fork(
        self, connection_file: str, cwd: str, env: dict[str, str], nice: int
    ) -> ForkedProcess:
        """Order a kernel.

        Parameters
        ----------
        connection_file : str
            The file that tells it its addresses and its key.
        cwd : str
            Folder to run in.
        env : dict of str to str
            Its environment.
        nice : int
            How much less urgent than the server.

        Returns
        -------
        ForkedProcess

        Raises
        ------
        KernelError
            If the parent is not there, or cannot fork.
        """
        deadline = time.monotonic() + self.patience
        while not self._ready.is_set():
            if self._stopped.is_set() or self._thread is None or time.monotonic() > deadline:
                raise KernelError("the warm parent of the kernels is not ready")
            await asyncio.sleep(0.02)
        future: Future[int] = Future()
        with self._lock:
            self._last_order += 1
            number = self._last_order
            self._orders[number] = future
        order = {
            "number": number,
            "connection_file": connection_file,
            "cwd": cwd,
            "env": env,
            "nice": nice,
        }
        try:
            self._send(order)
            pid = await asyncio.wait_for(asyncio.wrap_future(future), self._slowest_fork)
        except TimeoutError as error:
            raise KernelError("the warm parent of the kernels does not answer") from error
        finally:
            with self._lock:
                self._orders.pop(number, None)
        self.forks += 1
        return ForkedProcess(pid, self._take_status)

    def _send(self, order: dict[str, Any]) -> None:
        message = json.dumps(order).encode()
        if len(message) > LARGEST:
            raise KernelError(f"the order of a kernel has {len(message)} bytes, {LARGEST} fit")
        try:
            if self._control is None:
                raise BrokenPipeError("no connection")
            self._control.send(message)
        except OSError as error:
            raise KernelError(f"the warm parent of the kernels is gone: {error}") from error

    def _take_status(self, pid: int) -> int | None:
        with self._lock:
            status = self._statuses.pop(pid, None)
            if status is not None:
                self._running.discard(pid)
        return status

    def _keep(self) -> None:
        """Keep a parent running. The body of the thread."""
        failures = 0
        while not self._stopped.wait(self._pauses[min(failures, len(self._pauses) - 1)]):
            # A page that cannot be rehearsed must not cost the others their fork.
            notebook = self.notebook if failures < 2 else None
            warmed = self._run_once(notebook)
            if self._stopped.is_set():
                return
            failures = 1 if warmed else failures + 1
            self.log.warning(
                "The warm parent of the kernels has ended%s; starting it again.",
                "" if warmed else " before it was ready",
            )

    def _run_once(self, notebook: Path | None) -> bool:
        """Run one parent from its start to its end; tell whether it got ready."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if self._lifeline is None or self._counter is None or self._turns is None:
            raise KernelError("start() comes first")
        descriptors = (its.fileno(), self._lifeline[0], self._counter, self._turns)
        arguments = [*map(str, descriptors), str(notebook or "-")]
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
        started = time.monotonic()
        try:
            with its:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "icon_classifier.kernels.fork_server", *arguments],
                    cwd=self.folder,
                    env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
                    stdin=subprocess.DEVNULL,
                    pass_fds=descriptors,
                    start_new_session=True,  # an interrupt at the terminal is the server's
                )
        except OSError as error:
            self.log.warning("Cannot start the warm parent of the kernels: %s", error)
            ours.close()
            return False
        self._control = ours
        warmed = False
        while message := self._receive(ours):
            if "ready" in message:
                warmed = True
                self.rehearsed = message["rehearsed"]
                self._ready.set()
                self.log.info(
                    "Kernels are forked from process %d, warm after %.1f s.",
                    self._process.pid,
                    time.monotonic() - started,
                )
                if message["threads"] != 1:
                    self.log.warning("It has %d threads; 1 was expected.", message["threads"])
            else:
                self._note(message)
        self._ready.clear()
        self._hang_up()
        self._fail_orders()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        return warmed

    def _receive(self, control: socket.socket) -> dict[str, Any] | None:
        try:
            packet = control.recv(LARGEST)
        except OSError:  # closed by stop()
            return None
        message: dict[str, Any] | None = json.loads(packet) if packet else None
        return message

    def _note(self, message: dict[str, Any]) -> None:
        with self._lock:
            if "exited" in message:
                self._statuses[message["exited"]] = message["status"]
                return
            future = self._orders.get(message["number"])
        if future is None or future.cancelled():
            return
        if "pid" in message:
            future.set_result(message["pid"])
        else:
            future.set_exception(KernelError(f"cannot fork: {message['error']}"))

    def _fail_orders(self) -> None:
        with self._lock:
            waiting = list(self._orders.values())
        for future in waiting:
            if not future.done():
                future.set_exception(KernelError("the warm parent of the kernels has ended"))

    def _hang_up(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            # Wakes the thread that waits in recv(), which closing alone would not.
            with contextlib.suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()
