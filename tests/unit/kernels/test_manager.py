"""The manager of all visitors' kernels, with real kernels; its pages are in tests/integration."""

import asyncio
import contextlib
import os
import resource
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import zmq
from tornado.web import HTTPError

from icon_classifier.errors import KernelError
from icon_classifier.kernels import manager, provisioner
from icon_classifier.kernels.manager import ForkedKernelManager, VisitorKernelManager
from icon_classifier.kernels.process import can_fork
from icon_classifier.kernels.provisioner import ForkedProvisioner
from icon_classifier.system.memory import (
    MAX_KERNELS,
    PER_ORDINARY_KERNEL,
    kernel_capacity,
    memory_limit,
)

forking = pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")


@asynccontextmanager
async def managing(folder: Path, **options: Any) -> AsyncIterator[VisitorKernelManager]:
    """A manager without a server. The path of its sockets is short, which pytest's are not."""
    with tempfile.TemporaryDirectory() as sockets:
        visitors = VisitorKernelManager(root_dir=str(folder), connection_dir=sockets, **options)
        try:
            yield visitors
        finally:
            await visitors.shutdown_all()


async def open_page(visitors: VisitorKernelManager, client: str) -> str | None:
    """Open a page that connects; return its kernel's id, None if there is no capacity."""
    async with visitors.reserve(client) as reserved:
        if not reserved:
            return None
        kernel_id = await visitors.start_kernel()
    visitors.notify_connect(kernel_id)
    return kernel_id


@asynccontextmanager
async def connected(visitors: VisitorKernelManager, kernel_id: str) -> AsyncIterator[Any]:
    """Connect a client to a kernel, and wait until that is idle."""
    client = visitors.get_kernel(kernel_id).client()
    client.start_channels()
    try:
        async with asyncio.timeout(60):
            # The manager may not have listened yet when the kernel said that it is idle.
            while visitors.get_kernel(kernel_id).execution_state != "idle":
                await client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()


async def use(visitors: VisitorKernelManager, kernel_id: str) -> None:
    """Run code in a kernel, and wait until the manager has noticed that it is idle again."""
    kernel: Any = visitors.get_kernel(kernel_id)
    async with connected(visitors, kernel_id) as client, asyncio.timeout(60):
        before = kernel.last_activity
        client.execute("pass")
        while kernel.execution_state != "idle" or kernel.last_activity == before:
            await asyncio.sleep(0.02)


async def keep_busy(visitors: VisitorKernelManager, kernel_id: str) -> None:
    async with connected(visitors, kernel_id) as client:
        client.execute("import time; time.sleep(1000)")
        async with asyncio.timeout(60):
            while visitors.get_kernel(kernel_id).execution_state != "busy":
                await asyncio.sleep(0.02)


async def test_kernels_share_one_event_logger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of their own would leave its logger in ``logging`` for ever."""
    monkeypatch.setattr(manager, "can_fork", lambda: False)
    async with managing(tmp_path) as visitors:
        first, second = (ForkedKernelManager(parent=visitors) for _ in range(2))
        assert first.event_logger is second.event_logger


@forking
async def test_sockets_suffice_for_as_many_pages_as_there_may_be(tmp_path: Path) -> None:
    count = 6 * MAX_KERNELS
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], count + 500), before[1]))
    try:
        async with managing(tmp_path) as visitors:
            with contextlib.ExitStack() as stack:
                for _ in range(count):
                    stack.enter_context(visitors.context.socket(zmq.DEALER))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_kernel_has_a_last_activity_from_the_start() -> None:
    """The sweep for idle kernels reads it also of a kernel that is just starting."""
    assert ForkedKernelManager().last_activity.tzinfo is not None


@pytest.mark.skipif(os.name != "posix", reason="needs sockets that are files")
@pytest.mark.slow
async def test_ordinary_kernel_has_no_ports_to_guess(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (manager, provisioner):
        monkeypatch.setattr(module, "can_fork", lambda: False)
    async with managing(tmp_path) as visitors:
        kernel_id = await visitors.start_kernel()
        assert visitors.get_kernel(kernel_id).transport == "ipc"
        await use(visitors, kernel_id)


async def test_fewer_visitors_fit_where_kernels_are_not_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "can_fork", lambda: False)
    async with managing(tmp_path) as visitors:
        assert visitors.capacity == kernel_capacity(memory_limit(), per_kernel=PER_ORDINARY_KERNEL)


@forking
@pytest.mark.slow
async def test_client_with_too_many_pages_gives_up_the_oldest_idle_one(tmp_path: Path) -> None:
    async with managing(tmp_path, max_visitors=4) as visitors:
        pages = [await open_page(visitors, "school") for _ in range(4)]  # nobody else wants them
        await keep_busy(visitors, str(pages[0]))
        for page in pages[1:]:
            await use(visitors, str(page))
        assert await open_page(visitors, "school") is None
        assert all(page in visitors for page in pages)
        for client, given_up in (("a", pages[1]), ("b", pages[2]), ("c", pages[3])):
            assert await open_page(visitors, client)
            assert given_up not in visitors
            assert visitors.visitors == 4
        # Each has a quarter now.
        for client in ("d", "a", "school"):
            assert await open_page(visitors, client) is None
        assert pages[0] in visitors


@forking
@pytest.mark.slow
async def test_client_whose_pages_are_all_busy_gives_up_one_too(tmp_path: Path) -> None:
    async with managing(tmp_path, max_visitors=2) as visitors:
        pages = [await open_page(visitors, "many") for _ in range(2)]
        for page in pages:
            await keep_busy(visitors, str(page))
        assert await open_page(visitors, "one")
        assert sum(page in visitors for page in pages) == 1


@forking
@pytest.mark.slow
async def test_page_that_is_not_served_yet_is_not_given_up(tmp_path: Path) -> None:
    async with (
        managing(tmp_path, max_visitors=2) as visitors,
        visitors.reserve("many") as reserved,
    ):
        assert reserved
        starting = await visitors.start_kernel()
        served = await open_page(visitors, "many")
        assert await open_page(visitors, "one")
        assert starting in visitors
        assert served not in visitors


@forking
@pytest.mark.slow
async def test_clients_at_the_same_moment_never_exceed_the_capacity(tmp_path: Path) -> None:
    async with managing(tmp_path, max_visitors=3) as visitors:
        for _ in range(3):
            assert await open_page(visitors, "many")
        opened = await asyncio.gather(*(open_page(visitors, f"client {n}") for n in range(6)))
        assert sum(page is not None for page in opened) == 2  # one is left to each
        assert visitors.visitors == 3


@forking
@pytest.mark.slow
async def test_page_that_does_not_connect_loses_its_kernel(tmp_path: Path) -> None:
    async with managing(tmp_path, connect_timeout=1.0, leave_timeout=600.0) as visitors:
        present = await open_page(visitors, "")
        async with visitors.reserve() as reserved:
            assert reserved
            missing = await visitors.start_kernel()
            served = time.monotonic()
        async with asyncio.timeout(30):
            while missing in visitors:
                await asyncio.sleep(0.02)
        assert time.monotonic() - served >= 1.0
        assert present in visitors


@forking
@pytest.mark.slow
async def test_start_that_fails_takes_no_capacity_and_is_unhealthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managing(tmp_path, max_visitors=2) as visitors:
        assert visitors.fork_server is not None
        assert await asyncio.to_thread(visitors.fork_server.wait_until_ready, 60)
        assert visitors.fork_server.pid is not None
        monkeypatch.setattr(visitors.fork_server, "_fork_timeout", 0.1)
        monkeypatch.setattr(visitors.fork_server, "slot_watch", None)  # it is unhealthy, too
        skipped = 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + skipped)
        monkeypatch.setattr(manager, "time", clock)

        async def is_healthy_after_failure() -> bool:
            with pytest.raises(HTTPError) as error:
                await open_page(visitors, "")
            assert error.value.status_code == 503
            assert error.value.log_message == KernelError.words
            return visitors.is_healthy

        os.kill(visitors.fork_server.pid, signal.SIGSTOP)
        assert await is_healthy_after_failure()
        skipped += 3600
        assert await is_healthy_after_failure()  # two failures an hour apart
        skipped += 40
        assert await is_healthy_after_failure()
        skipped += 40
        assert not await is_healthy_after_failure()
        assert visitors.visitors == 0
        skipped += 60
        assert visitors.is_healthy  # nobody has come for a minute
        assert await is_healthy_after_failure()
        skipped += 40
        assert await is_healthy_after_failure()
        skipped += 40
        assert not await is_healthy_after_failure()
        os.kill(visitors.fork_server.pid, signal.SIGCONT)
        monkeypatch.setattr(visitors.fork_server, "_fork_timeout", 30.0)
        kernel_id = await open_page(visitors, "")
        assert visitors.is_healthy
        # The parent has answered the earlier requests too, but nobody used those kernels.
        used = visitors.get_kernel(str(kernel_id)).provisioner.pid
        parent = psutil.Process(visitors.fork_server.pid)
        async with asyncio.timeout(10):
            while [child.pid for child in parent.children()] != [used]:
                await asyncio.sleep(0.02)


@forking
@pytest.mark.slow
async def test_slots_that_nobody_releases_are_unhealthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managing(tmp_path) as visitors:
        assert visitors.is_healthy
        monkeypatch.setattr(manager, "MAX_STUCK", 1e-9)
        assert not visitors.is_healthy


@forking
@pytest.mark.slow
async def test_kernel_that_cannot_be_ended_does_not_keep_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that waits for a disk, say, ends only after that."""

    async def still_runs(_: ForkedProvisioner) -> None:
        return None

    async with managing(tmp_path) as visitors:
        for _ in range(2):
            assert await open_page(visitors, "")
        monkeypatch.setattr(ForkedProvisioner, "poll", still_runs)
        async with asyncio.timeout(8):
            await visitors.shutdown_all()


@forking
@pytest.mark.slow
async def test_no_variable_of_the_request_reaches_a_kernel(tmp_path: Path) -> None:
    async with managing(tmp_path) as visitors:
        asked = {**os.environ, "QUERY_STRING": "x" * 2**20, "VOILA_REQUEST_URL": "http://x/?y"}
        kernel_id = await visitors.start_kernel(env=asked)
        assert visitors.get_kernel(kernel_id).provisioner.forked
        printed: list[str] = []
        async with connected(visitors, kernel_id) as client:
            await client.execute_interactive(
                "import os; print(*os.environ)",
                output_hook=lambda message: printed.append(message["content"].get("text", "")),
            )
        names = "".join(printed).split()
        assert "PATH" in names
        assert not [name for name in names if name.startswith(("QUERY_", "VOILA_"))]
