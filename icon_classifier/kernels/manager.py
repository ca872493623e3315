"""Kernels for many visitors on a small machine: forked from one parent, and limited in number.

:class:`VisitorKernelManager` can be any Voilà server's ``multi_kernel_manager_class``; a page that
needs more derives from it. docs/kernels.md describes how it works.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.ioloop.restarter import AsyncIOLoopKernelRestarter
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_events import EventLogger
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import (
    AsyncMappingKernelManager,
    ServerKernelManager,
)
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import HTTPError
from traitlets import Bool, Float, Integer, List, Unicode, default

from icon_classifier.errors import KernelError
from icon_classifier.kernels.client import PromptClient
from icon_classifier.kernels.fork_server import ForkServer
from icon_classifier.kernels.metrics import Metrics
from icon_classifier.kernels.process import can_fork
from icon_classifier.kernels.protocol import WarmUp
from icon_classifier.kernels.provisioner import PROVISIONER, ForkedProvisioner
from icon_classifier.system.memory import (
    PER_KERNEL,
    PER_ORDINARY_KERNEL,
    kernel_capacity,
    memory_limit,
    trim_heap,
)
from icon_classifier.system.slots import MAX_SECONDS

MAX_STUCK = 60.0
"""Seconds without a kernel started, or a slot released, after which the server is unhealthy."""

MAX_SOCKETS = 2**13
"""ZeroMQ sockets of the server. Each websocket takes six: with ZeroMQ's own limit of 1,023, pages
could not be opened any more when there are 170."""

_TRIM_SECONDS = 90.0
"""How long after the last visit memory is returned to the system; Jupyter Server keeps the objects
of a connection for a minute."""

_NO_FAILURES = (math.inf, -math.inf)

_MAX_FOLDER = 50
"""In bytes: the path of a socket may have 107, and the name of a kernel's has 51 and more."""


class NeverRestarter(AsyncIOLoopKernelRestarter):
    """Notices that a kernel has died, and does not restart it.

    A new kernel would know nothing of the widgets on the page: the page says that it has ended.
    """

    @default("restart_limit")
    def _restart_limit(self) -> int:
        return 0

    @default("time_to_dead")
    def _time_to_dead(self) -> float:
        return 1.0


class ForkedKernelManager(ServerKernelManager):
    """One visitor's kernel."""

    restarter_class = NeverRestarter

    @default("client_factory")
    def _client_factory(self) -> type[PromptClient]:
        return PromptClient

    @default("transport")
    def _transport(self) -> str:
        # Sockets in a folder that only this user can enter: no ports to guess, race for or lack.
        folder = str(getattr(self.parent, "connection_dir", ""))
        return "ipc" if os.name == "posix" and len(os.fsencode(folder)) <= _MAX_FOLDER else "tcp"

    @default("last_activity")
    def _last_activity(self) -> datetime:
        # The sweep for idle kernels also meets one that is registered and just starting, of which
        # Jupyter Server has not set it yet.
        return datetime.now(UTC)

    @default("event_logger")
    def _event_logger(self) -> EventLogger:
        # One for all. Where there is no ServerApp, as in Voilà, Jupyter Server makes one for each
        # kernel, and each leaves a logger behind in `logging` for ever.
        kernels = self.parent
        shared = getattr(kernels, "event_logger", None)
        logger: EventLogger = shared or super()._default_event_logger()
        if isinstance(kernels, VisitorKernelManager):
            kernels.event_logger = logger
        return logger

    @property
    def kernel_spec(self) -> KernelSpec | None:
        """The specification of the kernel, with our provisioner where it names none."""
        spec: KernelSpec | None = super().kernel_spec
        if spec is not None:
            spec.metadata.setdefault(
                "kernel_provisioner", {"provisioner_name": PROVISIONER, "config": {}}
            )
        return spec


class VisitorKernelManager(AsyncMappingKernelManager):
    """All visitors' kernels: no more than fit, and none longer than its page."""

    max_visitors = Integer(
        min=0, help="How many visitors at the same time; 0 for as many as fit the memory (default)."
    ).tag(config=True)
    connect_timeout = Float(
        10.0, min=1.0, help="Seconds after which a page that has not connected loses its kernel."
    ).tag(config=True)
    leave_timeout = Float(
        40.0, min=1.0, help="Seconds after which a page that is gone loses its kernel."
    ).tag(config=True)
    slot_timeout = Float(
        MAX_SECONDS, min=1.0, help="Seconds after which a kernel that holds a slot is ended."
    ).tag(config=True)
    preload: List[str] = List(
        Unicode(),
        help="Modules that the parent of the kernels imports before the first fork, and functions "
        "that it calls, as 'module:function'.",
    ).tag(config=True)
    warm_up = Bool(
        True, help="Whether the parent runs the notebook once before the first visitor."
    ).tag(config=True)
    warm_up_visit = Unicode(
        help="A coroutine function, as 'module:function', that plays a visit to that notebook; it "
        "is called with a jupyter_client.AsyncKernelClient."
    ).tag(config=True)

    fork_server: ForkServer | None = None
    event_logger: EventLogger | None = None

    @default("kernel_manager_class")
    def _kernel_manager_class(self) -> str:
        return f"{ForkedKernelManager.__module__}.{ForkedKernelManager.__name__}"

    @default("cull_idle_timeout")
    def _cull_idle_timeout(self) -> int:
        return 900

    @default("cull_interval")
    def _cull_interval(self) -> int:
        return 30

    @default("cull_connected")
    def _cull_connected(self) -> bool:
        return True  # an open page that nobody touches is the usual case

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        # Found also where this package runs from its folder, without being installed.
        value = f"{ForkedProvisioner.__module__}:{ForkedProvisioner.__name__}"
        entry = EntryPoint(PROVISIONER, value, KernelProvisionerFactory.GROUP_NAME)
        KernelProvisionerFactory.instance(parent=self.parent).provisioners[PROVISIONER] = entry
        per_kernel = PER_KERNEL if can_fork() else PER_ORDINARY_KERNEL
        self.capacity = self.max_visitors or kernel_capacity(memory_limit(), per_kernel=per_kernel)
        self.metrics = Metrics(lambda: self.visitors)
        self._reservations: set[_Reservation] = set()
        self._pages: dict[str, _Page] = {}
        self._last_visit = float("-inf")
        self._failures = _NO_FAILURES  # the first and the last, less than a minute between any two
        self._checks = [
            PeriodicCallback(self._shut_down_overdue, 1000),
            PeriodicCallback(self._shut_down_disconnected, 1000),
            PeriodicCallback(self._trim_heap, 5000),
        ]
        for check in self._checks:
            check.start()
        if can_fork():
            notebook = getattr(self.parent, "notebook_path", None)
            warm_up = WarmUp(
                tuple(self.preload),
                str(Path(notebook).resolve()) if notebook and self.warm_up else None,
                self.warm_up_visit or None,
            )
            self.fork_server = ForkServer(Path(self.root_dir), warm_up, self.log)
            self.fork_server.start()
        else:
            self.log.warning("This system cannot fork kernels: each is started on its own.")
        self.log.info("Capacity: %d visitors at the same time.", self.capacity)

    def take_count(self) -> int:
        """Return what the kernels have counted since the last call (see `system.counter`)."""
        return 0 if self.fork_server is None else self.fork_server.take_count()

    @property
    def is_healthy(self) -> bool:
        """False if, for a minute, no kernel could be started or no slot was released.

        A minute after the last attempt it is true again: a host that sends no more visitors to an
        unhealthy server would never find out that it has recovered.
        """
        watch = self.fork_server and self.fork_server.slot_watch
        first, last = self._failures
        failing = last - first >= MAX_STUCK and time.monotonic() - last < MAX_STUCK
        return not failing and not (watch and watch.seconds_since_release > MAX_STUCK)

    @property
    def visitors(self) -> int:
        """How many kernels there are, those that are just starting included."""
        waiting = sum(not reservation.used for reservation in self._reservations)
        return len({*self._kernels, *self._pending_kernels}) + waiting

    @contextlib.asynccontextmanager
    async def reserve(self, client: str = "") -> AsyncIterator[bool]:
        """Reserve capacity for a page that is about to start its kernel; False if there is none.

        At capacity, the client with the most pages, if those are more than a quarter, gives up one
        to a client that has less: its longest unused one, idle ones first.

        Parameters
        ----------
        client : str, optional
            Whose page it is, such as an address: any text that is the same for the same client.
        """
        self._last_visit = time.monotonic()
        given_up = None
        if self.visitors >= self.capacity and (given_up := self._find_given_up(client)) is None:
            self.metrics.refused.inc()
            yield False
            return
        reservation = _Reservation(client)
        self._reservations.add(reservation)
        token = _reservation.set(reservation)
        try:
            if given_up is not None:
                await self.shutdown_kernel(given_up, now=True, reason="crowded")
            yield True
        finally:
            _reservation.reset(token)
            self._reservations.discard(reservation)
            # Until now the page was on its way; from here on it is expected to connect.
            self._expect_page(reservation.kernel_id)

    async def start_kernel(self, **kwargs: Any) -> str:  # type: ignore[override]
        """Start a visitor's kernel.

        Raises
        ------
        tornado.web.HTTPError
            503, if there are as many as fit, or none can be started.
        """
        kwargs.pop("env", None)  # the server's own, without what Voilà adds of the request
        reservation = _reservation.get()
        if reservation is not None:
            reservation.used = True
        elif self.visitors >= self.capacity:
            self.metrics.refused.inc()
            raise HTTPError(503, "as many visitors as fit")
        started = time.monotonic()
        kernel_id = kwargs.setdefault("kernel_id", str(uuid.uuid4()))
        try:
            await super().start_kernel(**kwargs)
        except Exception as error:
            # Jupyter would count it as starting for ever.
            self._pending_kernels.pop(kernel_id, None)
            now, (first, last) = time.monotonic(), self._failures
            self._failures = (first if now - last < MAX_STUCK else now, now)
            if isinstance(error, KernelError):
                raise HTTPError(503, error.words) from error
            raise
        self._failures = _NO_FAILURES
        if reservation is not None:
            reservation.kernel_id = kernel_id
            self._pages[kernel_id] = _Page(reservation.client)
        else:
            self._pages[kernel_id] = _Page("")
            self._expect_page(kernel_id)
        provisioner = self.get_kernel(kernel_id).provisioner
        forked = getattr(provisioner, "forked", False)
        self.metrics.started.labels(how="forked" if forked else "ordinary").inc()
        self.metrics.start_seconds.observe(time.monotonic() - started)
        return str(kernel_id)

    async def shutdown_kernel(  # type: ignore[override]
        self, kernel_id: str, now: bool = False, restart: bool = False, reason: str = ""
    ) -> None:
        """Shut a kernel down, and tell its page why: in one word, or empty."""
        if not restart:
            self._pages.pop(kernel_id, None)
            _tell_page(kernel_id, reason)
        await super().shutdown_kernel(kernel_id, now=now, restart=restart)

    async def shutdown_all(self, now: bool = False) -> None:  # type: ignore[override]
        """Shut every kernel and their parent down; the server is stopping."""
        for check in self._checks:
            check.stop()
        # There is nothing to save, and a host gives a stopping server few seconds. Kernels that are
        # only starting end when they notice that the server is gone. The pages are not told: they
        # would offer to reload when nobody answers. They try again until there is a server.
        shut_down = super().shutdown_kernel
        ends = [shut_down(kernel_id, now=True) for kernel_id in list(self._kernels)]
        await asyncio.gather(*ends, return_exceptions=True)  # Jupyter waits 5 s at most for each
        if self.fork_server is not None:
            self.fork_server.stop()

    def notify_connect(self, kernel_id: str) -> None:
        """Note that a page has connected."""
        super().notify_connect(kernel_id)
        if kernel_id in self._pages:
            self._pages[kernel_id].deadline = math.inf

    def notify_disconnect(self, kernel_id: str) -> None:
        """Note when a page is taken to be gone that is not connected any more."""
        super().notify_disconnect(kernel_id)
        if kernel_id in self._pages and not self._kernel_connections.get(kernel_id):
            self._pages[kernel_id].deadline = time.monotonic() + self.leave_timeout

    def _expect_page(self, kernel_id: str | None) -> None:
        """Note that a page was served, and until when it has to connect."""
        if kernel_id in self._pages:
            self._pages[kernel_id].served = True
            if not self._kernel_connections.get(kernel_id):
                self._pages[kernel_id].deadline = time.monotonic() + self.connect_timeout

    def _find_given_up(self, client: str) -> str | None:
        """Find the kernel that ends for another client's page; None if nobody has too many."""
        held = Counter(page.client for page in self._pages.values())
        held.update(waiting.client for waiting in self._reservations if waiting.kernel_id is None)
        share = max(1, self.capacity // 4)
        greediest = max(held, key=held.__getitem__, default=client)
        if held[client] >= share or held[greediest] <= share:
            return None
        candidates = [
            kernel_id
            for kernel_id, page in self._pages.items()
            if page.client == greediest and page.served and kernel_id in self._kernels
        ]

        def idle_and_oldest_first(kernel_id: str) -> tuple[bool, datetime]:
            kernel: Any = self.get_kernel(kernel_id)
            return kernel.execution_state != "idle", kernel.last_activity

        return min(candidates, key=idle_and_oldest_first, default=None)

    def _handle_kernel_died(self, kernel_id: str) -> None:
        """Clean up after a kernel that ended by itself."""
        self.metrics.died.inc()
        self._pages.pop(kernel_id, None)
        if kernel_id in self:
            IOLoop.current().add_callback(self.shutdown_kernel, kernel_id, now=True)

    async def _shut_down_overdue(self) -> None:
        """End kernels that hold a slot for too long: others wait for it."""
        watch = self.fork_server and self.fork_server.slot_watch
        for pid in watch.overdue(self.slot_timeout) if watch else ():
            for kernel_id, kernel in list(self._kernels.items()):
                if kernel.provisioner.pid == pid and kernel_id in self._pages:
                    self.log.warning("A kernel held a slot for %g s: ended.", self.slot_timeout)
                    await self.shutdown_kernel(kernel_id, now=True, reason="slow")

    async def _shut_down_disconnected(self) -> None:
        now = time.monotonic()
        for kernel_id, page in list(self._pages.items()):
            if now > page.deadline and kernel_id in self:
                self.log.info("A page is gone; its kernel ends.")
                await self.shutdown_kernel(kernel_id, now=True)

    def _trim_heap(self) -> None:
        now = time.monotonic()
        if self.visitors:
            self._last_visit = now
        if now - self._last_visit < _TRIM_SECONDS:
            trim_heap()


@dataclass
class _Page:
    """A kernel's page: whose it is, whether it was served, when the kernel ends without it."""

    client: str
    served: bool = False
    deadline: float = math.inf  # by time.monotonic()


@dataclass(eq=False)
class _Reservation:
    """Capacity for one page, until its kernel has started or the page fails."""

    client: str
    used: bool = False
    kernel_id: str | None = None


_reservation: ContextVar[_Reservation | None] = ContextVar("reservation", default=None)


def _tell_page(kernel_id: str, reason: str) -> None:
    """Send the page of a kernel the status *dead*, and why: it then says that it has ended."""
    content = {"execution_state": "dead", "reason": reason}
    for connection in list(ZMQChannelsWebsocketConnection._open_sockets):
        if connection.kernel_id == kernel_id:
            message = connection.session.msg("status", content)
            packed = serialize_msg_to_ws_v1(message, "iopub", connection.session.pack)
            connection.write_message(packed, binary=True)
