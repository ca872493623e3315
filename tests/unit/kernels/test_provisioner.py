"""The provisioner with real tiny kernels."""

import asyncio
import contextlib
import json
import os
import signal
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from traitlets import Unicode
from traitlets.config import LoggingConfigurable

from icon_classifier.errors import KernelError
from icon_classifier.kernels.fork_server import ForkServer
from icon_classifier.kernels.manager import ForkedKernelManager
from icon_classifier.kernels.parent import ENVIRONMENT
from icon_classifier.kernels.process import can_fork
from icon_classifier.kernels.provisioner import ForkedProvisioner, _is_own_ipykernel

pytestmark = [
    pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.slow,
]


class Owner(LoggingConfigurable):
    """Stands where Voilà's kernel manager stands."""

    connection_dir = Unicode()
    fork_server: ForkServer


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owner]:
    owner = Owner(connection_dir=str(tmp_path_factory.mktemp("connections")))
    owner.fork_server = ForkServer(tmp_path_factory.mktemp("empty"))
    owner.fork_server.start()
    assert owner.fork_server.wait_until_ready(60)
    yield owner
    parent = psutil.Process(owner.fork_server.pid)
    owner.fork_server.stop()
    assert not parent.is_running()


@pytest_asyncio.fixture(loop_scope="module")
async def kernel(owner: Owner) -> AsyncIterator[ForkedKernelManager]:
    manager = await start(owner, "kernel")
    yield manager
    if manager.has_kernel:
        await manager.shutdown_kernel(now=True)


async def start(owner: Owner, name: str, **options: Any) -> ForkedKernelManager:
    file = os.path.join(owner.connection_dir, f"{name}.json")  # noqa: PTH118
    factory = KernelProvisionerFactory.instance()
    from importlib.metadata import EntryPoint

    factory.provisioners["icon-classifier"] = EntryPoint(
        "icon-classifier",
        "icon_classifier.kernels.provisioner:ForkedProvisioner",
        factory.GROUP_NAME,
    )
    manager = ForkedKernelManager(parent=owner, connection_file=file, kernel_name="python3")
    await manager.start_kernel(**options)
    assert isinstance(manager.provisioner, ForkedProvisioner)
    assert manager.provisioner.forked
    return manager


@contextlib.asynccontextmanager
async def connected(manager: ForkedKernelManager) -> AsyncIterator[AsyncKernelClient]:
    """Connect a client to a kernel that is ready."""
    client: AsyncKernelClient = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()


async def run(
    manager: ForkedKernelManager, code: str, printed: asyncio.Event | None = None
) -> dict[str, Any]:
    """Run code; return the reply, and what it printed as ``text``."""
    texts: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            texts.append(message["content"]["text"])
            if printed is not None:
                printed.set()

    code = textwrap.dedent(code)
    async with connected(manager) as client:
        reply = await client.execute_interactive(code, timeout=60, output_hook=hear)
    return {**reply["content"], "text": "".join(texts).strip()}


async def ended(manager: ForkedKernelManager) -> int:
    """Wait for the kernel's end; return its exit status."""
    async with asyncio.timeout(20):
        while (status := await manager.provisioner.poll()) is None:
            await asyncio.sleep(0.02)
    return status


async def test_forked_kernel_runs_code(kernel: ForkedKernelManager, owner: Owner) -> None:
    reply = await run(kernel, "import os; print(6 * 7, os.getppid())")
    assert reply["text"] == f"42 {owner.fork_server.pid}"


async def test_forked_kernel_is_like_an_ordinary_one(kernel: ForkedKernelManager) -> None:
    code = """
        import os, sys, tempfile, gc
        print(os.getpgid(0) == os.getpid(), sys.modules["__main__"].__dict__ is globals(),
              "" in sys.path, gc.isenabled(), tempfile.gettempdir() == os.environ["TMPDIR"],
              "debugpy" in sys.modules, "get_ipython" in globals())"""
    reply = await run(kernel, code)
    assert reply["text"] == "True True True True True False True"


async def test_forked_kernel_inherits_no_socket(kernel: ForkedKernelManager, owner: Owner) -> None:
    parents = sockets(owner.fork_server.pid)
    assert parents  # the line to the server
    assert (await run(kernel, ""))["status"] == "ok"
    assert not sockets(kernel.provisioner.pid) & parents


def sockets(pid: int | None) -> set[str]:
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(os.readlink(link))  # noqa: PTH115
    return {link for link in links if link.startswith("socket:")}


async def test_two_kernels_share_no_variable_no_random_number_and_no_key(owner: Owner) -> None:
    first, second = await asyncio.gather(start(owner, "first"), start(owner, "second"))
    try:
        draw = (
            "import random, uuid, numpy; print(random.random(), uuid.uuid4(), numpy.random.rand())"
        )
        assert (await run(first, "secret = 1"))["status"] == "ok"
        assert (await run(second, "secret"))["ename"] == "NameError"
        numbers = [(await run(kernel, draw))["text"].split() for kernel in (first, second)]
        assert not set(numbers[0]) & set(numbers[1])
        assert first.session.key != second.session.key
    finally:
        await first.shutdown_kernel(now=True)
        await second.shutdown_kernel(now=True)


async def test_interrupt_stops_the_cell(kernel: ForkedKernelManager) -> None:
    printed = asyncio.Event()
    code = "import time; print('on', flush=True); time.sleep(60)"
    running = asyncio.create_task(run(kernel, code, printed))
    await asyncio.wait_for(printed.wait(), 20)
    await kernel.interrupt_kernel()
    assert (await running)["ename"] == "KeyboardInterrupt"
    assert (await run(kernel, "print('well')"))["text"] == "well"


async def test_kernel_that_is_shut_down_finishes_its_cell(
    kernel: ForkedKernelManager, tmp_path: Path
) -> None:
    file = tmp_path / "kept.txt"
    code = f"""
        import pathlib, time
        print("started", flush=True)
        time.sleep(0.5)
        pathlib.Path({str(file)!r}).write_text("all")"""
    async with connected(kernel) as client:
        client.execute(textwrap.dedent(code))
        while (await client.get_iopub_msg(timeout=20))["msg_type"] != "stream":
            pass
        kernel.shutdown_wait_time = 60  # seconds; on a busy machine all takes longer
        await kernel.shutdown_kernel()
    assert file.read_text() == "all"


async def test_restart_forks_another_kernel(kernel: ForkedKernelManager) -> None:
    await run(kernel, "left = 1")
    before = kernel.provisioner.pid
    await kernel.restart_kernel()
    assert kernel.provisioner.forked
    assert kernel.provisioner.pid != before
    assert (await run(kernel, "left"))["ename"] == "NameError"


async def test_shutdown_leaves_nothing(kernel: ForkedKernelManager, owner: Owner) -> None:
    await run(kernel, "import tempfile; file = tempfile.NamedTemporaryFile(delete=False)")
    provisioner = kernel.provisioner
    pid, scratch = provisioner.pid, Path(provisioner.scratch)
    assert list(scratch.iterdir())
    await kernel.shutdown_kernel()
    assert not psutil.pid_exists(pid)  # a zombie would exist
    assert not scratch.exists()
    assert not Path(kernel.connection_file).exists()
    assert not [path for path in Path(owner.connection_dir).iterdir() if "kernel" in path.name]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_exit_status_of_a_signal_is_known(
    kernel: ForkedKernelManager, number: signal.Signals
) -> None:
    await kernel.signal_kernel(number)
    assert await ended(kernel) == -number
    assert not await kernel.is_alive()


async def test_kernel_that_is_asked_to_end_publishes_all_before(
    kernel: ForkedKernelManager,
) -> None:
    code = """
        import collections, threading, time
        class Slow(collections.deque):
            def append(self, event):
                if threading.current_thread().name == "Control":
                    time.sleep(0.3)  # the main thread has ended by then
                super().append(event)
        publisher = get_ipython().kernel.iopub_thread
        publisher._events = Slow(publisher._events)"""
    assert (await run(kernel, code))["status"] == "ok"
    async with connected(kernel) as client:
        request = client.shutdown()
        states = []
        while "idle" not in states:
            message = await client.get_iopub_msg(timeout=20)
            if message["parent_header"]["msg_id"] == request:
                states.append(message["content"].get("execution_state"))
        assert await ended(kernel) == 0


async def test_exit_status_is_known(kernel: ForkedKernelManager) -> None:
    client = kernel.client()
    client.start_channels()
    client.execute("import os; os._exit(3)")
    assert await ended(kernel) == 3
    client.stop_channels()


async def test_ended_kernel_is_not_signalled(kernel: ForkedKernelManager) -> None:
    process = kernel.provisioner.process
    await kernel.signal_kernel(signal.SIGKILL)
    await ended(kernel)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == -signal.SIGKILL


async def test_kernels_survive_their_parent_and_another_is_started(
    kernel: ForkedKernelManager, owner: Owner
) -> None:
    old = owner.fork_server.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    assert (await run(kernel, "print('here')"))["text"] == "here"
    another = await start(owner, "another")  # waits until the new parent is warm
    assert owner.fork_server.pid not in (None, old)
    await another.shutdown_kernel(now=True)
    await kernel.signal_kernel(signal.SIGKILL)
    assert await ended(kernel) != 0  # which status nobody knows: its parent is gone


async def test_kernel_without_a_parent_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    owner = Owner(connection_dir=str(tmp_path))
    owner.fork_server = ForkServer(tmp_path)  # never started
    file = str(tmp_path / "k.json")
    manager = ForkedKernelManager(parent=owner, connection_file=file, kernel_name="python3")
    with pytest.raises(KernelError, match="not ready"):
        await manager.start_kernel()
    assert not manager.has_kernel
    assert list(tmp_path.iterdir()) == []


async def test_kernel_has_the_environment_that_was_asked_for(owner: Owner) -> None:
    """Also where an import of the parent has changed its own."""
    asked = {**os.environ, "ASKED": "ä\n", "OMP_NUM_THREADS": "3"}
    del asked["PATH"]
    kernel = await start(owner, "kernel", env=asked)
    try:
        code = "import json, os; print(json.dumps(dict(os.environ)))"
        got = json.loads((await run(kernel, code))["text"])
    finally:
        await kernel.shutdown_kernel(now=True)
    for name in ("TMPDIR", "MPLBACKEND", "JPY_PARENT_PID", "PYTHONPATH"):
        got.pop(name, None), asked.pop(name, None)
    added = {name for name in got if name not in asked}
    assert {name: got.get(name) for name in asked} == asked
    assert not [name for name in added if name in ENVIRONMENT or name == "PATH"]


async def test_too_large_environment_is_refused(owner: Owner) -> None:
    with pytest.raises(KernelError, match="at most 65536 bytes"):
        await start(owner, "kernel", env={**os.environ, "LARGE": "x" * 2**17})


async def test_kernel_is_forked_where_the_server_has_a_large_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        monkeypatch.setenv(f"LARGE_{number}", "x" * 100_000)
    owner = Owner(connection_dir=str(tmp_path))
    owner.fork_server = ForkServer(tmp_path)
    owner.fork_server.start()
    try:
        kernel = await start(owner, "kernel")
        reply = await run(kernel, "import os; print(len(os.environ['LARGE_3']))")
        assert reply["text"] == "100000"
        await kernel.shutdown_kernel(now=True)
    finally:
        owner.fork_server.stop()


async def test_kernel_has_limits(kernel: ForkedKernelManager) -> None:
    code = """
        import resource
        from pathlib import Path
        print(resource.getrlimit(resource.RLIMIT_CORE))
        print(Path("/proc/self/oom_score_adj").read_text().strip())
        try:
            bytes(500 * 2**20)
        except MemoryError:
            print("refused")
        print(len(bytearray(300 * 2**20)))"""
    reply = await run(kernel, "\n".join(line.removeprefix(" " * 8) for line in code.splitlines()))
    assert reply["text"].split("\n") == ["(0, 0)", "500", "refused", str(300 * 2**20)]


async def test_parent_that_hangs_does_not_delay_the_end(tmp_path: Path) -> None:
    fork_server = ForkServer(tmp_path)
    fork_server.start()
    assert await asyncio.to_thread(fork_server.wait_until_ready, 60)
    parent = psutil.Process(fork_server.pid)
    parent.suspend()
    started = time.monotonic()
    await asyncio.to_thread(fork_server.stop)
    assert time.monotonic() - started < 30
    assert not parent.is_running()


@pytest.mark.parametrize(
    ("command", "own"),
    [
        (["-m", "ipykernel_launcher", "-f", "x.json"], True),
        (["-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "x.json"], True),
        (["-m", "ipykernel_launcher", "-f", "x.json", "--pylab"], False),
        (["-m", "bash_kernel", "-f", "x.json"], False),
        ([], False),
    ],
)
async def test_only_our_own_ipykernel_is_forked(command: list[str], own: bool) -> None:
    import sys

    assert _is_own_ipykernel([sys.executable, *command]) is own
    assert not _is_own_ipykernel(["/usr/bin/true", *command])
